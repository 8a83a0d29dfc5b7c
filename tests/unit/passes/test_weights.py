"""weights: formats that nobody takes leave, what somebody asks for stays; conversion is planned, built and proved."""

from __future__ import annotations

import json
import pickle
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from deadweight.models.choose import COMPUTES, COMPUTES_INT8
from deadweight.models.finding import find_models
from deadweight.passes.base import Options
from deadweight.passes.weights import PASS, View
from support.contexts import INTERPRETER, SITE, context, distribution, paths, proposals
from support.images import Member, file, hardlink, make_image, make_tar, symlink
from support.proofs import changed, content, differences, flipped, notes, proved, slimmed
from support.weights import floats, model, safetensors, transformers, weights

HERE = "opt/model"
ZIP = b"PK\x03\x04" + bytes(26) + b"x/data.pkl"
ONNX = b"\x08\x08rest"
H5 = b"\x89HDF\r\n\x1a\nrest"


def others(folder: str = HERE) -> list[Member]:
    """A model's other formats."""
    return [
        file(f"{folder}/pytorch_model.bin", ZIP),
        file(f"{folder}/tf_model.h5", H5),
        file(f"{folder}/flax_model.msgpack", b"x"),
        file(f"{folder}/rust_model.ot", b"x"),
        file(f"{folder}/onnx/model.onnx", ONNX),
        file(f"{folder}/onnx/model_quint8.onnx", ONNX),
        file(f"{folder}/openvino/openvino_model.xml", b"<?xml"),
        file(f"{folder}/openvino/openvino_model.bin", b"x"),
        file(f"{folder}/tokenizer.json", b"{}"),
    ]


def test_formats_that_nobody_takes_leave() -> None:
    at = context([*INTERPRETER, *transformers(), *model(HERE, *others())])
    found = proposals(PASS, at)
    assert [p.path for p in found] == sorted(m.name for m in others() if "tokenizer" not in m.name)
    assert all(p.evidence.startswith("transformers 5.24.0 takes model.safetensors") for p in found)
    assert at.notes == []


@pytest.mark.parametrize(
    ("more", "stay", "reason"),
    [
        ([file("app/main.py", b"x(backend='onnx')\n")], "onnx/", "/app/main.py says 'backend='onnx'"),
        ([file("app/main.py", b"import onnxruntime\n")], "onnx/", "/app/main.py says 'onnxruntime'"),
        ([file("app/main.py", b"m(a, use_safetensors = False)\n")], "pytorch", "/app/main.py says 'use_safetensors"),
        ([file("app/main.py", b"torch.load(x)\n")], "pytorch", "/app/main.py says 'torch.load'"),
        ([file("app/main.py", b"m(from_tf=True)\n")], "tf_model", "/app/main.py says 'from_tf'"),
        ([file("app/main.py", b"m(from_flax=True)\n")], "flax", "/app/main.py says 'from_flax'"),
        ([file("app/main.py", b"OVModelForX\n")], "openvino/", "/app/main.py says 'OVModel'"),
        (
            distribution("ours", file(f"{SITE}/ours/x.py", b"import onnxruntime\n")),
            "onnx/",
            f"/{SITE}/ours/x.py imports onnxruntime",
        ),
    ],
)
def test_what_somebody_asks_for_stays(more: list[Member], stay: str, reason: str) -> None:
    at = context([*INTERPRETER, *transformers(), *model(HERE, *others()), *more], run={"WorkingDir": "/app"})
    left = paths(PASS, at)
    assert left
    assert not [path for path in left if f"/{stay}" in path]
    assert any(reason in note for note in at.notes), at.notes


def test_libraries_that_open_a_format_only_when_asked_do_not_keep_it() -> None:
    more = distribution("optimum", file(f"{SITE}/optimum/x.py", b"import onnxruntime\n"))
    assert f"{HERE}/onnx/model.onnx" in paths(
        PASS, context([*INTERPRETER, *transformers(), *model(HERE, *others()), *more])
    )


def test_the_environment_can_ask() -> None:
    at = context([*INTERPRETER, *transformers(), *model(HERE, *others())], run={"Env": ["EMBED_BACKEND=onnx"]})
    assert f"{HERE}/onnx/model.onnx" not in paths(PASS, at)
    assert "the image's configuration says 'EMBED_BACKEND=onnx'" in at.notes[0]


