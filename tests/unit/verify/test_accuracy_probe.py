"""What is lost is measured: directions of vectors, verdicts, numbers; a limit fails it."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight import Ledger, make_plan, open_image
from deadweight.errors import BadInputError
from deadweight.plan import Cut
from deadweight.verify.accuracy import NotComparable, accuracy, cosine
from deadweight.verify.arrays import Array, parse
from deadweight.verify.model import ProbeResult
from deadweight.verify.spec import AccuracyProbe, RunProbe, Spec
from deadweight.verify.spec.reading import read_spec
from deadweight.verify.verification import Setting, verify
from support.images import Member, file
from support.mini import mini_image
from support.probing import checked, probed


def saved(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


def arrays(**named: object) -> dict[str, Array]:
    return {name: parse(saved(value)) for name, value in named.items()}


VECTORS = st.integers(2, 6).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-100, 100, width=32), min_size=n, max_size=n)] * 2)
)


@given(VECTORS)
def test_cosines_are_those_of_plain_arithmetic(pair: tuple[list[float], list[float]]) -> None:
    one, two = (np.array(row, dtype="f8") for row in pair)
    sizes = float(np.linalg.norm(one) * np.linalg.norm(two))
    if min(np.linalg.norm(one), np.linalg.norm(two)) > 1e-20:
        assert cosine(pair[0], pair[1]) == pytest.approx(float(one @ two) / sizes, abs=1e-9)
    assert cosine(pair[0], pair[0]) == 1.0


def test_little_differences_are_not_lost_in_rounding() -> None:
    one = [1.0, 0.0]
    assert 1 - cosine(one, [1.0, 1e-6]) == pytest.approx(5e-13, rel=1e-3)


@pytest.mark.parametrize(
    ("one", "two", "loss"),
    [
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([0.0, 0.0], [1.0, 0.0], 1),
        ([1.0, 0.0], [-1.0, 0.0], 2),
        ([math.nan, 1.0], [math.nan, 1.0], 0),
        ([math.nan, 1.0], [1.0, 1.0], 1),
        ([math.inf, 1.0], [1.0, 1.0], 1),
    ],
)
def test_vectors_without_a_direction(one: list[float], two: list[float], loss: float) -> None:
    assert 1 - cosine(one, two) == pytest.approx(loss)


def test_all_kinds_of_arrays() -> None:
    before = arrays(
        v=np.array([[1, 0], [0, 1]], "f4"),
        labels=np.array(["yes", "no"]),
        codes=np.array([1, 2, 3]),
        p=np.array([0.5, 1]),
    )
    after = arrays(
        v=np.array([[1, 0], [0.1, 1]], "f2"),
        labels=np.array(["yes", "maybe"]),
        codes=np.array([1, 2, 3], "i4"),
        p=[1.5, 3.0],
    )
    found = accuracy(before, after)
    assert (found.vectors, found.verdicts, found.agreeing) == (3, 5, 4)
    assert found.lowest_cosine == pytest.approx(1 / math.sqrt(1.01), abs=1e-4)
    assert found.mean_cosine == pytest.approx((2 + 1 / math.sqrt(1.01)) / 3, abs=1e-4)
    assert found.largest_difference == 2.0
    assert found.loss == pytest.approx(0.2)
    assert found.in_words == "cosine >= 0.995039, largest difference 2, verdicts 80 % the same (4 of 5)"
    assert found.numbers["agreement"] == 0.8
    assert accuracy(before, before).in_words == "cosine = 1, largest difference 0, verdicts 100 % the same (5 of 5)"


@pytest.mark.parametrize(
    ("one", "two", "loss"),
    [
        ([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], 2),
        ([1.0, 2.0, 3.0], [math.nan, 2.0, -900.0], math.inf),
        ([[1.0, 2.0]], [[1.0, math.inf]], math.inf),
        ([[[1.0, 0.0]], [[0.0, 1.0]]], [[[1.0, 0.0]], [[0.0, -1.0]]], 2),
        ([[0.9], [0.8]], [[0.9], [0.2]], 0.6),
        ([[900.0]], [[1000.0]], 0.1),
        (0.5, 0.75, 0.25),
        (0.5, math.nan, math.inf),
        (math.nan, math.nan, 0),
        ([math.inf, 1.0], [math.inf, 1.0], 0),
    ],
)
def test_arrays_of_any_shape_can_lose(one: object, two: object, loss: float) -> None:
    found = accuracy(arrays(a=one), arrays(a=two))
    assert found.loss == pytest.approx(loss)


def test_nearly_one_is_not_called_one() -> None:
    found = accuracy(arrays(v=[[1.0, 0.0]]), arrays(v=[[1.0, 1e-6]]))
    assert found.in_words.startswith("cosine >= 0.999999")


@pytest.mark.parametrize(
    ("one", "two", "reason"),
    [
        (arrays(a=[1]), arrays(b=[1]), "'a': there -> not there"),
        (arrays(a=[1]), arrays(a=[1, 2]), "shape"),
        (arrays(a=[1]), arrays(a=[1.0]), "dtype i8 -> f8"),
        (arrays(a=[1j]), arrays(a=[1j]), "dtype"),
        ({}, {}, "no arrays"),
        (arrays(a=np.zeros((0, 3))), arrays(a=np.zeros((0, 3))), "empty"),
        (arrays(a=np.zeros((3, 0)), b=np.zeros(0, "i4")), arrays(a=np.zeros((3, 0)), b=np.zeros(0, "i4")), "empty"),
    ],
)
def test_what_cannot_be_compared(one: dict[str, Array], two: dict[str, Array], reason: str) -> None:
    with pytest.raises(NotComparable, match=reason):
        accuracy(one, two)


CODE = """
import json, os, shutil
sentences = json.load(open(os.environ["DEADWEIGHT_INPUT"]))
assert sentences == {sentences}, sentences
shutil.copytree("/data", os.environ["DEADWEIGHT_OUT"], dirs_exist_ok=True)
"""


def members(angle: float, *labels: int) -> list[Member]:
    vectors = [[1.0, 0.0], [math.cos(angle), math.sin(angle)]]
    return [file("data/vectors.npy", saved(vectors)), file("data/labels.npy", saved(labels))]


def test_the_verdict_shows_what_was_measured(tmp_path: Path) -> None:
    told = ["one", ["two", "three"]]
    (tmp_path / "lines.txt").write_text("one\n\ntwo\n")
    (tmp_path / "pairs.json").write_text(json.dumps(told))
    code, lines = CODE.format(sentences=told), CODE.format(sentences=["one", "two"])
    probes = [
        AccuracyProbe(name="fine", code=code, sentences=["one", ["two", "three"]], max_loss=0.01),
        AccuracyProbe(name="json", code=code, sentences_file="pairs.json"),
        AccuracyProbe(name="lines", code=lines, sentences_file="lines.txt", max_loss=0.01),
        AccuracyProbe(name="broken", code="raise SystemExit(3)", sentences=["one"]),
        AccuracyProbe(name="nothing", code="pass", sentences=["one"]),
    ]
    found = probed(tmp_path, members(0.1, 1, 2), members(0.0, 1, 2), probes, folder=str(tmp_path))
    fine = found["fine"]
    assert (fine.outcome, fine.ok) == ("same", True)
    assert fine.after == "cosine >= 0.995004, largest difference 0.1, verdicts 100 % the same (2 of 2)"
    assert fine.measured["loss"] == pytest.approx(1 - math.cos(0.1))
    assert found["lines"].ok
    assert found["json"].outcome == "differs"
    assert found["json"].details[0].startswith("the loss is 0.005, and at most 0.001 is allowed: cosine >= 0.995004")
    assert (found["broken"].outcome, found["broken"].ok) == ("not met", False)
    assert found["nothing"].outcome == "no answer"


def test_other_verdicts_are_a_loss(tmp_path: Path) -> None:
    probe = AccuracyProbe(name="p", code=CODE.format(sentences=["x"]), sentences=["x"], max_loss=0.3)
    found = probed(tmp_path, members(0.1, 1, 2), members(0.1, 1, 3), [probe])["p"]
    assert found.details == [
        "the loss is 0.5, and at most 0.3 is allowed: cosine = 1, largest difference 0, verdicts 50 % the same (1 of 2)"
    ]


def test_the_allowed_loss_of_the_command_line_takes_the_place_of_the_probes_own(tmp_path: Path) -> None:
    strict = Setting(max_loss=0.0)
    probes = [AccuracyProbe(name="p", code=CODE.format(sentences=["x"]), sentences=["x"], max_loss=0.3)]
    found = probed(tmp_path, members(0.1, 1), members(0.0, 1), probes, setting=strict)["p"]
    assert found.outcome == "differs"


@pytest.mark.parametrize("limit", [None, 0.01])
def test_where_weights_are_converted_numbers_may_be_as_far_apart_as_the_loss_allows(
    tmp_path: Path, limit: float | None
) -> None:
    print_vector = "import struct\nprint(*struct.unpack('<2d', open('/data/vectors.npy', 'rb').read()[-16:]))"
    probe = RunProbe(name="p", code=print_vector)
    before, after = mini_image(tmp_path, members(0.1)), mini_image(tmp_path, members(0.05))
    with open_image(before) as one, open_image(after) as two:
        ledger = Ledger(one)
        plan = make_plan(ledger)
        cut = Cut("weights", "data/vectors.npy", 1, "rewrite", 1, 1, "observed", "", to="fp16")
        declared = msgspec.structs.replace(plan, cuts=[cut])
        spec = Spec(defaults=False, probe=[probe])
        verdict = verify(ledger, Ledger(two), spec, plan=declared, setting=Setting(max_loss=limit))
    result = next(result for result in verdict.probes if result.name == "p")
    assert result.outcome == ("differs" if limit is None else "same")
    assert any("numbers may be 0.141 apart" in note for note in verdict.notes) == (limit is not None)


def test_one_image_has_to_compute_something(tmp_path: Path) -> None:
    probes = [AccuracyProbe(name="p", code=CODE.format(sentences=["x"]), sentences=["x"])]
    results: dict[str, ProbeResult] = checked(tmp_path, members(0.1, 1), probes)
    assert (results["p"].outcome, results["p"].measured) == ("met", {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('code = "x"', "one of sentences and sentences_file has to be given, not none"),
        ('code = "x"\nscript = "y.py"\nsentences = ["a"]', "one of script and code has to be given, not both"),
        ('code = "x"\nsentences_file = "../../x"', "is not beside the specification"),
        ('code = "x"\nsentences_file = "none.txt"', "there is no file"),
        ('code = "x"\nsentences = ["a"]\nmax_loss = 2', "max_loss"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "deadweight.toml"
    path.write_text(f'[[probe]]\nkind = "accuracy"\n{text}\n')
    with pytest.raises(BadInputError, match=reason):
        read_spec(path)
