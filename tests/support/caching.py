"""Images that are slimmed again: the service's, with GPU code, whose application changes."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from deadweight.cache.place import TAG
from deadweight.cli.main import main
from deadweight.passes import base
from support import hosts
from support.careless import distribution, service_image
from support.fatbins import fatbin, sm
from support.images import Compression, FixtureImage, directory, file, make_image, make_tar, write_oci

OPTIONS = ("--all-layers", "--gpu", "sm_80", "--drop-ptx")


@functools.cache
def gpu_library() -> bytes:
    """A library with code for sm_70, sm_80 and sm_86, of more than a megabyte: worth to be known by its digest."""
    with tempfile.TemporaryDirectory() as folder:
        fatbins = [fatbin(sm(70, size=400_000), sm(80, size=400_000)), fatbin(sm(80), sm(86, size=400_000))]
        return hosts.build(hosts.LAYOUTS["symbols"], Path(folder), fatbins).read_bytes()


def kernels(name: str = "kernels") -> bytes:
    """A layer with a distribution that has GPU code, symbols, tests and a copy of a file."""
    files = {
        f"{name}/__init__.py": b"from kernels import ops\n",
        f"{name}/ops.py": b"import ctypes\nctypes.CDLL('libkernels.so')\n",
        f"{name}/lib/libkernels.so": gpu_library(),
        f"{name}/tests/test_ops.py": b"from kernels.tests import helpers\nimport pytest\n",
        f"{name}/tests/helpers.py": b"# help\n" * 300,
        f"{name}/include/kernels.h": b"// h\n" * 900,
        f"{name}/one.txt": b"the same\n" * 200,
        f"{name}/two.txt": b"the same\n" * 200,
    }
    return make_tar(*distribution(name, "1.0", files))


def service(code: bytes = b"", more: tuple[bytes, ...] = ()) -> FixtureImage:
    """The service with GPU code; `code` is what its application has more."""
    first = service_image()
    app = make_tar(
        directory("app"), file("app/run.py", b"from service import main\n" + code), file("app/cache.pyc", b"x" * 5000)
    )
    run = first.config["config"]
    return make_image(*first.layers[:3], kernels(), *more, app, run=run)


@dataclass(frozen=True)
class Slimmed:
    """What slimming gave."""

    plan: bytes
    files: dict[str, bytes]
    """Of the layout, by name; `index.json` for the new tag alone."""
    messages: str = ""


def slim(
    place: Path, image: FixtureImage, *options: str, compression: Compression = "none", to: Path | None = None
) -> Slimmed:
    """Slims an image, from a layout to another one below `place`, which is not there before unless it is `to`."""
    number = len(list(place.iterdir())) if place.exists() else 0
    source = write_oci(place / f"in-{number}", image, "v", compression)
    target = to or place / f"out-{number}"
    plan = place / f"plan-{number}.json"
    words = ["slim", f"oci:{source}:v", "--to", f"oci:{target}:t{number}", *OPTIONS, "--plan-out", str(plan), *options]
    status = main([*words, "--json", str(place / f"report-{number}.json")])
    assert status == 0
    return Slimmed(without_place(plan.read_bytes()), files_of(target, f"t{number}"))


def without_place(plan: bytes) -> bytes:
    """A plan without where its image was."""
    data: dict[str, Any] = json.loads(plan)
    data["image"]["reference"] = ""
    return json.dumps(data).encode()


def files_of(layout: Path, tag: str) -> dict[str, bytes]:
    """The blobs of a tag's image."""
    index = json.loads((layout / "index.json").read_bytes())
    name = "org.opencontainers.image.ref.name"
    entry = next(one for one in index["manifests"] if one["annotations"][name] == tag)
    blobs = layout / "blobs" / "sha256"
    found = {entry["digest"]: (blobs / entry["digest"][7:]).read_bytes()}
    manifest = json.loads(found[entry["digest"]])
    for one in (manifest["config"], *manifest["layers"]):
        found[one["digest"]] = (blobs / one["digest"][7:]).read_bytes()
    return found


PASS_OF_OTHERS = """
from deadweight.image.content import Content
from deadweight.passes.base import Pass, Proposal

def propose(context):
    if context.may_change({path!r}):
        yield Proposal("rewrite", {path!r}, "mine")

def rewrite(task):
    return Content(({text!r},))

PASS = Pass("mine", "lossless", 70, "mine", propose, rewrite, recipe=lambda task: None)
"""


@contextmanager
def pass_of_others(folder: Path, path: str, text: bytes) -> Iterator[None]:
    """A pass that another distribution has installed: it makes `text` of the file at `path`."""
    (folder / "mine_pass.py").write_text(PASS_OF_OTHERS.format(path=path, text=text))
    mine = EntryPoint("mine", "mine_pass:PASS", "deadweight.passes")
    points = [*entry_points(group="deadweight.passes"), mine]
    caches = (base.registered, base.all_passes, base.own_passes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(folder)
        patch.setattr(base, "entry_points", lambda **_: points)
        for cached in caches:
            cached.cache_clear()
        yield
    sys.modules.pop("mine_pass", None)
    for cached in caches:
        cached.cache_clear()


def cache_folder() -> Path:
    """The test's own cache."""
    return Path(os.environ["DEADWEIGHT_CACHE_DIR"])


def cached_files() -> list[Path]:
    """Every file of the cache, but for what marks it as one."""
    return sorted(path for path in cache_folder().rglob("*") if path.is_file() and path.name != TAG)
