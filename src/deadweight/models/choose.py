"""Which models can be stored as smaller numbers, given the libraries beside them."""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from deadweight.errors import shown
from deadweight.models.finding import CONFIG, Model
from deadweight.models.int8 import MODEL_TYPES, VERSIONS

COMPUTES = "float32"
COMPUTES_INT8 = "float32, with int8 weights"
"""What a configuration comes to say, as cuts name it."""


def refusal(model: Model, to: str, versions: Mapping[str, str]) -> str | None:
    """Why a model stays as it is: None where it need not, empty where there is nothing to be said about it.

    `versions` are those of the installed distributions, by canonical name.
    """
    if not model.weights:
        formats = sorted({file.format for file in model.files})
        if "torch" in formats:
            return "it is in torch's own format, which would have to be unpickled: save it as model.safetensors"
        return f"it is no model.safetensors ({', '.join(formats)})" if formats else ""
    if model.config is None or not model.of_transformers:
        return f"no {CONFIG} of transformers is beside it, so which numbers its library computes with is not known"
    if "quantization_config" in model.config:
        return "it is quantized already"
    if "transformers" not in versions:
        return "transformers is not installed, so which numbers its library computes with is not known"
    return _not_int8(str(model.config["model_type"]), versions) if to == "int8" else None


def _not_int8(kind: str, versions: Mapping[str, str]) -> str | None:
    version = versions.get("torchao")
    if version is None:
        return (
            "int8 is read by torchao, which is not installed: add torchao to the service's requirements "
            f"({', '.join(VERSIONS)}), or take fp16"
        )
    if not version.startswith(tuple(f"{each}." for each in VERSIONS)):
        return f"torchao {version} is installed, and what is known here is int8 of {', '.join(VERSIONS)}"
    if not at_least(versions["transformers"], "5.0"):
        return "int8 of torchao is read by transformers from 5.0 on"
    if kind not in MODEL_TYPES:
        return f"which of the matrices of {shown(kind)} are linear layers is not known: take fp16"
    return None


def at_least(version: str, first: str) -> bool:
    """Whether a version is `first` or later; one that is none is not."""
    try:
        return Version(version) >= Version(first)
    except InvalidVersion:
        return False
