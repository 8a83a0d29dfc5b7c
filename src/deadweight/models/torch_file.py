"""What tensors a file of torch.save has, without unpickling anything.

Since torch 1.6 such a file is a zip file: `NAME/data.pkl` is a pickle of objects, and `NAME/data/KEY` are the numbers
of its storages, stored as they are. The pickle's opcodes are followed (pickletools) on inert values: what it would call
is noted and never called. What is not known ends it.
"""

from __future__ import annotations

import io
import lzma
import math
import pickletools
import struct
import warnings
import zipfile
import zlib
from typing import Any, Final, NamedTuple

from deadweight.image.content import Reader

_PICKLE_LIMIT: Final = 64 << 20
_DIRECTORY_LIMIT: Final = 64 << 20
_OPCODES: Final = 20_000_000
_END: Final = b"PK\x05\x06"
_END64: Final = b"PK\x06\x06"
_STORAGES: Final = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
_ZIP_ERRORS: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError, OverflowError),
)
"""What the standard library says of damaged archives; RuntimeError of encrypted ones."""
_REBUILD: Final = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER: Final = ("torch._utils", "_rebuild_parameter")


class TorchFileError(ValueError):
    """A file whose tensors cannot be told; the message says why."""


class Stored(NamedTuple):
    """A tensor of such a file, whose numbers lie at `start`, without gaps."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Where its first number lies, in the file; -1 where they do not lie in order."""

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class _Global(NamedTuple):
    module: str
    name: str


class _Call(NamedTuple):
    what: Any
    arguments: Any


class _Persistent(NamedTuple):
    said: Any


_MARK: Final = object()


def read_torch_file(read: Reader, size: int) -> tuple[Stored, ...]:
    """The tensors of a file, by the names that they have in it. Raises TorchFileError."""
    try:
        return _read(read, size)
    except TorchFileError:
        raise
    except _ZIP_ERRORS as error:
        raise TorchFileError(f"it is no sound zip file: {error}") from None


def _read(read: Reader, size: int) -> tuple[Stored, ...]:
    _check_directory(read, size)
    with zipfile.ZipFile(io.BufferedReader(_File(read, size))) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in infos if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise TorchFileError("it has no data.pkl")
        if infos[pickles[0]].file_size > _PICKLE_LIMIT:
            raise TorchFileError("its data.pkl is too large to look into")
        with archive.open(pickles[0]) as file:
            found = _follow(file.read(_PICKLE_LIMIT + 1))
        root = pickles[0].removesuffix("data.pkl")
        little = f"{root}byteorder" not in infos or _begins(archive, f"{root}byteorder") == b"little"
    tensors = []
    for name, value in sorted(_named(found).items()):
        key, dtype, offset, shape, steps = _tensor(name, value)
        info = infos.get(f"{root}data/{key}")
        start = -1
        if info is not None and info.compress_type == zipfile.ZIP_STORED and little and _in_order(shape, steps):
            local = read(info.header_offset, 30)
            if len(local) == 30 and local[:4] == b"PK\x03\x04":
                name_length, more = struct.unpack("<HH", local[26:30])
                start = info.header_offset + 30 + name_length + more + offset
        tensors.append(Stored(name, dtype, shape, start))
    return tuple(tensors)