def test_nothing_leaves_where_nothing_takes_what_stays() -> None:
    assert paths(PASS, context([*INTERPRETER, *model(HERE, *others())])) == []
    assert paths(PASS, context([*INTERPRETER, *transformers("4.20.0"), *model(HERE, *others())])) == []
    plain = [member for member in model(HERE, *others()) if "model.safetensors" not in member.name]
    assert paths(PASS, context([*INTERPRETER, *transformers(), *plain])) == []
    other = model(HERE, *others(), config={"_class_name": "UNet"})  # of another library
    assert paths(PASS, context([*INTERPRETER, *transformers(), *other])) == []
    kept = context([*INTERPRETER, *transformers(), *model(HERE, *others())], options=Options(keep=("opt/*",)))
    assert paths(PASS, kept) == []


def test_shards_have_to_be_whole() -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    one = model(HERE, *others())
    parts = [m for m in one if not m.name.endswith("model.safetensors")]
    parts += [file(f"{HERE}/model.safetensors.index.json", index), file(f"{HERE}/model-1.safetensors", weights())]
    assert paths(PASS, context([*INTERPRETER, *transformers(), *parts])) == []
    parts.append(file(f"{HERE}/model-2.safetensors", weights(2)))
    at = context([*INTERPRETER, *transformers(), *parts], options=Options(weights="fp16"))
    found = proposals(PASS, at)
    assert {p.path for p in found if p.action == "rewrite"} == {
        f"{HERE}/config.json",
        f"{HERE}/model-1.safetensors",
        f"{HERE}/model-2.safetensors",
    }


def hugging_face() -> list[Member]:
    """A cache of Hugging Face: snapshots whose names lead to blobs."""
    root = "root/.cache/huggingface/hub/models--a--b"
    snapshot = f"{root}/snapshots/1234"
    members = []
    for number, member in enumerate([*model(snapshot, *others(snapshot))][1:]):
        blob = f"{root}/blobs/{number:040x}"
        base = member.name.removeprefix(f"{snapshot}/")
        members.append(file(blob, member.data))
        members.append(symlink(member.name, "../" * (base.count("/") + 2) + f"blobs/{number:040x}"))
    return members


def test_in_a_cache_links_leave_with_their_blobs_and_blobs_are_converted() -> None:
    members = hugging_face()
    blobs = {m.name: m.data for m in members if "/blobs/" in m.name}
    at = context([*INTERPRETER, *transformers(), *members], options=Options(weights="fp16"))
    found = proposals(PASS, at)
    removed = [p.path for p in found if p.action == "remove"]
    assert len([path for path in removed if "/blobs/" in path]) == len(others()) - 1
    assert len(removed) == 2 * (len(others()) - 1)
    assert {blobs[p.path][:1] for p in found if p.action == "rewrite"} == {b"{", weights()[:1]}
    # A blob that another snapshot names stays.
    more = symlink("root/.cache/huggingface/hub/models--a--b/snapshots/5678/rust_model.ot", f"../../blobs/{5:040x}")
    at = context([*INTERPRETER, *transformers(), *members, more])
    assert blobs[f"root/.cache/huggingface/hub/models--a--b/blobs/{5:040x}"] == b"x"
    assert f"root/.cache/huggingface/hub/models--a--b/blobs/{5:040x}" not in [p.path for p in proposals(PASS, at)]


def test_what_other_links_lead_to_stays() -> None:
    members = model(HERE, symlink(f"{HERE}/pytorch_model.bin", "/data/weights-2021.bin"))
    at = context([*INTERPRETER, *transformers(), *members, file("data/weights-2021.bin", ZIP)])
    assert paths(PASS, at) == [f"{HERE}/pytorch_model.bin"]


