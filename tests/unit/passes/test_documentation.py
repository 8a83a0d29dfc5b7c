"""documentation: what people read in a shell leaves; licences, and the languages that are asked for, stay."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.passes.base import Options
from deadweight.passes.documentation import PASS
from support.contexts import INTERPRETER, Dpkg, context, paths
from support.images import file, symlink

LEAVE = {
    "usr/share/man/man1/tool.1.gz",
    "usr/share/man/de/man1/tool.1.gz",
    "usr/share/info/tool.info.gz",
    "usr/share/doc/tool/changelog.Debian.gz",
    "usr/share/doc/copying/README",
    "usr/share/man/mann/tool.n",
    "usr/share/man/man3/Tool::Part.3pm.gz",
    "usr/share/info/dir",
    "usr/share/info/tool.info-1.gz",
    "usr/share/lintian/overrides/tool",
    "usr/share/locale/de/LC_MESSAGES/tool.mo",
    "usr/share/locale/de_AT/LC_MESSAGES/tool.mo",
    "usr/share/locale/sr@latin/LC_MESSAGES/tool.mo",
}
STAY = {
    "usr/bin/tool",
    "usr/share/doc/tool/copyright",
    "usr/share/doc/tool/NOTICE.gz",
    "usr/share/doc/tool/LICENSE",
    "usr/share/doc/tool/COPYING.LIB",
    "usr/share/doc/tool/licences/MIT",
    "usr/share/doc/copyright",
    "usr/share/locale/locale.alias",
    "usr/share/man/index.db",
    "usr/share/manners/man1/x",
    "usr/share/locale/de/LC_MESSAGES/tool.txt",
}


def left(*more: Any, env: tuple[str, ...] = (), **options: Any) -> set[str]:
    dpkg = Dpkg()
    dpkg.add("tool", *sorted(LEAVE | STAY))
    run = {"Env": list(env), "WorkingDir": "/app"}
    return set(paths(PASS, context([*dpkg.members(), *more], run=run, options=Options(**options))))


def test_what_leaves_and_what_stays() -> None:
    assert left() == LEAVE
    assert left(env=("LANG=C.UTF-8", "LC_ALL=POSIX")) == LEAVE


@pytest.mark.parametrize(
    ("env", "stays"),
    [
        ("LANG=de_AT.UTF-8", {"de", "de_AT"}),
        ("LC_ALL=de", {"de"}),
        ("LANGUAGE=fr:sr@latin:de_CH", {"de", "sr@latin"}),
        ("LC_MESSAGES=de_DE@euro", {"de"}),
    ],
)
def test_languages_that_are_asked_for(env: str, stays: set[str]) -> None:
    assert LEAVE - left(env=(env,)) == {f"usr/share/locale/{name}/LC_MESSAGES/tool.mo" for name in stays}


def test_translations_stay_where_the_application_translates() -> None:
    assert LEAVE - left(file("app/main.py", b"import gettext\n")) == {p for p in LEAVE if p.endswith(".mo")}
    assert left(file("app/main.py", b"# no gettext here\n")) == LEAVE


@pytest.mark.parametrize("place", ["usr/lib/python3.11", "usr/local/lib/python3.11"])
def test_what_help_shows_of_python(place: str) -> None:
    dpkg = Dpkg()
    names = ("topics.py", "__init__.py", "topics.txt")
    files = [file(f"{place}/pydoc_data/{name}", b"x") for name in names]
    members = [*INTERPRETER, *files] if "local" in place else []
    dpkg.add("libpython3.11-stdlib", *([] if members else files))
    bytecode = [file(f"{place}/pydoc_data/__pycache__/{name}.cpython-311.pyc") for name in ("topics", "__init__")]
    other = file("srv/pydoc_data/topics.py", b"x")
    found = paths(PASS, context([*dpkg.members(), *members, *bytecode, other]))
    assert found == [f"{place}/pydoc_data/__pycache__/topics.cpython-311.pyc", f"{place}/pydoc_data/topics.py"]


def test_links() -> None:
    """A link to another package's directory is where its licence is; one to a file is documentation."""
    dpkg = Dpkg()
    dpkg.add("a", "usr/share/doc/a/copyright", "usr/share/doc/a/news")
    dpkg.add("b", symlink("usr/share/doc/b", "a"), symlink("usr/share/doc/a/link", "news"))
    assert set(paths(PASS, context(dpkg.members()))) == {"usr/share/doc/a/news", "usr/share/doc/a/link"}


def test_of_the_applications_own_nothing_leaves() -> None:
    own = [file("usr/share/doc/app/index.html", b"served"), file("usr/share/locale/de/LC_MESSAGES/app.mo", b"x")]
    dpkg = Dpkg()
    dpkg.add("tool", "usr/bin/tool")
    at = context([*dpkg.members(), *own], run={"WorkingDir": "/usr/share/doc/app"})
    assert paths(PASS, at) == []
    assert paths(PASS, context([file("usr/local/share/man/man1/python3.1", b"x")])) == [
        "usr/local/share/man/man1/python3.1"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "data/share/info/prices.csv",
        "data/share/info/prices.info",
        "srv/share/man/man1/tool.1",
        "usr/local/share/info/tenants.json",
        "usr/local/share/man/man_data/a.txt",
        "opt/share/man/man_data/a.txt",
    ],
)
def test_folders_of_data_that_are_called_like_manuals_stay(path: str) -> None:
    assert paths(PASS, context([*INTERPRETER, file(path, b"1")])) == []


def test_patterns_that_stay() -> None:
    assert left(keep=("/usr/share/man",)) == {path for path in LEAVE if "/man" not in path}
