"""Wheels for tests, whose members are stored in as many ways as there are."""

from __future__ import annotations

import base64
import hashlib
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

NAME = "gpu_thing-2.9.0-py3-none-any.whl"
INFO = "gpu_thing-2.9.0.dist-info"
DATA = "gpu_thing-2.9.0.data"


def make_wheel(
    folder: Path,
    members: Mapping[str, bytes],
    *,
    name: str = NAME,
    info: str = INFO,
    metadata: str = "Metadata-Version: 2.1\nName: gpu-thing\nVersion: 2.9.0\n\nVersion: 1, it says here\n",
    edit_record: Callable[[str], str] = lambda record: record,
) -> Path:
    """A wheel, with RECORD in the middle: nobody says that it must be the last."""
    added = {
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
    }
    everything = {**added, **members}
    lines = []
    for member, data in everything.items():
        if not member.endswith("/"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(
                f'"{member}",sha256={digest},{len(data)}\n'
                if "," in member
                else f"{member},sha256={digest},{len(data)}\n"
            )
    record = edit_record("".join(lines) + f"{info}/RECORD,,\n").encode()
    path = folder / name
    with zipfile.ZipFile(path, "w") as file:
        for number, (member, data) in enumerate({**added, f"{info}/RECORD": record, **members}.items()):
            one = zipfile.ZipInfo(member, (1980 + number, 1 + number % 12, 3, 4, 5, 6 + 2 * number))
            one.external_attr = (0o100644 + number) << 16
            one.compress_type = zipfile.ZIP_STORED if number % 3 == 1 else zipfile.ZIP_DEFLATED
            one.extra = struct.pack("<HHI", 0xCAFE, 4, number)
            one.comment = b"a comment"
            file.writestr(one, data)
        file.comment = b"of the archive"
    return path


def distribution(folder: Path, name: str, version: str, requires: list[str], tag: str = "py3-none-any") -> Path:
    """A wheel of a distribution with one module, and what it requires."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
    module = name.replace("-", "_")
    return make_wheel(
        folder,
        {f"{module}/__init__.py": f"VERSION = '{version}'\n".encode()},
        name=f"{module}-{version}-{tag}.whl",
        info=f"{module}-{version}.dist-info",
        metadata=f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}\n",
    )
