"""Copy this project with the lock of another torch in place of ml.txt: python scripts/with_torch.py 2.13 FOLDER

The locks are in variants/, made by scripts/lock.sh; everything else is the same, so that two images of the two copies
differ in torch and what comes with it, and in nothing else.
"""

import argparse
import shutil
from pathlib import Path

PROJECT = Path(__file__).parents[1]
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "*.db", "build", "dist")


def copy(version: str, to: Path) -> None:
    """Make the copy, in a folder that is not there yet. Raises FileNotFoundError for a version without a lock."""
    lock = PROJECT / f"variants/ml-{version}.txt"
    if not lock.is_file():
        known = ", ".join(sorted(path.stem.removeprefix("ml-") for path in lock.parent.glob("ml-*.txt")))
        raise FileNotFoundError(f"there is no {lock}: the versions with a lock are {known}")
    shutil.copytree(PROJECT, to, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copyfile(lock, to / "requirements/ml.txt")


def main() -> None:
    """Take a version and a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 2.13")
    parser.add_argument("folder", type=Path, help="not there yet")
    given = parser.parse_args()
    try:
        copy(given.version, given.folder)
    except OSError as error:
        parser.exit(1, f"with_torch: {error}\n")


if __name__ == "__main__":
    main()
