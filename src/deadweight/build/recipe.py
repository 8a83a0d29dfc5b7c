"""How a project becomes an image: what `deadweight dockerfile` prints, and `deadweight build` carries out.

Both lay the image out alike: the base, dependencies in a virtual environment of their own at `VENV`, and last, so that
a change of code changes one small layer, the application in `APP`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VENV = "/opt/venv"
"""Where dependencies are: a virtual environment of the base's Python."""
APP = "/app"
"""The working directory, which the user owns."""
APP_LIB = "/app/lib"
"""Where a project that can be installed is (`pip install --no-deps --target`), in PYTHONPATH; its scripts in `bin`."""
USER = "app"
UID = 10001
"""Of the user and its group: high enough for no base to have it."""


@dataclass(frozen=True)
class Lock:
    """A file that names every distribution and its version."""

    kind: Literal["uv", "pylock", "requirements"]
    """uv.lock; PEP 751's pylock.toml; or what `uv pip compile` and pip-tools write."""
    path: str
    """Below the project."""
    hashes: bool
    """Whether it states the hash of every file."""


@dataclass(frozen=True)
class Recipe:
    """What a project's image is made of."""

    folder: Path
    """The project."""
    name: str
    """As pyproject.toml says it, normalised; the folder's name where it says none."""
    installable: bool
    """Whether it has a build system: then it is installed into `APP_LIB`; else its files are copied to `APP`."""
    requires_python: str
    """A version specifier; empty where none is stated."""
    extras: tuple[str, ...]
    """Those of the whole image: all but what developers need, unless said otherwise."""
    dev_extras: tuple[str, ...]
    """Those that INCLUDE_DEV adds."""
    core_lock: Lock | None
    """For the image without extras; None where there is no lock: versions are then resolved anew each time."""
    lock: Lock | None
    """For the whole image. The same uv.lock serves both."""
    dev_lock: Lock | None
    packages: tuple[str, ...]
    """Debian packages that the running service needs: of shared libraries, clients, curl for the health check."""
    build_packages: tuple[str, ...]
    """Debian packages that only installing needs: compilers and headers."""
    command: tuple[str, ...]
    """What the container runs; empty where no application was found."""
    port: int | None
    health: str
    """The path of the health check; empty where there is none."""
    copied: tuple[str, ...]
    """Files and folders of the project that it reads when it runs, beside its package, or all of it where it is not
    installable."""
    notes: tuple[str, ...]
    """What was assumed, and what could not be found."""


def read_recipe(folder: Path, *, extras: tuple[str, ...] | None = None) -> Recipe:
    """The recipe of a project directory; nothing of it is run. `extras` None: all but those for development.

    Raises BadInputError where there is no project, or an extra that it does not have.
    """
    raise NotImplementedError
