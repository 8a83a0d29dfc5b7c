"""Files whose bytes something else depends on: by their names, and by what lies beside them."""

from __future__ import annotations

from collections.abc import Callable


def fixed_reason(path: str, exists: Callable[[str], bool]) -> str | None:
    """Why a program or library must stay as it is to the byte; None if its name and neighbours say nothing.

    `exists` is asked about paths in the same directory.
    """
    directory, _, base = path.rpartition("/")
    if base.endswith((".o", ".cubin", ".ko")):
        return "an object file, which its symbols belong to"
    if "/usr/lib/debug/" in f"/{path}":
        return "debug information kept apart from its program"
    if "/lib/modules/" in f"/{path}":
        return "a kernel module"
    if path.endswith("ossl-modules/fips.so"):
        return "a library that checks its own file"
    if _has_checksum(f"{directory}/" if directory else "", base, exists):
        return "a file with its checksum beside it"
    return None


def _has_checksum(beside: str, base: str, exists: Callable[[str], bool]) -> bool:
    """Whether there is `libx.so.1.hmac` or `.libx.so.1.hmac` for libx.so.1.2 (FIPS), or libx.chk for libx.so (NSS)."""
    stem = base
    while stem:
        for name in (f"{stem}.hmac", f".{stem}.hmac", f"{stem}.chk", f"fipscheck/{stem}.hmac", f"hmaccalc/{stem}.hmac"):
            if exists(beside + name):
                return True
        if stem.endswith(".so") or "." not in stem:
            stem = stem.removesuffix(".so") if stem.endswith(".so") else ""
        else:
            stem = stem.rpartition(".")[0]
    return False