def saved(tensors: dict[str, bytes]) -> bytes:
    """A file as torch.save makes one: float32 of one dimension. The pickle names what would rebuild each."""

    out = BytesIO()
    body = b"\x80\x02}("
    for key, (name, data) in enumerate(tensors.items()):
        count = len(data) // 4
        body += b"X" + len(name).to_bytes(4, "little") + name.encode()
        body += b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
        body += b"X\x01\0\0\0" + str(key).encode() + b"X\x03\0\0\0cpuK" + bytes([count]) + b"tQ"
        body += b"K\0K" + bytes([count]) + b"\x85K\x01\x85\x89}tR"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", body + b"u.")
        for key, data in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("other", "evidence"),
    [
        ({"a": floats(1, 2), "b": floats(3)}, "2 of its 2 tensors are there bit for bit"),
        ({"a": floats(1, 2.5), "b": floats(3)}, "1 of its 2 tensors are there bit for bit, 1 have other numbers"),
        ({"a": floats(1, 2), "c": floats(3)}, "1 of its 2 tensors are there bit for bit, 1 are not there, such as 'c'"),
    ],
)
def test_tensors_of_both_formats_are_compared(other: dict[str, bytes], evidence: str) -> None:
    mine = safetensors({"a": ("F32", (2,), floats(1, 2)), "b": ("F32", (1,), floats(3))})
    members = model(HERE, file(f"{HERE}/pytorch_model.bin", saved(other)), safetensors=mine)
    (found,) = proposals(PASS, context([*INTERPRETER, *transformers(), *members]))
    assert found.evidence == f"transformers 5.24.0 takes model.safetensors; {evidence}"


class _Bad:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("it was unpickled",))


def test_a_pickle_is_never_run() -> None:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": _Bad()}, protocol=2))
    members = model(HERE, file(f"{HERE}/pytorch_model.bin", out.getvalue()))
    (found,) = proposals(PASS, context([*INTERPRETER, *transformers(), *members]))
    assert "it holds no dictionary of tensors" in found.evidence


# --- conversion ----------------------------------------------------------------------------------------


def test_weights_are_converted_and_the_configuration_says_what_to_compute_with() -> None:
    at = context([*INTERPRETER, *transformers(), *model(HERE)], options=Options(weights="fp16"))
    assert [(p.action, p.path, p.to, p.risk) for p in proposals(PASS, at)] == [
        ("rewrite", f"{HERE}/config.json", COMPUTES, "observed"),
        ("rewrite", f"{HERE}/model.safetensors", "fp16", "observed"),
    ]
    read, size = at.content(f"{HERE}/config.json")
    assert json.loads(read(0, size))["torch_dtype"] == "float32"


def test_without_the_option_nothing_is_converted() -> None:
    assert proposals(PASS, context([*INTERPRETER, *transformers(), *model(HERE)])) == []


@pytest.mark.parametrize(
    ("members", "to", "note"),
    [
        ([*transformers(), *model(HERE, config={})], "fp16", "no config.json of transformers is beside it"),
        (model(HERE), "fp16", "transformers is not installed"),
        ([*transformers(), *model(HERE)], "int8", "add torchao to the service's requirements"),
        ([*transformers(torchao="0.12.0"), *model(HERE)], "int8", "torchao 0.12.0 is installed"),
        ([*transformers("4.50.0", torchao="0.18.0"), *model(HERE)], "int8", "transformers from 5.0 on"),
        (
            [*transformers(torchao="0.18.0"), *model(HERE, config={"model_type": "gpt2"})],
            "int8",
            "which of the matrices of 'gpt2'",
        ),
        (
            [*transformers(torchao="0.18.0"), *model(HERE, config={"model_type": "bert", "quantization_config": {}})],
            "int8",
            "it is quantized already",
        ),
        ([*transformers(), file(f"{HERE}/config.json", b"{}"), file(f"{HERE}/a.bin", ZIP)], "fp16", "unpickled"),
        ([*transformers(), file(f"{HERE}/a.gguf", b"GGUF")], "fp16", "it is no model.safetensors (gguf)"),
        ([*transformers(), *model(HERE, safetensors=b"x" * 99)], "fp16", "a header of"),
    ],
)
def test_what_is_not_converted_says_why(members: list[Member], to: str, note: str) -> None:
    at = context([*INTERPRETER, *members], options=Options(weights=to))
    assert proposals(PASS, at) == []
    assert any(note in each for each in at.notes), at.notes


def test_int8_is_said_in_the_configuration() -> None:
    members = [*transformers(torchao="0.18.0"), *model(HERE, safetensors=weights(rows=64))]
    at = context([*INTERPRETER, *members], options=Options(weights="int8"))
    assert next((p.path, p.to) for p in proposals(PASS, at)) == (f"{HERE}/config.json", COMPUTES_INT8)


