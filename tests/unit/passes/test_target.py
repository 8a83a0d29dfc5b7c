"""Targets as data: in plans, which people edit, and in the file of a slimmed image, which anybody may have written."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from deadweight.binary.gpu import Target
from deadweight.binary.target_document import IN_IMAGE, labels, write_document
from deadweight.errors import PlanError
from deadweight.passes.target import read_slimmed, read_target, slimmed_for, write_target
from support.views import Link, view

HOPPER = {"gpus": ["sm_90"], "keep_ptx": True, "raw_blobs": False, "recompress": False}
SLIMMED = {"schema": "deadweight.target/1", "deadweight": "0.0.1", "gpus": ["sm_80", "sm_90"], "keep_ptx": True}


@pytest.fixture(autouse=True)
def _encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadweight.binary.recompress.encoder", lambda: "lz4 1.0")


@pytest.mark.parametrize(
    ("target", "data"),
    [
        (None, {}),
        (Target((90,)), HOPPER),
        (Target(), {**HOPPER, "gpus": []}),
        (Target((80, 90, 100), False, True), {**HOPPER, "gpus": ["sm_80", "sm_90", "sm_100"], "keep_ptx": False,
                                              "raw_blobs": True}),
        (Target((90,), recompress=True), {**HOPPER, "recompress": True, "encoder": "lz4 1.0"}),
    ],
)  # fmt: skip
def test_targets_survive_their_data(target: Target | None, data: dict[str, Any]) -> None:
    assert write_target(target) == data
    assert read_target(json.loads(json.dumps(data))) == target


def test_gpus_are_sorted_and_named_once() -> None:
    assert read_target({**HOPPER, "gpus": ["sm_90", "sm_80", "sm_90"]}) == Target((80, 90))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": "sm_90"}, "gpus"),
        ({"gpus": [90]}, "gpus"),
        ({"gpus": None}, "gpus"),
        ({"gpus": ["h100"]}, "'h100' is no GPU"),
        ({"gpus": ["sm_90a"]}, "'sm_90a' is no GPU"),
        ({"gpus": ["sm_09"]}, "'sm_09' is no GPU"),
        ({"gpus": ["sm_9"]}, "'sm_9' is no GPU"),
        ({"gpus": ["sm_٩٠"]}, "is no GPU"),
        ({"gpus": ["sm_90\n"]}, r"'sm_90\\n' is no GPU"),
        ({"gpus": ["\x1b[31m"]}, r"'\\x1b\[31m' is no GPU"),
        ({"gpus": ["sm_" + "9" * 5000]}, "is no GPU"),
        ({"keep_ptx": "yes"}, "keep_ptx"),
        ({"keep_ptx": 1}, "keep_ptx"),
        ({"raw_blobs": None}, "raw_blobs"),
        ({"recompress": []}, "recompress"),
        ({"surprise": 1}, "surprise"),
        ({"\x1b[31m": 1}, r"\\x1b\[31m"),
        ({"encoder": 1}, "encoder"),
        ({"recompress": True}, "encoder is none, here it is 'lz4 1.0'"),
        ({"recompress": True, "encoder": "lz4 \x1b9"}, r"encoder is 'lz4 \\x1b9', here it is 'lz4 1.0'"),
    ],
)
def test_what_is_no_target_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_target({**HOPPER, **change})


@pytest.mark.parametrize("missing", list(HOPPER))
def test_every_field_is_needed(missing: str) -> None:
    with pytest.raises(PlanError, match=missing):
        read_target({k: v for k, v in HOPPER.items() if k != missing})


@pytest.mark.parametrize(
    ("target", "gpus", "ptx"),
    [
        (Target((80, 90)), ["sm_80", "sm_90"], True),
        (Target((90,), keep_ptx=False, raw_blobs=True), ["sm_90"], False),
        (Target(), [], False),
    ],
)
def test_what_an_image_says_that_it_was_slimmed_for(target: Target, gpus: list[str], ptx: bool) -> None:
    slimmed, note = slimmed_for(view({"etc/motd": "x"}), target)
    assert (list(slimmed.gpus), slimmed.keep_ptx, slimmed.raw_blobs, note) == (gpus, ptx, target.raw_blobs, None)
    data = write_document(slimmed)
    assert data.endswith(b"\n")
    assert json.loads(data)["schema"] == "deadweight.target/1"
    assert read_slimmed(view({IN_IMAGE: data})) == slimmed
    assert labels(slimmed) == {
        "deadweight.gpus": ",".join(gpus) or "none",
        "deadweight.ptx": "kept" if ptx else "dropped",
    }


@pytest.mark.parametrize(
    ("target", "gpus", "ptx", "blobs", "note"),
    [
        (Target((90,)), ["sm_90"], True, True, None),
        (Target((80, 90), keep_ptx=False), ["sm_80", "sm_90"], False, True, None),
        (Target((70, 90)), ["sm_90"], True, True, "for sm_80, sm_90: .* not one for sm_70"),
        (Target((70, 75)), [], True, True, "not one for sm_70, sm_75"),
        (Target(), [], False, True, None),
    ],
)
def test_what_left_before_does_not_come_back(
    target: Target, gpus: list[str], ptx: bool, blobs: bool, note: str | None
) -> None:
    slimmed, said = slimmed_for(view({IN_IMAGE: json.dumps({**SLIMMED, "raw_blobs": True})}), target)
    assert (list(slimmed.gpus), slimmed.keep_ptx, slimmed.raw_blobs) == (gpus, ptx, blobs)
    assert (said is None) == (note is None)
    assert re.search(note or "", said or "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        json.dumps({**SLIMMED, "raw_blobs": True, "schema": "deadweight.target/2"}),
        json.dumps({**SLIMMED, "raw_blobs": True, "gpus": ["\x1b[31m"]}),
        json.dumps({**SLIMMED, "raw_blobs": True, "gpus": "sm_90"}),
        json.dumps(SLIMMED),
        b" " * (2 << 20),
        Link("/etc/passwd"),
        None,
    ],
)
def test_what_cannot_be_believed_says_nothing(content: str | bytes | None) -> None:
    assert read_slimmed(view({IN_IMAGE: content})) is None
