"""RECORD files on disk, held against the files they list."""

from __future__ import annotations

import base64
import csv
import hashlib
from pathlib import Path


def records(root: Path) -> tuple[set[str], int]:
    """RECORD lines that do not match their file, and how many lines there are."""
    wrong, lines = set(), 0
    for record in root.rglob("*.dist-info/RECORD"):
        if "/.cache/" in str(record):
            continue
        with record.open(newline="") as file:
            for name, digest, size in csv.reader(file):
                lines += 1
                path = record.parent.parent / name
                data = path.read_bytes() if path.is_file() else None
                found = data and base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                if data is None or (digest and (digest, size) != (f"sha256={found or digest[7:]}", str(len(data)))):
                    wrong.add(f"{record.parent.name}: {name}")
    return wrong, lines
