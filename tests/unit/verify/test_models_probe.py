"""Models open by the image's own library, in both images; a library that does the same in little stands in for it."""

from __future__ import annotations

from pathlib import Path

from deadweight import Ledger, Options, make_plan, open_image
from deadweight.verify.probes.models import LARGEST, converted, default_models
from deadweight.verify.spec import ModelsProbe
from support.images import Member, file
from support.mini import mini_image, site
from support.probing import probed
from support.weights import model, weights

LIBRARY = b"""
import json, os

class Tensor:
    shape, dtype = (1,), "torch.float32"
    def __init__(self, data): self.data = data
    def numel(self): return len(self.data)
    def is_floating_point(self): return True
    def numpy(self): return self.data
    def view(self, _): return self
    detach = cpu = contiguous = lambda self: self
    def reshape(self, _): return self

class BertModel:
    @classmethod
    def from_pretrained(cls, folder):
        found = cls()
        with open(os.path.join(folder, "model.safetensors"), "rb") as file:
            found.data = file.read()
        if found.data == b"broken": raise OSError("it is broken")
        return found
    def state_dict(self): return {"weight": Tensor(self.data)}

AutoModel = BertModel

class AutoConfig:
    @classmethod
    def from_pretrained(cls, folder):
        found = cls()
        found.__dict__.update(architectures=None, **json.load(open(os.path.join(folder, "config.json"))))
        return found
"""
TORCH = b"uint8 = 'uint8'\n"
INSTALLED = site(
    {"transformers": {"transformers.py": LIBRARY}, "torch": {"torch.py": TORCH}, "safetensors": {"s.py": b""}}
)


def image(data: bytes, *more: Member) -> list[Member]:
    return [*INSTALLED, *model("srv/model", *more, safetensors=data)]


def test_models_open_and_are_what_they_were(tmp_path: Path) -> None:
    other = file("srv/model/pytorch_model.bin", b"PK\x03\x04" + b"data.pkl")
    same = probed(tmp_path, image(weights(), other), image(weights()), [ModelsProbe(name="m")])["m"]
    assert (same.outcome, same.before, same.after) == ("same", "1 open", "1 open")
    assert same.notes == ["opened in the original, /srv/model does without pytorch_model.bin"]
    wrong = probed(tmp_path, image(weights()), image(weights(2)), [ModelsProbe(name="m")])["m"]
    assert wrong.outcome == "differs"
    assert wrong.details[0].startswith("/srv/model: BertModel, ")
    broken = probed(tmp_path, image(weights()), image(b"broken"), [ModelsProbe(name="m")])["m"]
    assert broken.details[0].endswith("OSError: it is broken")
    gone = probed(tmp_path, image(weights()), INSTALLED, [ModelsProbe(name="m")])["m"]
    assert gone.outcome == "differs"


def test_of_converted_models_shapes_are_compared(tmp_path: Path) -> None:
    probe = ModelsProbe(name="m", folders=["/srv/model"], converted=["/srv/model"])
    assert probed(tmp_path, image(weights()), image(weights(2)), [probe])["m"].outcome == "same"
    assert probed(tmp_path, image(weights()), image(weights() + b"x"), [probe])["m"].outcome == "differs"


def test_by_default_the_models_of_an_image_are_opened(tmp_path: Path) -> None:
    with open_image(mini_image(tmp_path, image(weights()))) as source:
        ledger = Ledger(source)
        probe, notes = default_models(ledger, None)
        assert probe is not None
        assert (probe.folders, probe.converted, notes) == (["/srv/model"], [], [])
        plan = make_plan(ledger, Options(weights="fp16"), all_layers=True)
        assert converted(ledger, plan) == ["/srv/model"]
    copy = "root/.cache/uv/archive-v0/x/model"
    with open_image(mini_image(tmp_path, [*image(weights()), *model(copy)])) as source:
        ledger = Ledger(source)
        probe, _ = default_models(ledger, None)
        assert probe is not None
        assert probe.folders == [f"/{copy}", "/srv/model"]
        probe, notes = default_models(ledger, make_plan(ledger, all_layers=True))
        assert probe is not None
        assert (probe.folders, len(notes)) == (["/srv/model"], 1)
    with open_image(mini_image(tmp_path, model("srv/model"))) as source:
        assert default_models(Ledger(source), None) == (None, [])  # nothing there opens it
    assert LARGEST > 10**9
