"""A wheel's own metadata: its names, its version, and the label that says for which GPUs it was made.

Formats: the binary distribution format (wheels), core metadata, and version specifiers (local version labels), all of
https://packaging.python.org/en/latest/specifications/.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.ledger.record import read_record

NO_GPU: Final = "nogpu"
SIGNATURES: Final = ("RECORD.jws", "RECORD.p7s")
"""Signatures of RECORD, which a changed wheel has no use for."""
_LABEL: Final = re.compile(rf"sm\d{{2,3}}|{NO_GPU}", re.ASCII)


class WheelName(NamedTuple):
    """What a wheel is called: outside, inside, and the version both are of."""

    file: str
    """The file's name."""
    info: str
    """The metadata directory: torch-2.9.0.dist-info."""
    version: Version

    @property
    def data(self) -> str:
        """The directory of what goes elsewhere than into site-packages."""
        return self.info.removesuffix(".dist-info") + ".data"

    def with_version(self, version: Version) -> WheelName:
        """The same for another version."""
        name, _, rest = self.file.split("-", 2)
        inside = self.info.removesuffix(".dist-info").rpartition("-")[0]
        return WheelName(f"{name}-{version}-{rest}", f"{inside}-{version}.dist-info", version)


def wheel_name(file: str, members: Sequence[str]) -> WheelName:
    """What a wheel is called. BadInputError where its names are none of a wheel's, or contradict each other."""
    file = unquote(file)  # as some downloaders leave the + of a local version
    try:
        name, version, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename as error:
        raise BadInputError(f"{shown(file)} is no name of a wheel: {error}") from None
    infos = sorted({top for top in (member.partition("/")[0] for member in members) if top.endswith(".dist-info")})
    if len(infos) != 1:
        raise BadInputError(f"{shown(file)} has {len(infos)} .dist-info directories; a wheel has one")
    inside, _, inside_version = infos[0].removesuffix(".dist-info").rpartition("-")
    if canonicalize_name(inside) != name or _version(inside_version) != version:
        raise BadInputError(f"{shown(file)} holds {shown(infos[0])}, which is of something else")
    return WheelName(file, infos[0], version)


def _version(text: str) -> Version | None:
    try:
        return Version(text.replace("_", "-"))
    except InvalidVersion:
        return None


def labelled(version: Version, gpus: Sequence[int]) -> Version:
    """The version with a local label for the GPUs: 2.9.0 becomes 2.9.0+sm90, 2.9.0+cu128 becomes 2.9.0+cu128.sm90.

    Several GPUs are +sm80.sm90, machines without one +nogpu. A label of an earlier run is replaced; UsageError where it
    says that code for the GPUs is no longer there.
    """
    parts = version.local.split(".") if version.local else []
    kept = list(parts)
    while kept and _LABEL.fullmatch(kept[-1]):
        kept.pop()
    earlier = parts[len(kept) :]
    labels = [f"sm{gpu}" for gpu in gpus] or [NO_GPU]
    if earlier and gpus and not set(labels) <= set(earlier):
        if earlier == [NO_GPU]:
            raise UsageError(f"the version {version} says that the wheel's GPU code is gone: take the original wheel")
        raise UsageError(
            f"the version {version} says that GPU code for {', '.join(earlier)} alone is left in the wheel: name GPUs "
            "among these, or take the original wheel"
        )
    return Version(f"{version.public}+{'.'.join(kept + labels)}")


def with_version(metadata: bytes, old: Version, new: Version) -> bytes:
    """A METADATA file with another version; everything else stays. BadInputError where it is not of version `old`."""
    head = metadata.partition(b"\n\n")[0].partition(b"\r\n\r\n")[0]
    lines = list(re.finditer(rb"(?im)^Version:[ \t]*(.*?)[ \t\r]*$", head))
    if len(lines) != 1 or _version(lines[0][1].decode("utf-8", "replace")) != old:
        raise BadInputError("the wheel's METADATA is of another version than its name")
    start, end = lines[0].span(1)
    return metadata[:start] + str(new).encode() + metadata[end:]


def renamed(member: str, old: WheelName, new: WheelName) -> str:
    """A member's name once the wheel has another version."""
    for before, after in ((old.info, new.info), (old.data, new.data)):
        if member.startswith(f"{before}/"):
            return after + member[len(before) :]
    return member


def rename_in_record(record: bytes, old: WheelName, new: WheelName) -> bytes:
    """A RECORD with the names of another version; the bytes of all else stay, and how names are quoted."""
    lines = []
    for line in read_record(record):
        raw, name = line.raw, renamed(line.name, old, new)
        if name != line.name:
            quote = raw.startswith(b'"')
            # The directory's name is letters, digits and [-._+!]: it is the same bytes however the rest is quoted.
            first, second = (text.partition("/")[0].encode() for text in (line.name, name))
            raw = raw[:quote] + second + raw[quote + len(first) :]
        lines.append(raw)
    return b"".join(lines)
