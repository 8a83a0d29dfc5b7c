"""Whether a torch stack that was pruned for one GPU still computes bit for bit what the original computes there.

Copies the torch stack of this Python (or of --python), prunes the copy by the real command line for the GPU at hand,
runs the same work in fresh processes over both trees and compares digests of all outputs, times, GPU memory and bytes.
Then prunes a second copy for a GPU that is not there, where the driver has to say so. The JSON record goes to
docs/evidence/ (see the README.md there). Without a GPU or a torch it says "skipped".

`--device cpu --gpu sm_90` runs what works on a CPU, after the same pruning.

Exit status: 0 all the same, or skipped; 1 something differs; 4 no answer was had (no room, the budget spent).
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpu_children import Runner, command, one, run_probes
from gpu_record import about, default_out, summary, write
from gpu_trees import (
    CannotCheck,
    Skipped,
    Stack,
    Tree,
    copy_stack,
    deadweight_environment,
    environment,
    find_stack,
    measure_tree,
    prune,
    prune_command,
    shadowed,
)
from gpu_verdicts import (
    STOPPED,
    Outcome,
    all_clear,
    all_same,
    as_records,
    judge_all,
    judge_elsewhere,
)
from gpu_work import ON_GPU, names_for

EAGER = ("matmul_fp32", "convolution_fp32", "fft", "svd", "sorting", "collective")
"""Probes to run once more with every kernel of every library loaded at the start."""
EAGERLY = {"CUDA_MODULE_LOADING": "EAGER"}
OTHER_GPUS = (80, 90, 100, 75, 120, 70)
"""Which generation stands for "a GPU that is not there", the first that is another one than the GPU's."""

Say = Callable[[str], None]
Runs = dict[str, list[Outcome]]
"""The outcomes of each probe in one tree, in the order they were run."""


@dataclass(frozen=True)
class Check:
    """What every step of one check needs."""

    given: argparse.Namespace
    stack: Stack
    runner: Runner
    deadweight: Mapping[str, str]
    """The environment that deadweight runs in."""
    folder: Path
    """For the copies."""
    record: dict[str, Any]
    """Filled step by step."""
    say: Say
    answers: dict[str, bool | None]
    """Of each part: whether all is as it should be, or None where that was not established."""

    @property
    def names(self) -> list[str]:
        """The probes to run."""
        known = names_for(self.given.device, self.given.compile)
        return [name for name in known if self.given.probes is None or name in self.given.probes.split(",")]


def pruned_copy(check: Check, name: str, gpu: str) -> Tree:
    """A copy of the stack that is pruned for `gpu`. Raises CannotCheck."""
    folder = check.folder / name
    options = ["--raw-blobs"] * check.given.raw_blobs + ["--recompress"] * check.given.recompress
    check.say(f"copying {check.stack.tree.bytes:,} bytes in {check.stack.tree.files:,} files")
    copy_stack(check.stack, folder)
    line = prune_command(folder, gpu, options)
    check.say(f"pruning for {gpu}")
    check.record["commands"].append(" ".join(line))
    found = prune(line, check.deadweight, max(1.0, check.runner.left()))
    tree = measure_tree(name, folder)
    check.say(f"{check.stack.tree.bytes:,} -> {tree.bytes:,} bytes")
    check.record["trees"][name] = {**asdict(tree), "target": gpu, "prune": found}
    return tree


def run(check: Check, tree: Tree, names: Sequence[str], **more: str) -> Mapping[str, Outcome]:
    """Outcomes of probes in one tree; what libraries came from outside it goes into the record as a problem."""
    check.say(f"{len(names)} probes in the {tree.name} tree {' '.join(f'{k}={v}' for k, v in more.items())}".rstrip())
    ran = run_probes(check.runner, tree, names, check.say, **more)
    check.record["errors"] += [f"{tree.name}: {error}" for error in ran.errors]
    strange = shadowed(check.stack, tree, ran.libraries)
    if strange:
        check.record["problems"].append(f"the {tree.name} tree was not alone: {', '.join(strange)}")
        check.say(check.record["problems"][-1])
    return ran.outcomes


