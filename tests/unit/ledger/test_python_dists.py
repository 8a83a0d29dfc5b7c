"""Distributions, RECORD and interpreters, on made views and on this machine's own environment."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.ledger.python import (
    find_distributions,
    interpreters,
    marker_environment,
    read_record,
    record_hash,
    record_paths,
    rewrite_record,
)
from support.views import Link, view, view_of_tree

SITE = "usr/local/lib/python3.11/site-packages"
SITES_HERE = Path(sysconfig.get_paths()["purelib"])


def dist(
    site: str, name: str, version: str = "1.0", record: str | None = None, **more: str
) -> dict[str, str | bytes | None]:
    info = f"{site}/{name}-{version}.dist-info" if site else f"{name}-{version}.dist-info"
    headers = more.pop("headers", "")
    files: dict[str, str | bytes | None] = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{headers}\nA body.\nName: no\n"
    }
    if record is not None:
        files[f"{info}/RECORD"] = record
    files.update({f"{info}/{key}": value for key, value in more.items()})
    return files


def test_a_distribution_is_read_whole() -> None:
    found = find_distributions(
        view(
            {
                f"{SITE}/Some_Pkg/__init__.py": "",
                f"{SITE}/fast.cpython-311-x86_64-linux-gnu.so": "",
                f"{SITE}/empty": None,
                "usr/local/bin/run": "",
                "srv/data": "",
                **dist(
                    SITE,
                    "Some.Pkg",
                    record="Some_Pkg/__init__.py,,0\r\nfast.cpython-311-x86_64-linux-gnu.so,,\r\n../../../bin/run,,\r\n"
                    "gone.py,,\r\nempty,,\r\n/srv/data,,\r\n../../../../../../etc/passwd,,\r\n",
                    headers="Requires-Dist: b>=1; extra == 'x'\nRequires-Dist: c\nProvides-Extra: X\n"
                    "License: long\n text: here\n",
                    REQUESTED="",
                    INSTALLER="pip\n",
                    **{
                        "entry_points.txt": "[console_scripts]\nrun = a.b:c [x]\n# no\nbroken\n[g]\nk=v\n",
                        "direct_url.json": '{"url": "file:///app", "dir_info": {"editable": true}}',
                        "top_level.txt": "other\nnot-a-name\n",
                    },
                ),
            }
        )
    )
    assert len(found) == 1
    it = found[0]
    assert (it.name, it.display, it.version, it.site) == ("some-pkg", "Some.Pkg", "1.0", SITE)
    assert it.requires == ("b>=1; extra == 'x'", "c")
    assert it.extras == ("x",)
    assert (it.requested, it.installer, it.editable, it.direct_url) == (True, "pip", True, "file:///app")
    own = {f for f in it.files if not f.startswith(it.info)}
    assert own == {
        f"{SITE}/Some_Pkg/__init__.py",
        f"{SITE}/fast.cpython-311-x86_64-linux-gnu.so",
        "usr/local/bin/run",
        "srv/data",
    }
    assert f"{it.info}/METADATA" in it.files
    assert it.top_level == ("Some_Pkg", "fast", "other")
    assert it.entry_points == (("console_scripts", "run", "a.b:c [x]"), ("g", "k", "v"))
    assert len(it.notes) == 1
    assert "leads out of the image" in it.notes[0]


@pytest.mark.parametrize(
    ("site", "env", "installed"),
    [
        (SITE, {}, True),
        ("usr/lib/python3/dist-packages", {}, True),
        ("app/vendor", {}, True),
        ("root/.cache/uv/archive-v0/abc", {}, False),
        ("root/.cache/uv/archive-v0/abc", {"PYTHONPATH": "/x:/root/.cache/uv/archive-v0/abc/"}, True),
        ("root/.cache/uv/archive-v0/abc/lib/python3.12/site-packages", {}, False),
        ("root/.cache/pypoetry/virtualenvs/a/lib/python3.12/site-packages", {}, True),
        ("root/.cache/other", {}, False),
        ("tmp/build", {}, False),
        ("srv/uvcache/z/site-packages", {"UV_CACHE_DIR": "/srv/uvcache"}, False),
        (f"{SITE}/setuptools/_vendor", {}, False),
        ("app/pkg/_vendor", {}, False),
        ("", {}, True),
    ],
)
def test_only_sites_that_are_imported_from_count(site: str, env: dict[str, str], installed: bool) -> None:
    assert [d.site for d in find_distributions(view(dist(site, "a"), env))] == ([site] if installed else [])


def test_conda_package_cache_is_no_site() -> None:
    site = "opt/conda/pkgs/a-1/lib/python3.11/site-packages"
    assert find_distributions(view({"opt/conda/conda-meta/a.json": "{}", **dist(site, "a")})) == []


def test_egg_info_as_directory_and_as_file_and_by_pth() -> None:
    here = "usr/lib/python3/dist-packages"
    found = find_distributions(
        view(
            {
                f"{here}/six-1.16.0.egg-info": "Metadata-Version: 2.1\nName: six\nVersion: 1.16.0\n",
                f"{here}/wheel-0.38.egg-info/PKG-INFO": "Name: wheel\nVersion: 0.38\n",
                f"{here}/wheel-0.38.egg-info/requires.txt": "a\n\n[test]\npytest>=3\n\n[:python_version<'3']\nold\n",
                f"{here}/wheel-0.38.egg-info/installed-files.txt": "../wheel/x.py\nPKG-INFO\n",
                f"{here}/wheel/x.py": "",
                f"{here}/easy.pth": "/app/src\nimport os; boom()\n",
                f"{here}/odd.egg-info": None,
                "app/src/mine.egg-info/PKG-INFO": "Name: mine\nVersion: 2\n",
                "app/other/not_mine.egg-info/PKG-INFO": "Name: not-mine\nVersion: 2\n",
            }
        )
    )
    by_name = {d.name: d for d in found}
    assert set(by_name) == {"six", "wheel", "mine"}
    assert by_name["six"].files == (f"{here}/six-1.16.0.egg-info",)
    assert by_name["wheel"].files[0] == f"{here}/wheel/x.py"
    assert by_name["wheel"].extras == ("test",)
    assert by_name["wheel"].requires == ("a", 'pytest>=3 ; extra == "test"', "old ; (python_version<'3')")
    assert by_name["wheel"].has_record
    assert not by_name["six"].has_record


def test_damaged_metadata_still_names_the_distribution() -> None:
    (found,) = find_distributions(
        view({f"{SITE}/A_b-1.5.dist-info/METADATA": b"\xff\xfe\0", f"{SITE}/A_b-1.5.dist-info/RECORD": b'"\0\xff,,\n"'})
    )
    assert (found.name, found.version) == ("a-b", "1.5")


def test_listed_files_are_found_through_links() -> None:
    (found,) = find_distributions(
        view(
            {
                "opt/v/lib64": Link("lib"),
                "opt/v/lib/x/m.py": "",
                **dist("opt/v/site-packages", "a", record="../lib64/x/m.py,,\n"),
            }
        )
    )
    assert found.files[0] == "opt/v/lib/x/m.py"


def test_this_environment_agrees_with_importlib() -> None:
    """All that importlib.metadata finds in the environment that runs this test, with the same files."""
    view_here = view_of_tree(SITES_HERE.parent, SITES_HERE.name, contents=".dist-info")
    found = {d.name: d for d in find_distributions(view_here)}
    expected = {}
    for known in metadata.distributions(path=[str(SITES_HERE)]):
        name = known.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        files = {str(Path(f)) for f in known.files or () if not str(f).startswith("..")}
        expected[name] = {f"site-packages/{f}" for f in files if (SITES_HERE / f).is_file()}
        assert found[name].version == known.version
        assert list(found[name].requires) == (known.requires or [])
    assert set(found) == set(expected)
    for name, files in expected.items():
        assert files <= set(found[name].files)


def test_records_of_this_environment_survive_untouched() -> None:
    records = list(SITES_HERE.glob("*.dist-info/RECORD"))
    assert records
    for path in records:
        raw = path.read_bytes()
        rows = list(csv.reader(io.StringIO(raw.decode(), newline="")))
        assert rewrite_record(raw, (), {}) == raw
        assert [[line.name, line.hash, line.size] for line in read_record(raw)] == rows
        hashes = record_hash(raw)
        name = next(n for n in hashes if n.endswith((".py", "METADATA")))
        digest = hashlib.sha256((SITES_HERE / name).read_bytes()).digest()
        assert hashes[name][:2] == ("sha256", base64.urlsafe_b64encode(digest).rstrip(b"=").decode())


def test_a_stray_quote_spoils_its_own_line_only() -> None:
    raw = b'a"b.py,,\nc.py,sha256=x,1\n"d,,\n'
    assert [line.name for line in read_record(raw)] == ['a"b.py', "c.py", ""]
    assert rewrite_record(raw, {"c.py"}, {}) == b'a"b.py,,\n"d,,\n'


def test_rewriting_touches_only_what_it_must() -> None:
    raw = b'a.py,sha256=AA,1\r\n"b,"".py",md5=BB,2\nc.py,sha256=CC,3\nd.py,,\nRECORD,,'
    new = {'b,".py': ("NEW", 20), "d.py": ("NEW", 5), "RECORD": ("NEW", 9)}
    assert rewrite_record(raw, {"c.py"}, new) == b'a.py,sha256=AA,1\r\n"b,"".py",sha256=NEW,20\nd.py,,\nRECORD,,'
    assert record_paths(raw, "s/p")['s/p/b,".py'] == 'b,".py'


@given(st.binary(max_size=60) | st.text('a,"\n\r ./=1', max_size=60).map(str.encode))
def test_any_record_survives_untouched(raw: bytes) -> None:
    assert rewrite_record(raw, (), {}) == raw
    assert b"".join(line.raw for line in read_record(raw)) == raw
    record_hash(raw)
    for path in record_paths(raw, "a/b"):
        assert ".." not in path.split("/")


@given(st.lists(st.tuples(st.text('ab,"\n é', min_size=1, max_size=6), st.booleans()), unique_by=lambda r: r[0]))
def test_rewritten_records_say_what_the_csv_module_would_write(rows: list[tuple[str, bool]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows((name, "sha256=x", 1) for name, _ in rows)
    raw = out.getvalue().encode()
    assert [line.name for line in read_record(raw)] == [name for name, _ in rows]
    gone = rewrite_record(raw, {name for name, removed in rows if removed}, {})
    assert [line.name for line in read_record(gone)] == [name for name, removed in rows if not removed]
    changed = rewrite_record(raw, (), {name: ("y", 2) for name, chosen in rows if chosen})
    assert list(csv.reader(io.StringIO(changed.decode(), newline=""))) == [
        [name, "sha256=y" if chosen else "sha256=x", "2" if chosen else "1"] for name, chosen in rows
    ]


def test_interpreters_and_their_markers() -> None:
    fs = view(
        {
            "usr/bin/python3.11": "",
            "usr/lib/python3.11/os.py": "",
            "usr/lib/python3/dist-packages": None,
            "usr/local/lib/python3.11/dist-packages": None,
            "var/lib/dpkg/status": "Package: python3.11-minimal\nStatus: x\nVersion: 3.11.2-6+deb12u6\n",
            "usr/local/bin/python3.12": "",
            "usr/local/lib/python3.12/os.py": "",
            "usr/local/lib/python3.12/site-packages": None,
            "usr/local/include/python3.12/patchlevel.h": '#define PY_VERSION   "3.12.4"\n',
            "root/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/lib/python3.13/os.py": "",
            "opt/venv/pyvenv.cfg": "home = /usr/bin\nversion = 3.11.2\ninclude-system-site-packages = true\n",
            "opt/venv/bin/python3.11": Link("/usr/bin/python3.11"),
            "opt/venv/lib/python3.11/site-packages": None,
            "srv/bin/python3.11-env/pyvenv.cfg": "home = /usr/bin\nversion = 3.11.2\n",
            "srv/bin/python3.11-env/lib/python3.11/site-packages": None,
            "two/lib64/python3.11/os.py": "",
            "two/lib/python3.11/os.py": "",
            "two/lib/python3.13t/os.py": "",
            "two/lib/python3.13/os.py": "",
            "two/lib/python3.13/test/os.py": "",
        },
        arch="arm64",
    )
    both = [i.stdlib for i in interpreters(fs) if i.prefix == "two"]
    assert both == ["two/lib/python3.11", "two/lib/python3.13"]
    found = {i.prefix: i for i in interpreters(fs)}
    assert found["usr"].full_version == "3.11.2"
    assert found["usr"].sites == ("usr/local/lib/python3.11/dist-packages", "usr/lib/python3/dist-packages")
    assert found["usr/local"].full_version == "3.12.4"
    assert found["root/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu"].full_version == "3.13.1"
    venv = found["opt/venv"]
    assert (venv.home, venv.stdlib, venv.full_version) == ("usr/bin", "usr/lib/python3.11", "3.11.2")
    assert found["srv/bin/python3.11-env"].stdlib == "usr/lib/python3.11"
    assert venv.sites == ("opt/venv/lib/python3.11/site-packages", *found["usr"].sites)
    env = marker_environment(fs, "usr/local/lib/python3.12/site-packages")
    assert (env["python_version"], env["python_full_version"], env["platform_machine"]) == ("3.12", "3.12.4", "aarch64")
    assert marker_environment(fs, "usr/lib/python3/dist-packages")["python_full_version"] == "3.11.2"
    assert marker_environment(fs, "app/vendor")["python_version"] == "3.13"
    from packaging.markers import default_environment

    assert set(env) == set(default_environment())
    assert env["sys_platform"] == sys.platform
