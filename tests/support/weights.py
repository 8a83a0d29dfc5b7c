"""Small models, made by code: safetensors files, and folders of transformers around them, as image members."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from support.contexts import SITE, distribution
from support.images import Member, directory, file

Named = Mapping[str, tuple[str, Sequence[int], bytes]]
"""dtype, shape and bytes, by name."""


def floats(*numbers: float) -> bytes:
    """float32, little-endian."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


def safetensors(tensors: Named, metadata: Mapping[str, str] | None = None, pad: int = 0) -> bytes:
    """A file of these tensors, in this order."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    raw = json.dumps(header).encode() + b" " * pad
    return len(raw).to_bytes(8, "little") + raw + b"".join(data for _, _, data in tensors.values())


def weights(scale: float = 1.0, rows: int = 4) -> bytes:
    """A model's weights: two matrices, a vector, and a tensor of integers."""
    row = [scale * (i % 17 - 8) / 7 for i in range(64)]
    return safetensors(
        {
            "embeddings.word.weight": ("F32", (8, 8), floats(*row)),
            "embeddings.ids": ("I64", (3,), struct.pack("<3q", 1, 2, 3)),
            "encoder.layer.0.dense.weight": ("F32", (rows, 16), floats(*reversed(row)) * (rows // 4)),
            "encoder.layer.0.dense.bias": ("F32", (rows,), floats(0.1, 0.2, 0.3, 1e-9) * (rows // 4)),
        },
        {"format": "pt"},
    )


def transformers(version: str = "5.24.0", *more: str, torchao: str = "") -> list[Member]:
    """What an image has that loads models: distributions by name."""
    named = {"transformers": version, "safetensors": "0.8.0", **dict.fromkeys(more, "1")}
    if torchao:
        named["torchao"] = torchao
    members = []
    for name, each in named.items():
        for member in distribution(name, f"{name.replace('-', '_')}/__init__.py"):
            data = member.data.replace(b"\nVersion: 1\n", f"\nVersion: {each}\n".encode())
            members.append(Member(member.name, data=data))
    return members


def model(folder: str, *more: Member, config: Mapping[str, Any] | None = None, **files: bytes) -> list[Member]:
    """A folder of transformers: its configuration, model.safetensors, and what else is said."""
    settings = {"model_type": "bert", "hidden_size": 8} if config is None else config
    return [
        directory(folder),
        file(f"{folder}/config.json", json.dumps(settings, indent=2).encode() + b"\n"),
        file(f"{folder}/model.safetensors", files.pop("safetensors", weights())),
        *more,
    ]


__all__ = ["SITE", "floats", "model", "safetensors", "transformers", "weights"]