def compare(check: Check, pruned: Tree, names: Sequence[str], times: int, **more: str) -> Runs:
    """Runs probes some times in each tree, and puts the verdicts into the record and the answers.

    What differs is looked at again, three times in each tree: the original may be not reproducible more rarely than
    in every second run. What hangs or crashes in the original is not run again.
    """
    original = check.stack.tree
    before: Runs = {name: [] for name in names}
    after: Runs = {name: [] for name in names}

    def round_in(tree: Tree, found: Runs, chosen: Sequence[str]) -> None:
        for name, outcome in run(check, tree, chosen, **more).items():
            if outcome.kind != "not run":
                found[name].append(outcome)

    round_in(original, before, names)
    working = [name for name in names if all(o.kind not in STOPPED for o in before[name])]
    round_in(pruned, after, working)
    for _ in range(times - 1):
        round_in(original, before, working)
        round_in(pruned, after, working)
    differing = [each.name for each in judge_all(before, after) if each.verdict == "differs"]
    # A crash is no matter of chance, and to wait for what hangs again costs the other parts their time.
    if differing := [name for name in differing if all(o.kind not in STOPPED for o in after[name])]:
        check.say(f"looking again at {', '.join(differing)}")
        for _ in range(3):
            round_in(original, before, differing)
            round_in(pruned, after, differing)
    judged, part = judge_all(before, after), "probes_eager" if more else "probes"
    check.answers[part] = all_same(judged)
    check.record[part] = [
        {**asdict(each), "original": as_records(before[each.name])}
        | ({"pruned": as_records(after[each.name])} if each.verdict == "differs" else {})
        for each in judged
    ]
    return before


def measures(check: Check, pruned: Tree, setting: str, **more: str) -> None:
    """Import time, time to the first kernels, and memory, in fresh processes by turns: medians into the record.

    The page cache is warm by now for both trees.
    """
    found: dict[str, list[dict[str, float]]] = {check.stack.tree.name: [], pruned.name: []}
    for i in range(check.given.runs):
        check.say(f"measuring, {setting} loading, round {i + 1}")
        for tree in (check.stack.tree, pruned):
            found[tree.name].append(one(check.runner, tree, "measure", **more))
    check.record["measures"][setting] = {
        name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }


def elsewhere(check: Check, facts: Mapping[str, Any], before: Runs) -> None:
    """Runs what works in the original in a tree that was pruned for another GPU: verdicts into record and answers."""
    other = other_gpu(facts["architectures"], facts["capability"])
    tree = pruned_copy(check, "other", other)
    names = [name for name in before if name in ON_GPU and before[name] and all(o.kind == "ok" for o in before[name])]
    # Launches that wait, so that each error is that of the kernel it belongs to.
    found = run(check, tree, names, CUDA_LAUNCH_BLOCKING="1")
    judged = [judge_elsewhere(name, before[name], found[name]) for name in names]
    check.answers["other_gpu"] = all_clear(judged)
    check.record["other_gpu"] = {"target": other, "probes": [asdict(each) for each in judged]}


def check_stack(check: Check, facts: Mapping[str, Any], target: str, save: Callable[[], None]) -> None:
    """The whole check, part by part, each into the record; the most telling first. Raises CannotCheck."""
    check.answers["probes"] = None
    pruned = pruned_copy(check, "pruned", target)
    save()
    before = compare(check, pruned, check.names, times=2)
    save()
    measured: dict[str, Callable[[], object]] = {"measuring": partial(measures, check, pruned, "lazy")}
    rest = measured
    if check.given.device == "cuda":
        check.answers["other_gpu"] = None
        eager = [name for name in EAGER if name in check.names]
        again = partial(compare, check, pruned, eager, times=1, **EAGERLY)
        rest = {
            "another GPU": partial(elsewhere, check, facts, before),
            **measured,
            **({"eager loading": again} if eager else {}),
            "measuring eager loading": partial(measures, check, pruned, "eager", **EAGERLY),
        }
    for what, part in rest.items():
        if check.runner.left() < 0.15 * check.given.budget:
            check.record["not_done"].append(f"{what}: {check.runner.left():.0f} s of the budget were left")
            continue
        try:
            part()
        except CannotCheck as reason:  # the other parts say something without it
            check.record["problems"].append(f"{what}: {reason}")
        save()


