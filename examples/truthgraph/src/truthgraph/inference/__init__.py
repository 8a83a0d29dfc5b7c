"""Models: here, in another instance of this service, or nowhere."""

from importlib.util import find_spec

from truthgraph.inference.interface import Inference
from truthgraph.inference.local import LocalInference
from truthgraph.inference.nothing import NoInference
from truthgraph.inference.remote import RemoteInference
from truthgraph.settings import DEFAULT_EMBEDDING_MODEL, Settings

__all__ = ["choose"]


def choose(settings: Settings) -> Inference:
    """The inference that the settings and the installed libraries allow. Nothing is loaded or connected to."""
    if settings.ml_url is not None:
        return RemoteInference(settings)
    needed = ["torch", "transformers", "sentence_transformers"]
    if settings.embedding_model == DEFAULT_EMBEDDING_MODEL:
        needed.append(DEFAULT_EMBEDDING_MODEL.replace("-", "_"))
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        return NoInference(
            f"not installed: {', '.join(missing)}. "
            "Install truthgraph[ml], or name an instance that has it by TRUTHGRAPH_ML_URL"
        )
    return LocalInference(settings)
