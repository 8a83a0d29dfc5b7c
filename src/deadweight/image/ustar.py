"""Headers put together by hand, where names are ASCII and numbers small (POSIX.1-2001 ustar and pax).

tarfile takes 60 microseconds and more for each, and a plan can have twenty thousand. What does not fit is left to
tarfile, and what fits gives the same bytes there.
"""

from __future__ import annotations

from typing import Final

BLOCK: Final = 512
_NAME: Final = 100
_DIGITS: Final = {8: 8**7, 12: 8**11}
_REST: Final = bytes(8 + 8 + 155 + 12)  # no device's numbers, no prefix
_USTAR: Final = b"ustar\x0000"
_CONSTANT: Final = sum(_USTAR) + 8 * 32
"""What all headers have in their checksum: the magic number, and blanks in place of the checksum itself."""
_NAMES: Final = frozenset({b"path", b"linkpath"})


def headers(
    owners: tuple[bytes, bytes],
    name: str,
    linkname: str | None,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: float,
) -> bytes | None:
    """The headers of a file, or of a hard link to `linkname`; `owners` are the names of the user and the group.

    None where more than names would not fit into one block.
    """
    if not isinstance(mtime, int) or not name.isascii() or not (linkname or "").isascii():
        return None
    small, large = _DIGITS[8], _DIGITS[12]
    if not (0 <= uid < small and 0 <= gid < small and 0 <= size < large and 0 <= mtime < large):
        return None
    user, group = owners
    numbers = (mode & 0o7777, uid, gid, size, mtime)
    path, link = name.encode(), (linkname or "").encode()
    block = _block(path, numbers, b"0" if linkname is None else b"1", link, user, group)
    long = [(key, value) for key, value in ((b"path", path), (b"linkpath", link)) if len(value) > _NAME]
    if not long:
        return block
    records = b"".join(_record(key, value) for key, value in long)
    first = _block(b"././@PaxHeader", (0, 0, 0, len(records), 0), b"x", b"", b"", b"")
    return first + records + bytes(-len(records) % BLOCK) + block


def owners_of(raw: bytes) -> tuple[bytes, bytes] | None:
    """The names of the user and the group in the headers `raw`; None where these say more than `headers` writes."""
    if not _plain(raw):
        return None
    last = raw[-BLOCK:]
    user, group = last[265:297].partition(b"\0")[0], last[297:329].partition(b"\0")[0]
    return (user, group) if user.isascii() and group.isascii() else None


def _plain(raw: bytes) -> bool:
    """Whether headers are one block, with at most an extended header before it that has nothing but names."""
    if len(raw) == BLOCK:
        return True
    if raw[156:157] != b"x" or not raw[124:135].isdigit():
        return False
    size = int(raw[124:135], 8)
    if len(raw) != 2 * BLOCK + size + -size % BLOCK:
        return False
    at, end = BLOCK, BLOCK + size
    while at < end:
        length, _, rest = raw[at:end].partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= end - at or rest.partition(b"=")[0] not in _NAMES:
            return False
        at += int(length)
    return True


def _block(
    name: bytes, numbers: tuple[int, int, int, int, int], kind: bytes, link: bytes, user: bytes, group: bytes
) -> bytes:
    said = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    total = sum(name[:_NAME]) + sum(said) + sum(link[:_NAME]) + sum(user) + sum(group) + kind[0] + _CONSTANT
    return b"%b%b%06o\0 %b%b%b%b%b%b" % (
        name[:_NAME].ljust(_NAME, b"\0"),
        said,
        total,
        kind,
        link[:_NAME].ljust(_NAME, b"\0"),
        _USTAR,
        user.ljust(32, b"\0"),
        group.ljust(32, b"\0"),
        _REST,
    )


def _record(key: bytes, value: bytes) -> bytes:
    """A record of an extended header, which begins with its own length."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)
