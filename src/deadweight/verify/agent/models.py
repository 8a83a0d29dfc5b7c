"""Opens a model with the image's own library, and says what came of it, and which of its files Python opened."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ERROR_LIMIT = 2000


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """The class, shapes and numbers of the model in `folder`, as `library` (transformers or sentence_transformers)
    opens it. Numbers come as a digest, and only where `numbers` says so.
    """
    for path in reversed(arguments["paths"]):
        sys.path.insert(0, path)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    folder = os.path.realpath(arguments["folder"])
    opened: set[str] = set()
    watch(folder, opened)
    try:
        model = load(arguments["folder"], arguments["library"])
        answer = described(model, arguments["numbers"])
    except BaseException as error:
        text = "%s: %s" % (type(error).__name__, error)
        return {"error": text.encode("utf-8", "backslashreplace").decode()[:ERROR_LIMIT], "opened": sorted(opened)}
    answer.update(error="", opened=sorted(opened))
    return answer


def watch(folder: str, opened: set[str]) -> None:
    """Notes the names of files below a folder that Python opens; what another language maps does not show."""
    links: dict[str, str] = {}
    for here, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(here, name)
            links[os.path.realpath(path)] = os.path.relpath(path, folder)

    def hook(event: str, values: Any) -> None:
        if event == "open" and isinstance(values[0], (str, bytes)):
            name = links.get(os.path.realpath(os.fsdecode(values[0])))
            if name is not None:
                opened.add(name)

    sys.addaudithook(hook)


def load(folder: str, library: str) -> Any:
    """The model, by the class that its configuration names."""
    if library == "sentence_transformers":
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]

        return SentenceTransformer(folder, device="cpu")
    import transformers  # type: ignore[import-not-found]

    names = transformers.AutoConfig.from_pretrained(folder).architectures or ["AutoModel"]
    return getattr(transformers, names[0], transformers.AutoModel).from_pretrained(folder)


def described(model: Any, numbers: bool) -> dict[str, Any]:
    """What a model of torch is."""
    import hashlib

    shapes, content = hashlib.sha256(), hashlib.sha256()
    count = 0
    kinds: set[str] = set()
    for name, tensor in sorted(model.state_dict().items()):
        shapes.update(("%s %s\n" % (name, tuple(tensor.shape))).encode())
        count += tensor.numel()
        if tensor.is_floating_point():
            kinds.add(str(tensor.dtype).replace("torch.", ""))
        if numbers and hasattr(
            tensor, "tensor_data_names"
        ):  # torchao's: numbers of several parts, with no view of bytes
            content.update(str(type(tensor).__name__).encode())
        elif numbers:
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            content.update(plain.view(torch_bytes()).numpy())
    return {
        "kind": type(model).__name__,
        "numbers": count,
        "computes": ", ".join(sorted(kinds)),
        "shapes": shapes.hexdigest(),
        "content": content.hexdigest() if numbers else "",
    }


def torch_bytes() -> Any:
    """The dtype of a byte."""
    import torch  # type: ignore[import-not-found]

    return torch.uint8
