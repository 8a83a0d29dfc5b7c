"""What passes make of files, and digests of files before and after: worked out once, and kept for other runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from deadweight.errors import DigestError, shown
from deadweight.image.content import Content, ContentPiece, known_content, zeros
from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger

_LARGE: Final = 1 << 20
"""Bytes of files that are looked for by their digest, in what was made of other images."""
_ZEROS: Final = 512
"""Bytes of zeros from which on only their number is kept."""


class Digests(NamedTuple):
    """Digests of one content."""

    sha256: bytes
    md5: bytes
    """Empty where it was not asked for."""
    size: int


_Pieces = list[bytes | tuple[int, int] | int]
"""Of a content, as they can be kept: a number is that of zeros."""


class _Kept(NamedTuple):
    """What a pass made of a file, but for its pieces; or the reason why nothing can be made of it."""

    reason: str | None
    size: int = 0
    digest: bytes = b""


class _Whole(NamedTuple):
    """The same with its pieces."""

    kept: _Kept
    pieces: _Pieces


class _Rewrite(NamedTuple):
    """One that follows from a file's content and two names: what came of it is kept, its pieces apart.

    They are asked for only where a layer is made anew, and as what is used least they are the first to be lost.
    """

    ledger: Ledger
    key: Key
    recipe: str
    name: int | str
    """Which of the layer's files, as earlier passes left it."""
    work: Callable[[], Content]

    @property
    def known(self) -> dict[int | str, _Kept]:
        return self.ledger.facts.table(self.recipe, self.key[0], _Kept)

    @property
    def pieces(self) -> dict[int | str, _Pieces]:
        return self.ledger.facts.table(f"{self.recipe}.pieces", self.key[0], _Pieces)

    def keep(self, whole: _Whole) -> Content | str:
        self.known[self.name] = whole.kept
        if whole.kept.reason is None:
            self.pieces[self.name] = whole.pieces
        return self.recall(whole.kept)  # in the same pieces as in another run

    def recall(self, kept: _Kept) -> Content | str:
        if kept.reason is not None:
            return kept.reason
        return known_content(partial(self.find, kept), kept.size, kept.digest)

    def find(self, kept: _Kept) -> Content:
        """The content with its pieces: as they are kept, or worked out again. Raises DigestError for another one."""
        pieces = self.pieces.get(self.name)
        content = None if pieces is None else _thaw(pieces)
        if content is not None and (content.digest, content.size) == (kept.digest, kept.size):
            return content
        whole = _freeze(_try(self.work))
        if whole is None or whole.kept != kept:
            where = f"layer {self.key[0] + 1} is not what its diff-id states, or has changed"
            raise DigestError(f"{where}: {shown(self.ledger.fs.entry(self.key).name)} is not the file that is known")
        self.pieces[self.name] = whole.pieces
        return _thaw(whole.pieces)


def outcome(
    ledger: Ledger,
    key: Key,
    recipe: str | None,
    first: Content | None,
    work: Callable[[], Content],
    *,
    slow: bool,
) -> Content | str:
    """What `work` makes of the file that an entry carries, where passes before it left `first`; or why it cannot.

    It is worked out anew where it does not follow from the content and the name `recipe` alone (None).
    """
    before = b"" if first is None else first.digest
    if recipe is None or before is None:
        return _try(work)
    facts = ledger.facts
    rewrite = _Rewrite(ledger, key, recipe, f"{key[1]} {before.hex()}" if before else key[1], work)
    kept = rewrite.known.get(rewrite.name)
    if kept is not None:
        return rewrite.recall(kept)
    of_file = f"{recipe}{before.hex()}"
    large = slow and ledger.fs.entry(key).stored >= _LARGE
    if large and facts.has_made(of_file):
        known = facts.made(of_file, digests(ledger, key, None).sha256, _Whole)
        if known is not None:
            return rewrite.keep(known)
    made = _try(work)
    whole = _freeze(made)
    if whole is None:
        return made
    if large and whole.kept.reason is None:
        facts.note_made(of_file, digests(ledger, key, None).sha256, whole, key[0])
    return rewrite.keep(whole)


def digests(ledger: Ledger, key: Key, content: Content | None, *, md5: bool = False) -> Digests:
    """The digests of the file that an entry carries, or of its new content."""
    after = b"" if content is None else content.digest

    def work() -> Digests:
        return _hashed(ledger, key, content, md5)

    if after is None:
        memo = ledger.facts.memo
        asked = (key, content, md5)
        if asked not in memo:
            memo[asked] = work()
        found: Digests = memo[asked]
        return found
    return ledger.facts.of("digests", key, Digests, work, _named(after, md5))


def are_known(ledger: Ledger, key: Key, content: Content | None, *, md5: bool) -> bool:
    """Whether `digests` has nothing to work out."""
    after = b"" if content is None else content.digest
    return after is not None and ledger.facts.has("digests", key, Digests, _named(after, md5))


def _named(after: bytes, md5: bool) -> str:
    return f"{'md5' if md5 else ''}{after.hex()}"


def _hashed(ledger: Ledger, key: Key, content: Content | None, md5: bool) -> Digests:
    entry = ledger.fs.entry(key)
    original = ledger.image.layers[key[0]].tar.window(entry.data, entry.stored)
    sha256, size = hashlib.sha256(), 0
    other = hashlib.md5(usedforsecurity=False) if md5 else None
    for chunk in original.chunks() if content is None else content.chunks(original):
        sha256.update(chunk)
        size += len(chunk)
        if other is not None:
            other.update(chunk)
    return Digests(sha256.digest(), other.digest() if other is not None else b"", size)


def _try(work: Callable[[], Content]) -> Content | str:
    try:
        return work()
    except ValueError as error:
        return str(error)


def _freeze(made: Content | str) -> _Whole | None:
    """As it can be kept; None where a piece is neither bytes nor a range."""
    if isinstance(made, str):
        return _Whole(_Kept(made), [])
    pieces: _Pieces = []
    for piece in made.pieces:
        if not isinstance(piece, bytes | tuple):
            return None
        if isinstance(piece, tuple) or len(piece) < _ZEROS or piece.strip(b"\0"):
            pieces.append(piece)
        elif pieces and isinstance(pieces[-1], int):
            pieces[-1] += len(piece)
        else:
            pieces.append(len(piece))
    digest = _thaw(pieces).digest
    assert digest is not None
    return _Whole(_Kept(None, made.size, digest), pieces)


def _thaw(kept: _Pieces) -> Content:
    return Content(tuple(_thawed(kept)))


def _thawed(kept: _Pieces) -> Iterator[ContentPiece]:
    for piece in kept:
        if isinstance(piece, int):
            yield from (part for part in zeros(piece) if part)
        else:
            yield piece
