"""Programs and libraries that must stay as they are to the byte: others hold them against a checksum, or link them."""

from __future__ import annotations

import posixpath

from deadweight.ledger.ledger import Ledger


def reason_to_stay(ledger: Ledger, path: str) -> str | None:
    """Why a file must stay as it is, by its name and its neighbours'."""
    directory, _, base = path.rpartition("/")
    if base.endswith((".o", ".cubin", ".ko")):
        return "an object file, which its symbols belong to"
    if path.startswith("usr/lib/debug/"):
        return "debug information kept apart from its program"
    if "/lib/modules/" in f"/{path}":
        return "a kernel module"
    if path.endswith("ossl-modules/fips.so"):
        return "a library that checks its own file"
    if _has_checksum(ledger, directory, base):
        return "a file with its checksum beside it"
    return None


def _has_checksum(ledger: Ledger, directory: str, base: str) -> bool:
    """Whether there is `libx.so.1.hmac` or `.libx.so.1.hmac` for libx.so.1.2 (FIPS), or libx.chk for libx.so (NSS)."""
    nodes = ledger.fs.nodes
    stem = base
    while stem:
        for name in (f"{stem}.hmac", f".{stem}.hmac", f"{stem}.chk", f"fipscheck/{stem}.hmac", f"hmaccalc/{stem}.hmac"):
            if posixpath.join(directory, name) in nodes:
                return True
        if stem.endswith(".so") or "." not in stem:
            stem = stem.removesuffix(".so") if stem.endswith(".so") else ""
        else:
            stem = stem.rpartition(".")[0]
    return False
