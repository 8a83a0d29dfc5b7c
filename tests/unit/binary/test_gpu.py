"""The rule by which GPU code stays, against a model of the driver; and GPUs by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.binary.fatbin import CUBIN, FLAG_A, FLAG_F, LTO_IR, PTX, Entry
from deadweight.binary.gpu import Target, parse_gpus, products, runs_on, select, service
from deadweight.errors import UsageError

KINDS = {"sm": CUBIN, "compute": PTX, "lto": LTO_IR, "kind16": 16}
FLAGS = {"": 0, "a": FLAG_A, "f": FLAG_F}


def entry(label: str) -> Entry:
    """An entry by its label: sm_90a, compute_90, lto_90, kind16_90."""
    match = re.fullmatch(r"(\w+)_(\d+)([af]?)", label)
    assert match is not None
    made = Entry(0, KINDS[match[1]], int(match[2]), FLAGS[match[3]], 64, 0, 0, 0)
    assert made.label == label
    return made


def kept(labels: Sequence[str], *gpus: int, keep_ptx: bool = True) -> list[str]:
    chosen = select([entry(label) for label in labels], Target(gpus, keep_ptx=keep_ptx))
    return [labels[i] for i in sorted(chosen)]


class Case(NamedTuple):
    name: str
    entries: str
    gpus: tuple[int, ...]
    stay: str
    """With PTX dropped; none of the others is needed."""


CASES = [
    Case("exact", "sm_75 sm_80 sm_86 sm_90 compute_90", (86,), "sm_86"),
    Case("the nearest lower minor: L4 without sm_89", "sm_80 sm_86 sm_90", (89,), "sm_86"),
    Case("the nearest lower minor, further off", "sm_75 sm_80 sm_90", (89,), "sm_80"),
    Case("not a higher minor", "sm_75 sm_86 compute_80", (80,), "compute_80"),
    Case("not another generation", "sm_80 sm_100 compute_80", (90,), "compute_80"),
    Case("not ten times another generation", "sm_12 sm_1200 compute_90", (120,), "compute_90"),
    Case("Volta code runs on Turing", "sm_70 sm_80", (75,), "sm_70"),
    Case("Turing has its own", "sm_70 sm_75 sm_80", (75,), "sm_75"),
    Case("exactly this architecture's variant", "sm_80 sm_90 sm_90a compute_90", (90,), "sm_90 sm_90a"),
    Case("only the variant", "sm_80 sm_90a compute_80", (90,), "sm_90a"),
    Case("a variant of a lower minor never runs", "sm_100a compute_90", (103,), "compute_90"),
    Case("a variant beside code that runs", "sm_100 sm_100a sm_90", (103,), "sm_100"),
    Case("all variants of one", "sm_100 sm_100a sm_100f sm_103", (100,), "sm_100 sm_100a sm_100f"),
    Case("a family may run on later minors", "sm_100 sm_100f sm_120", (103,), "sm_100 sm_100f"),
    Case("a family is not trusted alone", "sm_100f compute_90 compute_120", (103,), "sm_100f compute_90"),
    Case("a family beside the exact", "sm_100f sm_103 compute_90", (103,), "sm_103"),
    Case("a family is not another generation's", "sm_100f compute_90", (120,), "compute_90"),
    Case("a family does not reach back", "sm_121f compute_120", (120,), "compute_120"),
    Case("only PTX", "compute_70 compute_80 compute_120", (90,), "compute_70 compute_80"),
    Case("PTX of exactly this architecture", "compute_90a compute_100a", (90,), "compute_90a"),
    Case("PTX of a lower architecture alone", "compute_100a compute_90", (103,), "compute_90"),
    Case("PTX of a family", "compute_100f compute_120f", (103,), "compute_100f"),
    Case("only PTX that is too new", "compute_100", (90,), ""),
    Case("newer than everything", "sm_80 sm_90 compute_90", (120,), "compute_90"),
    Case("older than everything", "sm_80 sm_90 compute_80", (61,), ""),
    Case("nothing at all", "sm_50 sm_60", (90,), ""),
    Case("no entries", "", (90,), ""),
    Case("unknown kinds stay", "kind16_75 sm_80 sm_90", (90,), "kind16_75 sm_90"),
    Case("code for no architecture stays", "sm_0 sm_80 sm_90", (90,), "sm_0 sm_90"),
    Case("LTO-IR that is not newer stays", "sm_90 lto_75 lto_90 lto_100", (75, 90), "sm_90 lto_75 lto_90"),
    Case("two of one architecture both stay", "sm_90 sm_90 sm_80 sm_80", (90,), "sm_90 sm_90"),
    Case("Orin's own", "sm_80 sm_86 sm_87 compute_80", (87,), "sm_87"),
    Case("Orin is not sure to run others", "sm_80 sm_86 compute_80", (87,), "sm_80 sm_86 compute_80"),
    Case("Orin's code is not sure to run on others", "sm_80 sm_86 sm_87 sm_90", (89,), "sm_86 sm_87"),
    Case("Orin's code alone", "sm_87 compute_80", (89,), "sm_87 compute_80"),
    Case("Thor by its new number", "sm_100 sm_101a compute_90", (110,), "sm_101a compute_90"),
    Case("Thor by its old number", "sm_110 compute_90 compute_110", (101,), "sm_110 compute_90 compute_110"),
    Case("Thor has its own", "sm_101 sm_110 compute_90", (110,), "sm_110"),
    Case("several GPUs", "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100", (75, 89, 90), "sm_75 sm_86 sm_90"),
    Case("several GPUs, one by PTX", "sm_80 sm_90 compute_90", (80, 120), "sm_80 compute_90"),
    Case("no GPU", "sm_80 compute_80 lto_80 kind16_80", (), "kind16_80"),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_stays(case: Case) -> None:
    labels, stay = case.entries.split(), case.stay.split()
    assert kept(labels, *case.gpus, keep_ptx=False) == stay
    with_ptx = [label for label in labels if label in stay or (case.gpus and label.startswith("compute"))]
    assert kept(labels, *case.gpus, keep_ptx=True) == with_ptx


class Model(NamedTuple):
    """What the driver may do, where it is not known: each is a driver that could be."""

    jetson: bool
    """Whether code crosses between Jetson and others of the same major."""
    families: bool
    """Whether `f` code runs on later minors."""
    renamed: bool
    """Whether 101 and 110 are one."""


MODELS = [Model(*flags) for flags in product([False, True], repeat=3)]
JETSON = {53, 62, 72, 87, 88, 101, 110}


def driver(entries: Sequence[Entry], gpu: int, model: Model) -> list[Entry]:
    """What the driver picks, all equals: the exact architecture, else the nearest lower minor, else the highest PTX."""

    def same(one: Entry) -> bool:
        return one.sm == gpu or (model.renamed and {one.sm, gpu} == {101, 110})

    def lower(one: Entry) -> bool:
        return one.sm // 10 == gpu // 10 and one.sm % 10 < gpu % 10

    def runs(one: Entry) -> bool:
        if not lower(one) or one.variant == "a" or (one.variant == "f" and not model.families):
            return False
        return model.jetson or (one.sm not in JETSON and gpu not in JETSON)

    def compiles(one: Entry) -> bool:
        if one.variant:
            return same(one) or (one.variant == "f" and lower(one))
        return one.sm <= gpu or same(one)

    cubins = [one for one in entries if one.kind == CUBIN]
    steps: list[Callable[[Entry], bool]] = [lambda one: one.sm == gpu, same, runs]
    for fits in steps:
        found = [one for one in cubins if fits(one)]
        if found:
            return _highest(found)
    return _highest([one for one in entries if one.kind == PTX and compiles(one)])


def _highest(entries: Collection[Entry]) -> list[Entry]:
    most = max((one.sm for one in entries), default=0)
    return [one for one in entries if one.sm == most]


SMS = st.sampled_from([70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 110, 120, 121])
ENTRIES = st.lists(
    st.builds(
        lambda kind, sm, variant: entry(f"{kind}_{sm}{variant}"),
        st.sampled_from([*KINDS, "sm", "sm", "compute"]),
        SMS,
        st.sampled_from(["", "", "", "a", "f"]),
    ),
    max_size=12,
).map(lambda entries: [one._replace(offset=i) for i, one in enumerate(entries)])
GPUS = st.sets(SMS, max_size=4).map(lambda gpus: tuple(sorted(gpus)))


class TestAgainstTheDriver:
    @given(ENTRIES, GPUS, st.booleans())
    def test_each_gpu_finds_what_it_found(self, entries: list[Entry], gpus: tuple[int, ...], keep_ptx: bool) -> None:
        left = [entries[i] for i in sorted(select(entries, Target(gpus, keep_ptx=keep_ptx)))]
        for gpu in gpus:
            for model in MODELS:
                assert driver(left, gpu, model) == driver(entries, gpu, model), (gpu, model)
            assert service(left, gpu) == service(entries, gpu)

    @given(ENTRIES, GPUS)
    def test_nothing_stays_that_no_driver_would_pick(self, entries: list[Entry], gpus: tuple[int, ...]) -> None:
        left = [entries[i] for i in select(entries, Target(gpus, keep_ptx=False))]
        cubins = {one for one in left if one.kind == CUBIN}
        sure = Model(jetson=False, families=False, renamed=False)
        for gpu in gpus:
            picked = {one for model in MODELS for one in driver(entries, gpu, model)}
            certain = [one.sm for one in driver(entries, gpu, sure) if one.kind == CUBIN]
            # What is not sure to run may stay where it is nearer than what is; never beside the exact.
            nearer = {one for one in cubins if max(certain, default=0) <= one.sm and gpu not in certain}
            nearer = {one for one in nearer if one.sm // 10 == gpu // 10 or {one.sm, gpu} == {101, 110}}
            cubins -= picked | nearer
        assert not cubins

    @given(ENTRIES, GPUS, st.booleans())
    def test_twice_is_once(self, entries: list[Entry], gpus: tuple[int, ...], keep_ptx: bool) -> None:
        target = Target(gpus, keep_ptx=keep_ptx)
        left = [entries[i] for i in sorted(select(entries, target))]
        assert select(left, target) == frozenset(range(len(left)))

    @given(ENTRIES, GPUS, GPUS, st.booleans())
    def test_more_gpus_keep_more(
        self, entries: list[Entry], some: tuple[int, ...], others: tuple[int, ...], keep_ptx: bool
    ) -> None:
        both = select(entries, Target(tuple(sorted({*some, *others})), keep_ptx=keep_ptx))
        assert select(entries, Target(some, keep_ptx=keep_ptx)) <= both

    def test_the_model_can_say_no(self) -> None:
        entries = [entry("sm_80"), entry("sm_86"), entry("compute_80")]
        assert driver(entries, 89, MODELS[0]) == [entries[1]]
        assert driver(entries[:1], 89, MODELS[0]) != driver(entries, 89, MODELS[0])
        assert driver(entries, 90, MODELS[0]) == [entries[2]]
        assert driver(entries, 75, MODELS[0]) == []


@pytest.mark.parametrize(
    ("labels", "gpu", "found"),
    [
        ("sm_90", 90, "cubin"),
        ("compute_80 sm_90a", 90, "cubin"),
        ("sm_80", 89, "cubin"),
        ("sm_100f", 103, "cubin"),
        ("sm_101", 110, "cubin"),
        ("sm_100a compute_100", 103, "ptx"),
        ("sm_80 compute_80", 87, "ptx"),
        ("compute_90a", 90, "ptx"),
        ("sm_80", 87, "nothing"),
        ("sm_90 compute_90", 80, "nothing"),
        ("compute_90a", 100, "nothing"),
        ("lto_90 kind16_90", 90, "nothing"),
        ("", 90, "nothing"),
    ],
)
def test_what_a_gpu_finds(labels: str, gpu: int, found: str) -> None:
    assert service(map(entry, labels.split()), gpu) == found


def test_code_runs_on_later_minors_but_not_between_jetson_and_others() -> None:
    assert [gpu for gpu in (75, 80, 86, 87, 89, 90) if runs_on(80, gpu)] == [80, 86, 89]
    assert [code for code in (75, 80, 86, 87, 89, 90) if runs_on(code, 87)] == [87]
    assert [gpu for gpu in (100, 101, 103, 110) if runs_on(101, gpu)] == [101]


class TestNames:
    @pytest.mark.parametrize(
        ("value", "sm"),
        [
            ("sm_90", 90),
            ("sm90", 90),
            ("SM_90", 90),
            ("90", 90),
            ("9.0", 90),
            (" 9.0 ", 90),
            ("sm_90a", 90),
            ("9.0a", 90),
            ("sm_100f", 100),
            ("12.1", 121),
            ("121", 121),
            ("sm_37", 37),
            ("sm_130", 130),
            ("20", 20),
            ("999", 999),
            ("h100", 90),
            ("H100", 90),
            ("NVIDIA H100", 90),
            ("nvidia-h100", 90),
            ("NVIDIA H100 80GB HBM3", 90),
            ("NVIDIA A100-SXM4-80GB", 80),
            ("A100 40G", 80),
            ("Tesla V100-SXM2-16GB", 70),
            ("Tesla T4", 75),
            ("rtx-4090", 89),
            ("RTX 4090", 89),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", 89),
            ("RTX_A6000", 86),
            ("NVIDIA RTX 6000 Ada Generation", 89),
            ("Quadro RTX 6000", 75),
            ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 120),
            ("Jetson AGX Orin", 87),
            ("Orin (nvgpu)", 87),
            ("thor", 110),
            ("DGX Spark", 121),
            ("l40s", 89),
        ],
    )
    def test_one(self, value: str, sm: int) -> None:
        assert parse_gpus([value]) == (sm,)

    @pytest.mark.parametrize(
        ("values", "sms"),
        [
            (["h100", "t4"], (75, 90)),
            (["h100,t4 , sm_75,", "9.0"], (75, 90)),
            (["120", "75"], (75, 120)),
            (["none"], ()),
            (["None", "none"], ()),
        ],
    )
    def test_several(self, values: list[str], sms: tuple[int, ...]) -> None:
        assert parse_gpus(values) == sms

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            (["none", "h100"], "'none' is for machines without a GPU"),
            (["none,9.0"], "'none' is for machines without a GPU"),
            ([], "no GPU is named"),
            (["", " , "], "no GPU is named"),
            (["compute_90"], "'compute_90' is a version of intermediate code"),
            (["lto_90"], "'lto_90' is a version of intermediate code"),
            (["rtx409"], r"'rtx409' is no GPU known here; close are .*rtx4090.*deadweight gpus"),
            (["RTX 6000"], "rtxa6000.*rtx6000ada"),
            (["A 1OO"], "'A 1OO' is no GPU known here.*sm_90 or 9.0"),
            (["19"], "'19' is no GPU known here"),
            (["1.3"], "'1.3' is no GPU known here"),
            (["9"], "'9' is no GPU known here"),
            (["1000"], "'1000' is no GPU known here"),
            (["sm_9\u0660"], "is no GPU known here"),
            (["nvidia"], "'nvidia' is no GPU known here"),
            (["\x1b[31m"], r"'\\x1b\[31m' is no GPU known here"),
            (["h100", "radeon"], "'radeon' is no GPU"),
        ],
    )
    def test_what_is_refused(self, values: list[str], said: str) -> None:
        with pytest.raises(UsageError, match=said) as caught:
            parse_gpus(values)
        assert str(caught.value).isprintable()

    @given(st.lists(st.text() | st.text("smh0123456789._-af, ")))
    def test_anything_is_read_or_refused(self, values: list[str]) -> None:
        try:
            found = parse_gpus(values)
        except UsageError as error:
            assert str(error).isprintable()  # noqa: PT017
            return
        assert list(found) == sorted(set(found))
        assert all(20 <= sm <= 999 for sm in found)

    def test_all_that_are_listed(self) -> None:
        assert len(products()) > 100
        assert {one.sm for one in products()} >= {50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90}
        assert {one.sm for one in products()} >= {100, 103, 110, 120, 121}
        for one in products():
            assert re.fullmatch("[a-z0-9]+", one.name)
            assert parse_gpus([one.name]) == (one.sm,)
            if "(" not in one.title:
                assert parse_gpus([one.title]) == (one.sm,)
        assert [one.sm for one in products()] == sorted(one.sm for one in products())
