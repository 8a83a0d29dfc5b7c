"""For which machine an image's wheels have to be: its architecture, its C library, and the Python of a site."""

from __future__ import annotations

import re
from typing import Final

from deadweight.image.filesystem import Filesystem

MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""OCI's architectures as `uname -m` says them, as far as wheels are made for them."""
_GLIBC: Final = re.compile(rb"GNU C Library [^\n]{0,100}release version (\d{1,3})\.(\d{1,3})")
_LIBC_LIMIT: Final = 64 << 20


def glibc(fs: Filesystem, machine: str) -> tuple[int, int]:
    """The version of the image's C library, by what it says of itself; (0, 0) where there is none of GNU."""
    for folder in (f"lib/{machine}-linux-gnu", f"usr/lib/{machine}-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"):
        node = fs.resolve(f"{folder}/libc.so.6")
        if node is None or node.kind != "file" or node.size > _LIBC_LIMIT:
            continue
        match = _GLIBC.search(fs.reader(node)(0, node.size))
        if match:
            return int(match[1]), int(match[2])
    return 0, 0
