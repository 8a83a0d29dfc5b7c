"""An image in two parts: by an extra, by names, by what is known; and whether its application would start without."""

from __future__ import annotations

import pytest

from deadweight.application.image_split import ImageSplit, split_image
from deadweight.errors import UsageError
from deadweight.ledger.ledger import Ledger
from support.contexts import INTERPRETER, SITE, context, distribution
from support.images import Member, directory, file

CMD = ["uvicorn", "svc.main:app"]
MAIN = b"from fastapi import FastAPI\nfrom svc import model\napp = FastAPI()\n"
LAZY = b"def load():\n    import torch\n"
EAGER = b"import numpy\nimport torch\n"
LIBRARIES: list[Member] = [
    *distribution(
        "torch", "torch/__init__.py", file(f"{SITE}/torch/lib.so", b"x" * 100_000), requires=["numpy", "nvidia-a"]
    ),
    *distribution("nvidia-a", file(f"{SITE}/nvidia/a.so", b"x" * 50_000)),
    *distribution("numpy", "numpy/__init__.py"),
    *distribution("fastapi", "fastapi/__init__.py", requires=["starlette"]),
    *distribution("starlette", "starlette/__init__.py"),
    *distribution("uvicorn", "uvicorn/__init__.py"),
    *distribution("leftover", "leftover.py"),
]


def service(model: bytes, *more: Member, metadata: bool = True) -> Ledger:
    """A service with its code, as a distribution or as files in /app."""
    code = {"main.py": MAIN, "model.py": model, "__init__.py": b""}
    if metadata:
        members = [file(f"app/lib/svc/{name}", data) for name, data in code.items()]
        requires = ["fastapi", "uvicorn", 'torch; extra == "ml"']
        own = distribution("svc", *members, requires=requires, site="app/lib")
        run = {"Cmd": CMD, "WorkingDir": "/app", "Env": ["PATH=/usr/local/bin:/bin", "PYTHONPATH=/app/lib"]}
    else:
        own = [file(f"app/svc/{name}", data) for name, data in code.items()]
        run = {"Cmd": CMD, "WorkingDir": "/app", "Env": ["PATH=/usr/local/bin:/bin"]}
    return context([*INTERPRETER, directory("app"), *LIBRARIES, *own, *more], run=run).ledger


def parts(found: ImageSplit) -> tuple[set[str], set[str], set[str], set[str]]:
    return set(found.ml), set(found.core), set(found.both), set(found.other)


@pytest.mark.parametrize(("names", "extra"), [((), None), ((), "ml"), (("Torch",), None)])
def test_the_parts(names: tuple[str, ...], extra: str | None) -> None:
    found = split_image(service(LAZY), names, extra)
    ml = {"torch", "nvidia-a", "numpy"}
    assert parts(found) == (ml, {"svc", "fastapi", "starlette", "uvicorn"}, set(), {"leftover"})
    assert found.ml["torch"] > 100_000
    assert found.core_bytes == found.bytes - sum(found.ml.values())
    assert found.check is not None
    assert [str(one) for one in found.check.allowed] == [
        "app/lib/svc/model.py:2 imports torch when load is called: not on import"
    ]


def test_code_that_no_metadata_speaks_for() -> None:
    found = split_image(service(EAGER, metadata=False), ["torch"], None)
    assert parts(found)[0] == {"torch", "nvidia-a"}
    assert set(found.both) == {"numpy"}
    assert found.check is not None
    assert [(one.path, one.line, one.imported) for one in found.check.wrong] == [("app/svc/model.py", 2, "torch")]
    assert found.check.wrong[0].chain == ("svc.main:2 imports svc.model",)


def test_what_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="'jax'"):
        split_image(service(LAZY), ["jax"], None)
    with pytest.raises(UsageError, match="there are: ml"):
        split_image(service(LAZY), (), "gpu")
    with pytest.raises(UsageError, match=r"svc\.nowhere"):
        split_image(service(LAZY), (), None, "svc.nowhere")
    bare = context([*INTERPRETER, *distribution("flask", "flask/__init__.py")], run={"Cmd": ["sh"]}).ledger
    with pytest.raises(UsageError, match="--by"):
        split_image(bare, (), None)
    assert split_image(bare, ["flask"], None).check is None