def _begins(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(6)


class _File(io.RawIOBase):
    """A reader as a file, for zipfile."""

    def __init__(self, read: Reader, size: int) -> None:
        super().__init__()
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = max(0, offset + {0: 0, 1: self._at, 2: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(self._at, min(len(view), max(self._size - self._at, 0)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _check_directory(read: Reader, size: int) -> None:
    """Refuses a zip file whose list of members is too long to be read into memory."""
    tail = read(max(size - 65_557, 0), 65_557)
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        raise TorchFileError("it is no zip file: saved before torch 1.6, or no model")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if length == 0xFFFFFFFF:
        at = tail.rfind(_END64)
        length = int.from_bytes(tail[at + 40 : at + 48], "little") if at >= 0 else _DIRECTORY_LIMIT + 1
    if length > _DIRECTORY_LIMIT:
        raise TorchFileError("it has too many members to look into")


def _in_order(shape: tuple[int, ...], steps: tuple[int, ...]) -> bool:
    wanted = 1
    for extent, step in zip(reversed(shape), reversed(steps), strict=True):
        if extent != 1 and step != wanted:
            return False
        wanted *= extent
    return True


def _named(found: Any) -> dict[str, Any]:
    """The tensors of a state dictionary: the object itself, or what stands in one of its entries."""
    if not isinstance(found, dict):
        raise TorchFileError("it holds no dictionary of tensors")
    for inner in (found, found.get("state_dict"), found.get("model")):
        if isinstance(inner, dict):
            tensors = {name: value for name, value in inner.items() if isinstance(name, str) and _is_tensor(value)}
            if tensors:
                return tensors
    raise TorchFileError("it holds no dictionary of tensors")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, _Call) and value.what in (_REBUILD, _PARAMETER)


def _tensor(name: str, value: Any) -> tuple[str, str, int, tuple[int, ...], tuple[int, ...]]:
    """(key of the storage, dtype, offset in bytes, shape, steps) of what a tensor is rebuilt from."""
    if value.what == _PARAMETER and isinstance(value.arguments, tuple) and value.arguments:
        value = value.arguments[0]
    try:
        storage, offset, shape, steps = value.arguments[:4]
        _, kind, key, _, _ = storage.said
        dtype = _STORAGES[kind.name]
        numbers = (offset, *shape, *steps)
        sound = all(type(number) is int and 0 <= number < 1 << 48 for number in numbers) and len(shape) == len(steps)
        width = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}.get(dtype, 1)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TorchFileError(f"its tensor {name[:80]!a} is of a kind that is not known here") from None
    if not sound or not isinstance(key, str) or len(shape) > 64 or math.prod(shape) >= 1 << 48:
        raise TorchFileError(f"its tensor {name[:80]!a} is none")
    return key, dtype, offset * width, tuple(shape), tuple(steps)


def _follow(pickle: bytes) -> Any:
    """What a pickle builds, with inert values for all that it would call."""
    try:
        with warnings.catch_warnings():  # of escapes in texts that nobody should write
            warnings.simplefilter("ignore")
            return _built(pickle)
    except TorchFileError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise TorchFileError(f"its pickle is broken: {type(error).__name__}") from None


def _built(pickle: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def from_mark() -> list[Any]:
        at = next((i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK), None)
        if at is None:
            raise TorchFileError("its pickle is broken")
        found = stack[at + 1 :]
        del stack[at:]
        return found

    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
        if count > _OPCODES:
            raise TorchFileError("its pickle is too long to look into")
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(argument)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            length = int(name[-1])
            stack[-length:] = [tuple(stack[-length:])]
        elif name == "TUPLE":
            stack.append(tuple(from_mark()))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            stack.append(_Global(module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Global(str(module), str(attribute)))
        elif name == "BINPERSID":
            stack.append(_Persistent(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, what = stack.pop(), stack.pop()
            stack.append({} if what == ("collections", "OrderedDict") else _Call(what, arguments))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set(stack[-1], [key, value])
        elif name == "SETITEMS":
            items = from_mark()
            _set(stack[-1], items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else from_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("BUILD", "POP"):
            stack.pop()
        elif name == "POP_MARK":
            from_mark()
        elif name not in ("PROTO", "FRAME"):
            raise TorchFileError(f"its pickle has {name}")
    raise TorchFileError("its pickle has no end")


_CONSTANTS: Final[dict[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES: Final = frozenset(
    (
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING"),
        *(
            "BINBYTES",
            "SHORT_BINBYTES",
            "BININT",
            "BININT1",
            "BININT2",
            "INT",
            "LONG",
            "LONG1",
            "LONG4",
            "FLOAT",
            "BINFLOAT",
        ),
    )
)


def _set(target: Any, items: list[Any]) -> None:
    if isinstance(target, dict):
        target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str))
