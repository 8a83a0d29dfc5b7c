"""What rules look at: the instructions whose layers the image has, those they copy from, and what is known besides."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from deadweight.application.dockerfile import Dockerfile, Instruction, Stage, expand
from deadweight.application.servers import shlex_split
from deadweight.build.lint.context import Context
from deadweight.build.lint.history import Made, match
from deadweight.build.lint.measure import Measure
from deadweight.build.lint.model import Charge, Finding, Place
from deadweight.build.lint.shell import Command, run_commands
from deadweight.build.lint.steps import Install, installs
from deadweight.errors import UsageError, shown
from deadweight.ledger.known import known, matcher


@dataclass(frozen=True)
class Step:
    """An instruction, and what is known where it stands."""

    instruction: Instruction
    place: Place
    stage: int
    """The stage that it stands in; -1 for an image's history."""
    environment: Mapping[str, str] = field(repr=False)
    """What ENV and ARG have set before it."""
    workdir: str
    layer: int | None = None
    """The position of the image's layer that it made."""
    number: int | None = None
    """Its entry in the image's history, counted from 1."""

    @property
    def name(self) -> str:
        """The instruction's name."""
        return self.instruction.name

    @cached_property
    def commands(self) -> tuple[Command, ...]:
        """What a RUN runs."""
        return run_commands(self.instruction) if self.name == "RUN" else ()

    @cached_property
    def installs(self) -> tuple[Install, ...]:
        """What a RUN installs."""
        return tuple(installs(self.commands))

    def at(self, command: Command) -> Place:
        """The place of one of its commands."""
        return Place(self.place.file, command.line)

    @property
    def from_stage(self) -> str | None:
        """What `COPY --from` names."""
        return self.instruction.flag("from") if self.name in ("COPY", "ADD") else None

    @cached_property
    def copied(self) -> tuple[str, ...]:
        """The sources of COPY and ADD; heredocs are none."""
        return tuple(word for word in self._operands[:-1] if not re.match(r"\d*<<", word))

    @property
    def destination(self) -> str:
        """Where COPY and ADD put it, as an absolute path."""
        return posixpath.normpath(posixpath.join(self.workdir, self._operands[-1])) if self._operands else ""

    @property
    def placed(self) -> tuple[str, ...]:
        """The paths at which the sources of COPY and ADD are then; of a directory, its content."""
        place = self._operands[-1] if self._operands else ""
        if len(self.copied) > 1 or place.endswith("/") or place in (".", "./"):
            return tuple(posixpath.join(self.destination, posixpath.basename(one)) for one in self.copied)
        return (self.destination,) if place else ()

    @cached_property
    def _operands(self) -> tuple[str, ...]:
        if self.name not in ("COPY", "ADD"):
            return ()
        words = self.instruction.words
        words = tuple(shlex_split(self.instruction.text)) if words is None else words
        return tuple(expand(word, self.environment) for word in words)

    def mounts(self) -> Iterator[dict[str, str]]:
        """The `--mount` flags of a RUN, each as its settings."""
        for name, value in self.instruction.flags:
            if name == "mount":
                yield {k.strip(): v for k, _, v in (part.partition("=") for part in value.split(","))}

    def cached(self, *places: str) -> bool:
        """Whether a cache or tmpfs mount covers one of these directories."""
        targets = [
            mount.get("target") or mount.get("dst") or mount.get("destination") or ""
            for mount in self.mounts()
            if mount.get("type") in ("cache", "tmpfs")
        ]
        return any(
            place == t.rstrip("/") or place.startswith(t.rstrip("/") + "/") for t in targets if t for place in places
        )