def other_gpu(architectures: Sequence[str], capability: int) -> str:
    """A GPU of another generation among those that the stack was compiled for. Raises CannotCheck."""
    numbers = {int(found[1]) for name in architectures if (found := re.fullmatch(r"sm_(\d+)[af]?", name))}
    foreign = {number for number in numbers if number // 10 != capability // 10}
    if not foreign:
        raise CannotCheck(f"this torch is compiled for one generation alone: {' '.join(architectures)}")
    return f"sm_{next((number for number in OTHER_GPUS if number in foreign), max(foreign))}"


def facts_of(runner: Runner, stack: Stack) -> dict[str, Any]:
    """What gpu_work.py says of the machine and of torch. Raises Skipped where a GPU is needed and there is none."""
    facts = one(runner, stack.tree, "facts")
    if runner.device == "cuda" and facts["gpu"] is None:
        raise Skipped(facts["why"])
    return facts


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the Python whose torch is checked")
    parser.add_argument("--gpu", help="what to prune for (default: the GPU at hand)")
    parser.add_argument("--raw-blobs", action="store_true", help="passed on to prune")
    parser.add_argument("--recompress", action="store_true", help="passed on to prune")
    parser.add_argument("--work", type=Path, help="where the copies go (default: a temporary directory)")
    parser.add_argument("--out", type=Path, help="the JSON record")
    parser.add_argument("--budget", type=float, default=540, metavar="SECONDS", help="in all (default: 540)")
    parser.add_argument("--runs", type=int, default=3, help="rounds of measuring (default: 3)")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well: needs a C compiler")
    parser.add_argument("--probes", help="these alone, comma-separated")
    parser.add_argument("--commit", help="deadweight's, for the record, where git cannot say (a copy without .git)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu needs --gpu")
    given = parser.parse_args()
    if given.device == "cpu" and not given.gpu:
        parser.error("--device cpu needs --gpu: there is none to prune for")
    if given.work is not None and not given.work.is_dir():
        parser.error(f"there is no directory {given.work}")
    return given


def main() -> int:
    given, begin = arguments(), time.monotonic()
    # Copies are removed also when the time is up.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="deadweight-gpu-", dir=given.work) as folder:
        try:
            stack = find_stack(given.python)
            cache = Path(folder) / "cache"
            cache.mkdir()
            runner = Runner(stack.python, environment(cache), given.device, begin + given.budget)
            facts = facts_of(runner, stack)
            deadweight = deadweight_environment(Path(folder))
        except Skipped as reason:
            print(f"skipped: {reason}")
            return 0
        except CannotCheck as reason:
            print(f"cannot check: {reason}", file=sys.stderr)
            return 4
        target = given.gpu or f"sm_{facts['capability']}"
        record = about(given, stack, facts)
        record["target"] = target
        record["commands"].append(" ".join(command(runner, stack.tree, "probes", "--probes", "...")))
        out = given.out or default_out(record, target, given)

        def save() -> None:
            record["seconds"] = round(time.monotonic() - begin, 1)
            write(out, record)

        check = Check(given, stack, runner, deadweight, Path(folder), record, say, {})
        try:
            check_stack(check, facts, target, save)
        except CannotCheck as reason:
            record["problems"].append(str(reason))
        finally:
            answers = {*check.answers.values(), *[None] * bool(record["problems"])}
            record["same"] = False if False in answers else None if None in answers else True
            save()
    print("\n".join(summary(record)))
    print(f"record: {out}")
    return {True: 0, False: 1, None: 4}[record["same"]]


if __name__ == "__main__":
    sys.exit(main())
