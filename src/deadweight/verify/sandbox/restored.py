"""Files of the original that a run finds in place again, laid over the image's own."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def like_the_image(restored: Path, root: Path) -> None:
    """Gives the directories that both trees have the owner, mode and time of those in `root`, as an overlay shows the
    upper one's. Devices do not stay: an overlay would open them.
    """
    for folder, _, names in os.walk(restored, topdown=False):
        below = root / os.path.relpath(folder, restored)
        for name in names:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
                os.unlink(os.path.join(folder, name))  # noqa: PTH108, PTH118
        if below.is_dir() and not below.is_symlink():
            status = below.stat()
            if os.geteuid() == 0:
                os.chown(folder, status.st_uid, status.st_gid)
            shutil.copystat(below, folder)


def write_tar(restored: Path, file: IO[bytes], is_dir: Callable[[str], bool]) -> None:
    """A tar of what is in `restored`, without the directories that the image has (`is_dir` of a relative path)."""

    def wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if info.isdev() and not info.isfifo() else info

    with tarfile.open(fileobj=file, mode="w") as tar:
        for folder, folders, names in os.walk(restored):
            for name in sorted(folders + names):
                path = Path(folder) / name
                relative = str(path.relative_to(restored))
                if path.is_symlink() or not path.is_dir() or not is_dir(relative):
                    tar.add(path, relative, recursive=False, filter=wanted)