@dataclass(frozen=True)
class Subject:
    """What is looked at."""

    file: str
    steps: tuple[Step, ...]
    """Those whose layers the image has, in order: of the stages that the final one begins with, and its own."""
    used: tuple[Step, ...]
    """Those of all stages that the final one is made of: copied from, or begun with."""
    base: str
    """The image that the first of the steps begins with; empty where it is not known."""
    base_place: Place
    base_comments: tuple[str, ...] = ()
    base_layers: tuple[int, ...] = ()
    """Layers of the image that none of the steps made, below those that they made."""
    context: Context | None = None
    measure: Measure | None = None
    dockerfile: Dockerfile | None = None
    stage: Stage | None = None
    notes: tuple[str, ...] = ()

    def runs(self) -> Iterator[Step]:
        """The RUNs whose layers the image has."""
        return (step for step in self.steps if step.name == "RUN")

    def inherited(self, step: Step) -> str:
        """Words for a step that stands in another stage than the final one."""
        if self.stage is None or self.dockerfile is None or step.stage == self.stage.index:
            return ""
        name = self.dockerfile.stages[step.stage].name or str(step.stage)
        return f", which the final stage inherits from {shown(name, 60)}"

    def finding(
        self,
        step: Step,
        what: str,
        *,
        command: Command | None = None,
        line: int | None = None,
        charges: tuple[Charge, ...] | None = None,
        more: Sequence[Place] = (),
        **settings: object,
    ) -> Finding:
        """A finding at a step, at one of its commands, or at a line of one."""
        place = step.place if command is None else step.at(command)
        place = place if line is None else Place(place.file, line)
        found = Finding(what, (place, *more), charges, step.layer, comments=step.instruction.comments)
        return replace(found, **settings)  # type: ignore[arg-type]

    def cuts(self, name: str, step: Step) -> tuple[Charge, ...] | None:
        """What a pass would take out of a step's layer; None where nothing is known of it."""
        return self.cost(step, lambda measure, layer: measure.cuts(name, layer))

    def cost(self, step: Step, charges: Callable[[Measure, int], tuple[Charge, ...]]) -> tuple[Charge, ...] | None:
        """What `charges` says of a step's layer; nothing where it made none, None where nothing is known of it."""
        if self.measure is None or step.number is None:
            return None
        return () if step.layer is None else charges(self.measure, step.layer)

    @cached_property
    def user(self) -> tuple[str, Step | None]:
        """The user that the image runs as, and the USER that says so; empty where none does."""
        found = next((step for step in reversed(self.steps) if step.name == "USER"), None)
        return (expand(found.instruction.text.strip(), found.environment), found) if found else ("", None)

    @cached_property
    def started(self) -> tuple[Step, ...]:
        """The last ENTRYPOINT and CMD: what the image runs. A CMD before an ENTRYPOINT does not count."""
        found: dict[str, Step] = {}
        for step in self.steps:
            if step.name == "ENTRYPOINT":
                found = {"ENTRYPOINT": step}
            elif step.name == "CMD":
                found["CMD"] = step
        return tuple(found.values())


def is_base(image: str, *names: str) -> bool:
    """Whether an image's name matches a list of known.toml's, and none of those after it."""
    name = image.partition("@")[0].lower().removeprefix("docker.io/").removeprefix("library/")
    first, *others = names
    return matcher(known("lint", first))(name) and not any(matcher(known("lint", other))(name) for other in others)


def of_dockerfile(
    file: str,
    dockerfile: Dockerfile,
    target: str | None,
    context: Context | None,
    image: tuple[Sequence[Made], Measure] | None,
) -> Subject:
    """A Dockerfile, perhaps with the image that was built of it. Raises UsageError where there is no such stage."""
    stage = dockerfile.stages[-1] if target is None else dockerfile.stage(target)
    if stage is None:
        names = ", ".join(one.name for one in dockerfile.stages if one.name)
        raise UsageError(f"there is no stage {shown(target or '')}" + (f"; there are: {names}" if names else ""))
    chain = dockerfile.chain(stage)
    steps = _steps(file, dockerfile, chain)
    used: list[Step] = []
    for index in sorted(_reached(dockerfile, stage)):
        one = dockerfile.stages[index]
        if one in chain:
            used += [step for step in steps if step.stage == index]
        else:
            used += [step for step in _steps(file, dockerfile, dockerfile.chain(one)) if step.stage == index]
    notes: list[str] = []
    base_layers: tuple[int, ...] = ()
    if image is not None:
        steps, base_layers = _with_layers(steps, image[0], notes)
    place = Place(file, chain[0].start.line)
    return Subject(
        file,
        steps,
        tuple(used),
        chain[0].base,
        place,
        chain[0].start.comments,
        base_layers,
        context,
        image[1] if image is not None else None,
        dockerfile,
        stage,
        tuple(notes),
    )


