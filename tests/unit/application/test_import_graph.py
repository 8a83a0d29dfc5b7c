"""Imports are followed from the entry on: what happens at once, what waits for a call, and what is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.application.import_graph import ImportCheck, check_imports, code_of_project
from support.recipes import project

FORBIDDEN = {"torch": "torch", "sklearn": "scikit-learn", "google.ml": "google-ml"}
KNOWN = {"fastapi": "fastapi", "numpy": "numpy", "google.api": "google-api"}


def check(folder: Path, files: dict[str, str], entry: str = "svc.main") -> ImportCheck:
    sources = {"src/svc/__init__.py": ""} | {f"src/svc/{name}": text for name, text in files.items()}
    return check_imports(code_of_project(project(folder, sources)), entry, FORBIDDEN, KNOWN)


def told(found: ImportCheck) -> list[str]:
    return [str(one).removeprefix("src/svc/") for one in found.wrong]


def test_an_import_at_the_end_of_a_chain_is_named_with_the_chain(tmp_path: Path) -> None:
    files = {
        "main.py": "import fastapi\nfrom svc import routes\n",
        "routes.py": "from .work import model\n",
        "work/__init__.py": "",
        "work/model.py": "import os\n\nfrom torch import nn\n",
    }
    found = check(tmp_path, files)
    assert told(found) == ["work/model.py:3 imports torch as it is imported"]
    assert found.wrong[0].chain == (
        "svc.main:2 imports svc.routes",
        "svc.routes:1 imports svc.work.model",
    )
    assert not found.proved
    assert set(found.modules) == {"svc", "svc.main", "svc.routes", "svc.work", "svc.work.model"}


def test_the_package_above_is_imported_too(tmp_path: Path) -> None:
    found = check(tmp_path, {"main.py": "import svc.a.b\n", "a/__init__.py": "import sklearn\n", "a/b.py": ""})
    assert told(found) == ["a/__init__.py:1 imports sklearn as it is imported"]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\n",
        "import torch.nn as nn\n",
        "from torch.nn import Module\n",
        "if True:\n    import torch\n",
        "class A:\n    import torch\n",
        "with open('x') as f:\n    import torch\n",
        "try:\n    import torch\nfinally:\n    pass\n",
        "try:\n    import torch\nexcept ImportError:\n    raise RuntimeError\n",
        "try:\n    import numpy\nexcept ImportError:\n    import torch\n",
        "from importlib import import_module\nimport_module('torch.nn')\n",
        "__import__('torch')\n",
        "def load():\n    import torch\nload()\n",
        "def outer():\n    return inner()\ndef inner():\n    import torch\nX = outer()\n",
        "class A:\n    def __init__(self):\n        self.load()\n    def load(self):\n        import torch\na = A()\n",
        "class A:\n    @classmethod\n    def of(cls):\n        import torch\nA.of()\n",
        "def mark(f):\n    import torch\n    return f\n@mark\ndef g(): ...\n",
        "from svc.other import load\nload()\n",
        "from svc import other\nother.load()\n",
        "import svc.other\nsvc.other.load()\n",
        "from svc.other import Late\nx = Late()\n",
        "match 1:\n    case 1:\n        import torch\n",
        "from google import ml\n",
        "try:\n    import torch\nexcept ImportError:\n    sys.exit('needs torch')\n",
        "import importlib\nimportlib.import_module(name='torch')\n",
        "import importlib\nimportlib.import_module('.heavy', __package__)\n",
        "import importlib\nimportlib.import_module(package='svc', name='.heavy')\n",
        "class B:\n    def __init__(self):\n        import torch\nclass A(B):\n    pass\na = A()\n",
        "from svc.other import Late\nclass A(Late):\n    def __init__(self):\n        super().__init__()\na = A()\n",
        "from svc.other import Late\nclass A(Late):\n    def f(self):\n        self.g()\nA.f(None)\n",
        "class B:\n    def __init_subclass__(cls):\n        import torch\nclass A(B):\n    pass\n",
        "class M(type):\n    def __new__(cls, *a):\n        import torch\nclass A(metaclass=M):\n    pass\n",
        "def mark(c):\n    import torch\n    return c\n@mark\nclass A: ...\n",
        "from svc.package import shown\nshown()\n",
        "from svc import package\npackage.shown()\n",
        "from svc.other import *\nload()\n",
        "if __name__ != '__main__':\n    import torch\n",
        "if __name__ == 'svc.main':\n    import torch\n",
    ],
)
def test_what_happens_on_import(source: str, tmp_path: Path) -> None:
    other = "def load():\n    import torch\nclass Late:\n    def __init__(self):\n        import torch\n"
    files = {"other.py": f"{other}    def g(self):\n        import torch\n", "heavy.py": "import torch\n"}
    files |= {
        "package/__init__.py": "from .shown import shown\n",
        "package/shown.py": "def shown():\n    import torch\n",
    }
    found = check(tmp_path, {"main.py": source, **files})
    assert len(found.wrong) == 1, told(found)


@pytest.mark.parametrize(
    ("source", "when"),
    [
        ("def f():\n    import torch\n", "called"),
        ("async def f():\n    import torch\n", "called"),
        ("class A:\n    def f(self):\n        import torch\n", "called"),
        ("def make():\n    def handler():\n        import torch\n    return handler\napp = make()\n", "called"),
        ("f = lambda: __import__('torch')\nif __name__ == '__main__':\n    import torch\n", "called"),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None\n", "optional"),
        ("try:\n    import torch\nexcept (ImportError, OSError):\n    torch = None\n", "optional"),
        ("from contextlib import suppress\nwith suppress(ImportError):\n    import torch\n", "optional"),
        ("from importlib.util import find_spec\nif find_spec('torch') is not None:\n    import torch\n", "optional"),
        ("def f():\n    from svc import heavy\n", "called"),
        (
            "class B:\n    def __init__(self):\n        import torch\nclass A(B):\n    def __init__(self): ...\nA()\n",
            "called",
        ),
    ],
)
def test_what_waits_or_is_tried(source: str, when: str, tmp_path: Path) -> None:
    found = check(tmp_path, {"main.py": source, "heavy.py": "import torch\n"})
    assert found.wrong == []
    assert found.proved
    assert [one.when for one in found.allowed if "heavy" not in one.path or "heavy" in source] == [when]


def test_what_is_for_type_checkers_is_nothing(tmp_path: Path) -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    torch = None\n"
    found = check(tmp_path, {"main.py": source})
    assert (found.wrong, found.allowed) == ([], [])


def test_a_condition_that_says_it_is_missing_protects_nothing(tmp_path: Path) -> None:
    source = "from importlib.util import find_spec\nif find_spec('numpy') is None:\n    import torch\n"
    assert len(check(tmp_path, {"main.py": source}).wrong) == 1


def test_what_nothing_leads_to_is_told_apart(tmp_path: Path) -> None:
    found = check(tmp_path, {"main.py": "", "train.py": "import torch\n"})
    assert found.wrong == []
    assert [one.path for one in found.elsewhere] == ["src/svc/train.py"]


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    source = "import os, fastapi, mystery.x\nfrom google import api\ndef f():\n    import_module(name)\n"
    source += "try:\n    import_module(name)\nexcept ImportError:\n    pass\n"
    found = check(tmp_path, {"main.py": source})
    assert found.unknown == {"mystery": "src/svc/main.py:1"}
    assert found.dynamic == ["src/svc/main.py:4", "src/svc/main.py:6"]
    assert found.proved


@pytest.mark.parametrize(
    "source", ["import_module(name)\n", "import_module(*names)\n", "def f():\n    import_module(name)\nf()\n"]
)
def test_a_name_that_is_made_up_on_import_proves_nothing(source: str, tmp_path: Path) -> None:
    found = check(tmp_path, {"main.py": source})
    assert not found.proved
    assert list(found.unread) == [f"src/svc/main.py:{source.split('import_module', maxsplit=1)[0].count(chr(10)) + 1}"]


def test_a_file_that_is_too_large_proves_nothing(tmp_path: Path) -> None:
    files = {"main.py": "from svc import data\n", "data.py": "import torch\n" + "#" * (1 << 20)}
    found = check(tmp_path, files)
    assert not found.proved
    assert "larger than 1 MiB" in found.unread["src/svc/data.py"]


def test_a_file_that_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    found = check(tmp_path, {"main.py": "from svc import bad\n", "bad.py": "def (:\n", "unused.py": "def (:\n"})
    assert not found.proved
    assert list(found.unread) == ["src/svc/bad.py"]


def test_circles_end(tmp_path: Path) -> None:
    files = {"main.py": "from svc import a\na.f()\n", "a.py": "from svc import b\ndef f():\n    b.g()\n"}
    found = check(tmp_path, files | {"b.py": "from svc import a\ndef g():\n    a.f()\n    import torch\n"})
    assert told(found) == ["b.py:4 imports torch as it is imported, by a call of g"]
    assert found.wrong[0].chain == ("svc.main:2 calls svc.a.f", "svc.a:3 calls svc.b.g")
