"""A base made with mmdebstrap: `debian:SUITE`, `debian:SUITE-slim` without documentation and translations, or
`debian:SUITE-minimal`, also without apt and all else that `deadweight slim --risk observed` takes out: what installs
packages, logs in and boots.

The packages that the service needs are installed in it at once. What varies is left out or set (mmdebstrap itself holds
every time to SOURCE_DATE_EPOCH), so that one state of Debian's archive gives one layer. The archive moves, though, and
a base that was made stays in the cache until it is asked for anew: two machines have the same base where they made it
from the same state, such as a snapshot.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, BinaryIO, Final

from deadweight.build.pack import Packed
from deadweight.build.slimming import slim_base
from deadweight.build.uv import clean, last_lines
from deadweight.cache.layers import Cache, Cached, key_of
from deadweight.errors import EnvironmentFailure, UsageError, shown
from deadweight.image.bytes import CHUNK
from deadweight.image.model import Image, build_image
from deadweight.image.transports.manifests import Platform, parse_platform, this_platform
from deadweight.image.transports.stream import Hasher

FORMAT: Final = 2
PREFIX: Final = "debian:"
PACKAGES: Final = ("ca-certificates", "python3")
WITHOUT_APT: Final = ("libstdc++6",)
"""What apt brings along, and compiled wheels need."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUITE: Final = re.compile(r"[a-z][a-z0-9-]{0,40}")
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{0,100}")
_MIRROR: Final = re.compile(r"(?:https?|file)://[!-~]{1,500}")
_MINIMAL: Final = "-minimal"
# As Debian's own slim images, which keep copyright files.
_SLIM: Final = (
    *("path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*"),
    *("path-exclude=/usr/share/groff/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/lintian/*"),
    *("path-exclude=/usr/share/linda/*", "path-exclude=/usr/share/locale/*"),
)
# As debootstrap does it: what merges /usr by a package instead (usrmerge, in bookworm) needs all of Perl, 50 MB. Where
# the suite has nothing of the kind the hook does nothing.
_MERGED: Final = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
# This machine's name and resolver, which mmdebstrap lends the new system; engines mount their own over them.
# And what debconf keeps of the last state but one.
_HOOK: Final = 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1"/var/cache/debconf/*-old'


def debian_image(
    reference: str,
    packages: Sequence[str],
    cache: Cache,
    work: Path,
    epoch: int,
    resources: ExitStack,
    *,
    platform: str | None = None,
    mirror: str | None = None,
    refresh: bool = False,
) -> tuple[str, Cached, Image]:
    """The key, the layer and the image of a base as `debian:bookworm`: from the cache, or made now.

    Raises UsageError for what is no suite, EnvironmentFailure where mmdebstrap is missing or fails.
    """
    suite = reference.removeprefix(PREFIX)
    if not _SUITE.fullmatch(suite):
        raise UsageError(f"{shown(reference)} names no suite of Debian: write debian:bookworm, say")
    if mirror is not None and not _MIRROR.fullmatch(mirror):
        raise UsageError(f"{shown(mirror)} is no mirror: write a URL, as http://mirror.example/debian")
    for name in packages:
        if not _PACKAGE.fullmatch(name):
            raise UsageError(f"{shown(name)} is no Debian package: names are small letters, digits, + . and -")
    here = this_platform()
    wanted = here if platform is None else parse_platform(platform)
    if not here.fits(wanted):
        raise UsageError(
            f"a base for {wanted} cannot be made on {here}, since packages run when they are installed: name an image "
            "as --base"
        )
    minimal = suite.endswith(_MINIMAL)
    names = sorted({*PACKAGES, *packages, *(WITHOUT_APT if minimal else ())})
    key = key_of(
        layer="debian", format=FORMAT, suite=suite, packages=names, mirror=mirror, platform=str(here), epoch=epoch
    )
    cached = None if refresh else cache.layer(key, resources)
    if cached is None:
        cached = cache.make(key, lambda file: _make(suite, names, mirror, work, epoch, file), resources)
    image = _image(reference, suite, names, here, cached)
    if minimal:
        key, cached = slim_base(image, names, key, cache, resources)
        image = _image(reference, suite, names, here, cached)
    return key, cached, image


def _image(reference: str, suite: str, names: Sequence[str], here: Platform, cached: Cached) -> Image:
    config = {
        "architecture": here.architecture,
        **({"variant": here.variant} if here.variant else {}),
        "os": here.os,
        "config": {"Env": [f"PATH={PATH}"]},
        "rootfs": {"type": "layers", "diff_ids": [cached.record.diff_id]},
        "history": [{"created_by": f"mmdebstrap {suite}: {' '.join(names)}"}],
    }
    data = json.dumps(config, separators=(",", ":")).encode()
    return build_image(reference, data, [(cached.blob, cached.record.diff_id)], ExitStack())


def _make(suite: str, names: Sequence[str], mirror: str | None, work: Path, epoch: int, file: BinaryIO) -> Packed:
    """Makes the base, its tar streamed into `file`."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise EnvironmentFailure(
            "mmdebstrap, which makes a base of Debian's packages, is not on this machine: apt-get install mmdebstrap, "
            "or name an image as --base"
        )
    mode = "root" if os.geteuid() == 0 else "unshare"
    words = [
        program,
        f"--mode={mode}",
        f"--variant={'essential' if suite.endswith(_MINIMAL) else 'apt'}",
        f"--include={','.join(names)}",
        "--format=tar",
    ]
    words += ["--skip=output/dev", f"--customize-hook={_HOOK}"]
    if _MERGED.is_dir():
        words.append(f"--hook-dir={_MERGED}")
    release = suite.removesuffix("-slim").removesuffix(_MINIMAL)
    if release != suite:
        words += [f"--dpkgopt={option}" for option in _SLIM]
    if mirror is not None and "snapshot." in mirror:
        words.append('--aptopt=Acquire::Check-Valid-Until "false"')  # a snapshot's lists are as old as it is
    words += [release, "-", *([mirror] if mirror is not None else [])]
    place = work / "debian"
    place.mkdir()
    if mode == "unshare":  # root in its user namespace is another user out here
        for folder in (place, work, work.parent):
            folder.chmod(folder.stat().st_mode | 0o011)
        place.chmod(0o777)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(place), "LC_ALL": "C.UTF-8"}
    log = work / "debian.log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment, umask=0o022
        ) as running,
    ):
        assert running.stdout is not None
        try:
            packed = _copy(running.stdout, file)
            code = running.wait()
        except BaseException:
            running.terminate()  # it removes what it has made
            raise
    if code:
        why = last_lines(clean(log.read_bytes()), 8)
        raise EnvironmentFailure(f"mmdebstrap cannot make {PREFIX}{suite}: {why}")
    return packed


def _copy(source: IO[bytes], file: BinaryIO) -> Packed:
    size = 0
    with Hasher() as hasher:
        while chunk := source.read(CHUNK):
            file.write(chunk)
            hasher.update(chunk)
            size += len(chunk)
        return Packed(hasher.digest(), size)