def of_image(file: str, made: Sequence[Made], measure: Measure) -> Subject:
    """The subject that is an image: the instructions are its history's."""
    steps = []
    environment: dict[str, str] = {}
    workdir = "/"
    for entry in made:
        one = entry.instruction
        steps.append(Step(one, Place(file, entry.number), -1, dict(environment), workdir, entry.layer, entry.number))
        workdir = _follow(one, environment, workdir)
    return Subject(file, tuple(steps), tuple(steps), "", Place(file, 1), measure=measure)


def _reached(dockerfile: Dockerfile, stage: Stage) -> set[int]:
    """The stages that a stage is made of."""
    found: set[int] = set()
    todo = [stage.index]
    while todo:
        index = todo.pop()
        if index in found:
            continue
        found.add(index)
        one = dockerfile.stages[index]
        if one.parent is not None:
            todo.append(one.parent)
        for instruction in one.instructions:
            named = [instruction.flag("from") or ""]
            named += re.findall(r"(?:^|,)from=([^,]+)", ",".join(v for k, v in instruction.flags if k == "mount"))
            for name in named:
                other = dockerfile.stage(expand(name, dockerfile.arguments)) if name else None
                if other is not None and other.index < index:
                    todo.append(other.index)
    return found


def _steps(file: str, dockerfile: Dockerfile, chain: Sequence[Stage]) -> tuple[Step, ...]:
    found = []
    environment: dict[str, str] = {}
    workdir = "/"
    for stage in chain:
        for one in stage.instructions:
            if one.name == "ARG" and "=" not in one.text and one.text in dockerfile.arguments:
                environment[one.text] = dockerfile.arguments[one.text]
            found.append(Step(one, Place(file, one.line), stage.index, dict(environment), workdir))
            workdir = _follow(one, environment, workdir)
    return tuple(found)


def _follow(one: Instruction, environment: dict[str, str], workdir: str) -> str:
    """What an instruction changes for those after it; gives the working directory."""
    if one.name in ("ENV", "ARG"):
        words = shlex_split(one.text)
        if one.name == "ENV" and len(words) > 1 and "=" not in words[0]:
            words = [f"{words[0]}={' '.join(words[1:])}"]
        before = dict(environment)
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                environment[name] = expand(value, before)
    elif one.name == "WORKDIR":
        return posixpath.normpath(posixpath.join(workdir, expand(one.text.strip().strip("\"'"), environment)))
    return workdir


def _with_layers(
    steps: tuple[Step, ...], made: Sequence[Made], notes: list[str]
) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The steps with their layers, and the layers below that none of them made."""
    indices = match([step.instruction for step in steps], made)
    found = tuple(
        step if index is None else replace(step, layer=made[index].layer, number=made[index].number)
        for step, index in zip(steps, indices, strict=True)
    )
    missing = [step for step in found if step.number is None and step.name in ("RUN", "COPY", "ADD")]
    if missing:
        lines = ", ".join(str(step.place.line) for step in missing[:10])
        notes.append(
            f"the image's history has no entry for line {lines}: is it of this Dockerfile? Bytes are not known"
        )
    first = min((index for index in indices if index is not None), default=0)
    below = tuple(entry.layer for entry in made[:first] if entry.layer is not None)
    return found, below