def test_a_model_whose_configuration_is_kept_stays() -> None:
    options = Options(weights="fp16", keep=(f"{HERE}/config.json",))
    at = context([*INTERPRETER, *transformers(), *model(HERE)], options=options)
    assert proposals(PASS, at) == []
    assert "its config.json cannot follow: it is to stay" in at.notes[0]


def test_copies_of_a_converted_file_are_not_linked_to_it(tmp_path: Path) -> None:
    copy = file("srv/copy.safetensors", weights())
    slim = slimmed(
        tmp_path, make_image(make_tar(*INTERPRETER, *transformers(), *model(HERE), copy)), Options(weights="fp16")
    )
    assert content(slim.after, "srv/copy.safetensors") == weights()


@pytest.mark.parametrize("to", ["fp16", "bf16", "int8"])
def test_the_conversion_is_predicted_built_and_proved(tmp_path: Path, to: str) -> None:
    members = [
        *INTERPRETER,
        *transformers(torchao="0.18.0"),
        *model(HERE, safetensors=weights(rows=64)),
        file("srv/config.json", b'{"model_type": "bert", "dtype": null}'),
        hardlink("srv/model.safetensors", f"{HERE}/model.safetensors"),
    ]
    slim = slimmed(tmp_path, make_image(make_tar(*members)), Options(weights=to))
    assert [(cut.path, cut.to) for cut in slim.plan.cuts if cut.pass_ == "weights"][1] == (
        f"{HERE}/model.safetensors",
        to,
    )
    proof = proved(slim.before, slim.after, slim.plan)
    assert differences(proof) == []
    assert "3 files are rewritten, weights to the nearest number (weights)" in notes(proof)
    assert [d for d in differences(proved(slim.before, slim.after)) if "model.safetensors" in d]  # undeclared
    new = content(slim.after, f"{HERE}/model.safetensors")
    damaged = changed(slim.after, f"{HERE}/model.safetensors", flipped(len(new) - 3))
    (found,) = {
        line.partition(": ")[2] for line in differences(proved(slim.before, damaged, slim.plan)) if "sha" not in line
    }
    assert "weights makes something else of it" in found


def test_models_are_found_in_all_formats() -> None:
    at = context([*model(HERE, *others()), file("x/a.bin", b"no model"), file("x/b.gguf", b"GGUF")])
    found = {model.folder: sorted({file.format for file in model.files}) for model in find_models(View(at.ledger))}
    assert found == {
        HERE: ["flax", "onnx", "openvino", "rust", "safetensors", "tensorflow", "torch"],
        "x": ["gguf"],
    }


# --- files that several models share --------------------------------------------------------------------

ROOT = "root/.cache/huggingface/hub/models--a--b"
BERT = b'{"model_type": "bert"}'
HALF = safetensors({"encoder.layer.0.dense.weight": ("F16", (4, 16), bytes(128))})


def snapshots(**named: tuple[bytes, bytes]) -> list[Member]:
    """Snapshots of a cache: configuration and weights of each, which are one blob where they are the same."""
    blobs: dict[bytes, str] = {}
    links = []
    for name, contents in named.items():
        for base, data in zip(("config.json", "model.safetensors"), contents, strict=True):
            blob = blobs.setdefault(data, f"{len(blobs):040x}")
            links.append(symlink(f"{ROOT}/snapshots/{name}/{base}", f"../../blobs/{blob}"))
    return [*(file(f"{ROOT}/blobs/{name}", data) for data, name in blobs.items()), *links]


@pytest.mark.parametrize("to", ["fp16", "int8"])
def test_snapshots_that_share_a_configuration_have_to_change_together(tmp_path: Path, to: str) -> None:
    big = weights(rows=64)
    members = [*INTERPRETER, *transformers(torchao="0.18.0"), *snapshots(a=(BERT, big), b=(BERT, HALF))]
    at = context(members, options=Options(weights=to))
    assert proposals(PASS, at) == []
    assert f"/{ROOT}/snapshots/b/config.json is a file of it, too" in at.notes[0]
    both = [*INTERPRETER, *transformers(torchao="0.18.0"), *snapshots(a=(BERT, big), b=(BERT, weights(2, rows=64)))]
    slim = slimmed(tmp_path, make_image(make_tar(*both)), Options(weights=to))
    assert len([cut for cut in slim.plan.cuts if cut.pass_ == "weights"]) == 3
    assert differences(proved(slim.before, slim.after, slim.plan)) == []


