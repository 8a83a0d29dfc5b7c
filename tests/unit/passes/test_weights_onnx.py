"""--weights int8 of models for ONNX Runtime: it quantizes them, and opens what it made."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deadweight.errors import EnvironmentFailure
from deadweight.models import onnx_int8
from deadweight.passes.base import Options
from deadweight.passes.weights import PASS
from support.contexts import INTERPRETER, context, distribution, proposals
from support.images import Member, file, make_image, make_tar
from support.proofs import changed, content, differences, flipped, proved, slimmed

HERE = "srv/model/model.onnx"
INT8 = Options(weights="int8")


def exported(rows: int = 64) -> bytes:
    """A model of one linear layer, y = x w + b."""
    numbers = np.random.default_rng(0)
    w = numpy_helper.from_array(numbers.normal(size=(rows, 128)).astype("f4"), "w")
    b = numpy_helper.from_array(numbers.normal(size=(128,)).astype("f4"), "b")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 128])
    graph = helper.make_graph(nodes, "g", [x], [y], [w, b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def image(*more: Member) -> list[Member]:
    return [*INTERPRETER, *distribution("onnxruntime", "onnxruntime/__init__.py"), *more]


def answers(model: bytes, x: object) -> Any:
    return onnxruntime.InferenceSession(model).run(None, {"x": x})[0]


def test_it_is_quantized_built_proved_and_opens(tmp_path: Path) -> None:
    old = exported()
    slim = slimmed(tmp_path, make_image(make_tar(*image(file(HERE, old)))), INT8)
    (cut,) = [cut for cut in slim.plan.cuts if cut.pass_ == "weights"]
    assert cut.to == f"int8 by onnxruntime {version('onnxruntime')} and onnx {version('onnx')}"
    assert differences(proved(slim.before, slim.after, slim.plan)) == []
    new = content(slim.after, HERE)
    assert len(new) < len(old) / 3
    x = np.random.default_rng(1).normal(size=(4, 64)).astype("f4")
    one, two = answers(old, x), answers(new, x)
    assert (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two) > 0.999
    damaged = changed(slim.after, HERE, flipped(len(new) // 2))
    found = differences(proved(slim.before, damaged, slim.plan))
    assert any("weights makes something else of it" in line for line in found)


@pytest.mark.parametrize(
    ("members", "note"),
    [
        ([file(HERE, exported()), file("srv/model/model.onnx_data", b"x")], "its numbers lie in other files"),
        ([file(HERE, exported()[:-400])], "a field is longer"),
        ([file("srv/model/tokenizer.json")], ""),
    ],
)
def test_what_cannot_be_quantized_stays(members: list[Member], note: str) -> None:
    at = context(image(*members), options=INT8)
    assert proposals(PASS, at) == []
    assert [note in each for each in at.notes] == ([True] if note else [])


def test_a_model_that_onnx_runtime_refuses_stays_with_its_words() -> None:
    graph = helper.make_graph([helper.make_node("None", ["x"], ["y"])], "g", [], [], [])
    graph.initializer.append(numpy_helper.from_array(np.ones((300, 300), "f4"), "w"))
    model = helper.make_model(graph, opset_imports=[])
    del model.opset_import[:]
    at = context(image(file(HERE, model.SerializeToString())), options=INT8)
    assert proposals(PASS, at) == []
    assert "ONNX Runtime does not quantize it" in at.notes[0]


def test_without_onnx_runtime_in_the_image_or_here_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    at = context([*INTERPRETER, file(HERE, exported())], options=INT8)
    assert proposals(PASS, at) == []

    def missing() -> str:
        raise EnvironmentFailure("pip install 'deadweight[onnx]'")

    monkeypatch.setattr("deadweight.passes.weights.encoder", missing)
    at = context(image(file(HERE, exported())), options=INT8)
    assert proposals(PASS, at) == []
    assert "deadweight[onnx]" in at.notes[0]


def test_another_encoder_than_the_plans_is_refused() -> None:
    data = exported()
    with pytest.raises(ValueError, match="make a new plan"):
        onnx_int8.quantized(
            lambda at, length: data[at : at + length], len(data), "int8 by onnxruntime 0.1 and onnx 0.1"
        )


def test_halves_are_not_for_onnx() -> None:
    at = context(image(file(HERE, exported())), options=Options(weights="fp16"))
    assert proposals(PASS, at) == []
    assert onnx.__version__
