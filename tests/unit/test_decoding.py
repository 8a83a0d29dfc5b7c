"""Values by their types, from several threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from deadweight.decoding import from_json, from_msgpack, from_values

FIRST_LOOKS = """
import sys, threading, msgspec
from deadweight import decoding

SOURCE = '''
class A0(msgspec.Struct):
    a: "int"
''' + "".join(f'''
class A{n}(msgspec.Struct):
    a: "A{n - 1}"
    b: "dict[str, list[int]] | None" = None
''' for n in range(1, 8))

value = 1
for _ in range(8):
    value = {"a": value}
asked = [
    (decoding.from_json, msgspec.json.encode(value)),
    (decoding.from_msgpack, msgspec.msgpack.encode(value)),
    (decoding.from_values, value),
] * 2
sys.setswitchinterval(1e-6)
for _ in range(200):
    exec(SOURCE)
    kind, right = A7, []
    all_there = threading.Barrier(len(asked))

    def decode(one, data):
        all_there.wait()
        right.append(one(data, kind).a.a.a.a.a.a.a.a == 1)

    threads = [threading.Thread(target=decode, args=ask) for ask in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * len(asked), right
"""


def test_threads_may_ask_for_a_type_that_nobody_has_asked_for() -> None:
    """msgspec alone ends in a segmentation fault here."""
    done = subprocess.run([sys.executable, "-c", FIRST_LOOKS], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class Point(msgspec.Struct, frozen=True):
    x: int


def test_what_is_of_another_type_is_told() -> None:
    decode: Callable[[], Point]
    assert from_json('{"x": 1}', Point) == from_msgpack(b"\x81\xa1x\x01", Point) == from_values({"x": 1}, Point)
    for decode in (
        lambda: from_json('{"x": "1"}', Point),
        lambda: from_msgpack(b"\x81\xa1x\xa11", Point),
        lambda: from_values({"x": "1"}, Point),
    ):
        with pytest.raises(msgspec.ValidationError, match=r"`\$\.x`"):
            decode()