@pytest.mark.parametrize("link", [False, True])
def test_weights_that_a_model_shares_which_does_not_take_them_stay(link: bool) -> None:
    gpt2 = b'{"model_type": "gpt2"}'
    members = snapshots(a=(BERT, weights(rows=64)), b=(gpt2, weights(rows=64)))
    if link:
        members = [
            *model("opt/m", safetensors=weights(rows=64)),
            hardlink("opt/n/model.safetensors", "opt/m/model.safetensors"),
            file("opt/n/config.json", gpt2),
        ]
    int8 = context([*INTERPRETER, *transformers(torchao="0.18.0"), *members], options=Options(weights="int8"))
    assert proposals(PASS, int8) == []
    assert len(int8.notes) == 2
    fp16 = context([*INTERPRETER, *transformers(), *members], options=Options(weights="fp16"))
    assert len(proposals(PASS, fp16)) == 3


@pytest.mark.parametrize(
    "other", [hardlink("srv/w.bin", f"{HERE}/model.safetensors"), symlink("srv/w.bin", f"/{HERE}/model.safetensors")]
)
def test_weights_that_something_else_opens_stay(other: Member) -> None:
    at = context([*INTERPRETER, *transformers(), *model(HERE), other], options=Options(weights="fp16"))
    assert proposals(PASS, at) == []
    assert "/srv/w.bin is a file of it, too" in at.notes[0]


def test_a_link_that_is_kept_keeps_what_it_leads_to() -> None:
    members = [
        *model(HERE),
        file("srv/config.json", BERT),
        symlink("srv/model.safetensors", f"/{HERE}/model.safetensors"),
    ]
    at = context([*INTERPRETER, *transformers(), *members], options=Options(weights="fp16", keep=("srv/*",)))
    assert proposals(PASS, at) == []
    assert len(at.notes) == 2


def test_it_is_said_what_a_model_is_computed_with() -> None:
    config = {"model_type": "bert", "torch_dtype": "float16"}
    at = context([*INTERPRETER, *transformers(), *model(HERE, config=config)], options=Options(weights="fp16"))
    assert [p.why for p in proposals(PASS, at)] == [
        "weights as fp16; computed with as 'float16', which its config.json says"
    ]


# --- what has to be whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short for a header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a header of"),
        (weights()[:-100], "its tensors take"),
        (safetensors({}), "it has no tensors"),
    ],
    ids=["empty", "LFS", "cut off", "no tensors"],
)
def test_beside_weights_that_are_not_whole_nothing_leaves(data: bytes, reason: str) -> None:
    at = context([*INTERPRETER, *transformers(), *model(HERE, *others(), safetensors=data)])
    assert proposals(PASS, at) == []
    assert any(f"/{HERE}/model.safetensors is not whole: {reason}" in note for note in at.notes)


@pytest.mark.parametrize(
    ("path", "data", "stay"),
    [
        ("app/conf/app.yaml", b"weights: /opt/model/pytorch_model.bin\n", "pytorch_model"),
        ("app/settings.toml", b"backend = onnx\n", "onnx/"),
        ("app/.env", b"MODEL_FILE=tf_model.h5", "tf_model"),
    ],
)
def test_the_applications_configuration_can_ask(path: str, data: bytes, stay: str) -> None:
    at = context([*INTERPRETER, *transformers(), *model(HERE, *others()), file(path, data)], run={"WorkingDir": "/app"})
    left = paths(PASS, at)
    assert left
    assert not [each for each in left if f"/{stay}" in each]
    assert any(f"/{path} says" in note for note in at.notes)


def test_what_describes_a_model_does_not_ask_for_its_other_formats() -> None:
    index = file("app/m/pytorch_model.bin.index.json", b'{"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}')
    asked = file("app/pyproject.toml", b'dependencies = ["onnxruntime"]')
    members = [*transformers(), *model("app/m", *others("app/m"), index), asked]
    assert f"{index.name}" in paths(PASS, context([*INTERPRETER, *members], run={"WorkingDir": "/app"}))
