"""deadweight.toml is read, and what is wrong with it is said with its line and key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.errors import BadInputError
from deadweight.verify import spec
from deadweight.verify.spec.names import name_of, named
from deadweight.verify.spec.reading import KINDS, builtin_names, read_spec
from deadweight.verify.spec.toml_lines import key_lines

EVERY_KIND = """\
#:schema docs/deadweight.schema.json
defaults = false

[image]
max_size = "3GB"

[app]
asgi = "service.main:app"
env = { DATABASE_URL = "sqlite://" }

[limits]
memory = "2.5GiB"
timeout = 30

[[probe]]
kind = "import"
modules = ["torch", "transformers"]
time_ratio = 1.5

[[probe]]
name = "vectors"
kind = "run"
script = "embed.py"
arrays = true
tolerance = 1e-6
must = true

[[probe]]
kind = "run"
command = "python --version"
output = ['^Python 3\\.']
setup = [["touch", "/tmp/x"]]

[[probe]]
kind = "http"
method = "POST"
path = "/claims"
json = { text = "x", numbers = [1, 2.5, true] }
ignore = ["id"]

[[probe]]
kind = "start"
port = 8000

[[probe]]
kind = "routes"
app = "service.main:create_app()"
count = 7

[[probe]]
kind = "absent"
commands = ["gcc", "g++", "cc", "make", "ld"]
modules = ["pytest"]

[[probe]]
kind = "libraries"

[[probe]]
kind = "size"
max = "1_000_000"

[[probe]]
kind = "tests"
tests = ["numpy"]

[[probe]]
kind = "file"
path = "/etc/passwd"
permissions = "-rw-r--r--"
executable_by = "any"
contents = ["(?m)^root:"]

[[probe]]
kind = "accuracy"
script = "embed.py"
sentences = ["a", ["b", "c"]]
max_loss = 0.01

[[probe]]
kind = "models"
folders = ["/srv/model"]

[[probe]]
kind = "config"
env = { PATH = "^/usr" }
regex = ["PATH"]
ports = ["8000/tcp"]
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "deadweight.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_specification_with_every_kind(tmp_path: Path) -> None:
    (tmp_path / "embed.py").touch()
    found = read_spec(written(tmp_path, EVERY_KIND))
    assert {type(probe) for probe in found.probe} == set(KINDS.values())
    assert found.folder == str(tmp_path)
    assert not found.defaults
    assert found.limits.timeout == 30
    assert [probe.name for probe in found.probe] == [
        "import torch, transformers",
        "vectors",
        "run python --version",
        "POST /claims",
        "the server starts",
        "routes of service.main:create_app()",
        "no gcc, g++, cc and 3 more",
        "libraries resolve",
        "at most 1_000_000",
        "tests of numpy",
        "/etc/passwd",
        "accuracy of embed.py",
        "models in /srv/model open",
        "configuration",
    ]


WRONG = [
    # What TOML itself does not have.
    ("a = 1\nb = \n", "2: ", "Invalid value (column 5)"),
    ('defaults = true\nx = "a', "2: ", "Unterminated string (at the end)"),
    ("\n\na = 1\na = 2\n", "4: ", "Cannot overwrite a value"),
    (b"# fine\n# \xff\n", "2: ", "not UTF-8"),
    # Keys and kinds.
    ("[[probes]]", "1: probes: ", "did you mean probe?"),
    ("\nfolder = '/'", "2: folder: ", "no such key"),
    ("notes = []", "1: notes: ", "no such key"),
    ("[app]\nhealthh = '/'", "2: app.healthh: ", "did you mean health?"),
    ("[[probe]]\nkind = 'impor'", "2: probe[0].kind: ", "no kind 'impor'; did you mean import?"),
    ("[[probe]]\nkind = 'xyz'", "2: probe[0].kind: ", "there are import, run, http, start, routes, absent"),
    ("\n[[probe]]\nmust = true", "2: probe[0]: ", "kind is missing: one of import, run"),
    ("[[probe]]\nkind = 'http'", "1: probe[0]: ", "path is missing"),
    ("[[probe]]\nkind = 'import'\n\nmodule = ['x']", "4: probe[0].module: ", "did you mean modules?"),
    ('[[probe]]\nkind = "import"\n"a\\u001bb" = 1', "3: probe[0].'a\\x1bb': ", "no such key"),
    # Types.
    (
        "[[probe]]\nkind = 'start'\n[[probe]]\nkind = 'start'\ntimeout = '9'",
        "5: probe[1].timeout: ",
        "a number, got a s",
    ),
    ("defaults = 'no'", "1: defaults: ", "expected true or false, got a string"),
    ("probe = 1", "1: probe: ", "expected a list, got a whole number"),
    ("probe = [\n  {kind = 'start'},\n  {kind = 'start', port = 0},\n]", "3: probe[1].port: ", "whole number >= 1"),
    ("image.max_size = 3", "1: image.max_size: ", "expected a string, got a whole number"),
    ("[[probe]]\nkind = 'run'\ncode = '1'\n[probe.env]\nA = 'b'\nC = 1", "6: probe[0].env.C: ", "expected a string"),
    ("[[probe]]\nkind = 'run'\nsetup = [\n['a'],\n['b',\n 1]]", "6: probe[0].setup[1][1]: ", "expected a string"),
    ("[[probe]]\nkind = 'run'\ncommand = 1", "3: probe[0].command: ", "expected a string or a list"),
    ("[[probe]]\nkind = 'import'\nmodules = ['']", "3: probe[0].modules[0]: ", "not empty"),
    ("[[probe]]\nkind = 'import'\ntime_ratio = 0.5", "3: probe[0].time_ratio: ", "a number >= 1"),
    ("[[probe]]\nkind = 'http'\npath = '/'\ntolerance = inf", "4: probe[0].tolerance: ", "finite"),
    ("limits.timeout = 1979-05-27", "1: limits.timeout: ", "expected a number, got a date"),
    (
        "[[probe]]\nkind='file'\npath='/a'\nexecutable_by='me'",
        "4: probe[0].executable_by: ",
        "any or group or other or",
    ),
    # Sense.
    ("[[probe]]\nkind = 'run'", "1: probe[0]: ", "one of command, script and code"),
    ("[[probe]]\nkind = 'run'\ncommand = 'x'\ncode = 'y'", "4: probe[0].code: ", "not command and code"),
    ("[[probe]]\nkind = 'run'\ncommand = []", "3: probe[0].command: ", "is empty"),
    ("[[probe]]\nkind = 'run'\ncode = 'x'\nteardown = [[]]", "4: probe[0].teardown[0]: ", "is empty"),
    ("[[probe]]\nkind = 'run'\nscript = 'no.py'", "3: probe[0].script: ", "there is no file 'no.py'"),
    ("[[probe]]\nkind = 'run'\nscript = '/etc/passwd'", "3: probe[0].script: ", "not beside the specification"),
    ("[[probe]]\nkind = 'run'\nscript = '../../../etc/passwd'", "3: probe[0].script: ", "not beside the specification"),
    ("[[probe]]\nkind = 'run'\ncode = 'x'\nignore = ['a',\n'(']", "5: probe[0].ignore[1]: ", "missing )"),
    ("[[probe]]\nkind = 'run'\ncode = 'x'\nerror = ['" + "x" * 10_001 + "']", "4: probe[0].error[0]: ", "10,001 char"),
    ("[[probe]]\nkind = 'run'\ncode = 'x'\nstatus = 256", "4: probe[0].status: ", "0 to 255"),
    ('[[probe]]\nkind = "run"\ncommand = ["a\\u0000"]', "3: probe[0].command[0]: ", "NUL"),
    ("[[probe]]\nkind = 'run'\ncode = 'x'\nenv = {'A=B' = 'x'}", "4: probe[0].env.'A=B': ", "no name of a variable"),
    ("[[probe]]\nkind = 'http'\npath = 'health'", "3: probe[0].path: ", "does not begin with /"),
    ("[[probe]]\nkind = 'http'\npath = '/'\njson = {}\nbody = ''", "5: probe[0].body: ", "one of both"),
    ("[[probe]]\nkind = 'http'\npath = '/'\nstatus = 99", "4: probe[0].status: ", "100 to 599"),
    ("[[probe]]\nkind = 'http'\npath = '/'\nmethod = 'A B'", "4: probe[0].method: ", "no method"),
    ("[[probe]]\nkind = 'http'\npath = '/'\nheaders.'a b' = 'x'", "4: probe[0].headers.'a b': ", "no header"),
    ("[[probe]]\nkind = 'absent'", "1: probe[0]: ", "neither commands nor modules"),
    ("[[probe]]\nkind = 'absent'\nmodules = ['a-b']", "3: probe[0].modules[0]: ", "no name of a module"),
    ("[[probe]]\nkind = 'import'\nmodules = ['a', 'a..b']", "3: probe[0].modules[1]: ", "no name of a module"),
    ("[[probe]]\nkind = 'import'\nmodules = []", "3: probe[0].modules: ", "names no module"),
    ("[[probe]]\nkind = 'size'\nmax = 'big'", "3: probe[0].max: ", "is no size"),
    ("[image]\nmax_size = '0'", "2: image.max_size: ", "above 0"),
    ("[limits]\nmemory = '1XB'", "2: limits.memory: ", "is no size"),
    ("[app]\nasgi = 'service.main'", "2: app.asgi: ", "package.module:attribute"),
    ("[[probe]]\nkind = 'routes'\napp = ':app'", "3: probe[0].app: ", "package.module:attribute"),
    ("[[probe]]\nkind = 'start'\npath = 'x'", "3: probe[0].path: ", "does not begin with /"),
    ("[[probe]]\nkind = 'tests'\ntests = ['--help']", "3: probe[0].tests[0]: ", "no name of a distribution"),
    ("[[probe]]\nkind = 'file'\npath = 'etc'", "3: probe[0].path: ", "does not begin with /"),
    ("[[probe]]\nkind = 'file'\npath = '/a'\npermissions = '0644'", "4: probe[0].permissions: ", "ls -l"),
    ("[[probe]]\nkind = 'file'\npath = '/a'\nexists = false\nuid = 0", "5: probe[0].uid: ", "must not be there"),
    ("[[probe]]\nkind = 'config'", "1: probe[0]: ", "asks for nothing"),
    ("[[probe]]\nkind = 'config'\nuser = 'a'\nregex = ['b']", "4: probe[0].regex[0]: ", "no 'b' in env or labels"),
    ("[[probe]]\nkind = 'config'\nregex = ['b']\nlabels.b = '['", "4: probe[0].labels.b: ", "no regular expression"),
    ("[[probe]]\nkind = 'config'\nports = ['http']", "3: probe[0].ports[0]: ", "no port"),
    (
        "[[probe]]\nkind = 'start'\nname = 'a'\n[[probe]]\nkind = 'start'\nname = 'a'",
        "6: probe[1].name: ",
        "probe[0] has the same name",
    ),
]


@pytest.mark.parametrize(("text", "where", "what"), WRONG, ids=[str(text)[:60] for text, _, _ in WRONG])
def test_errors_say_line_and_key(tmp_path: Path, text: str | bytes, where: str, what: str) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    path = written(folder, text)
    with pytest.raises(BadInputError) as caught:
        read_spec(path)
    assert str(caught.value).startswith(f"{path}:{where}"), caught.value
    assert what in str(caught.value)
    assert str(caught.value).isprintable()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="more than 1,000,000 bytes"):
        read_spec(written(tmp_path, "#" * 1_000_001))
    with pytest.raises(BadInputError, match="nested too deep"):
        read_spec(written(tmp_path, "x = " + "[" * 100_000))
    with pytest.raises(BadInputError, match="cannot be read: Is a directory"):
        read_spec(tmp_path)
    with pytest.raises(BadInputError, match=r"'.*none.toml' cannot be read: No such file"):
        read_spec(tmp_path / "none.toml")


def test_a_script_beside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    folder.mkdir()
    (tmp_path / "check.py").touch()
    found = read_spec(written(folder, "[[probe]]\nkind = 'run'\nscript = '../check.py'"))
    assert found.probe[0].name == "run ../check.py"


def test_the_built_in_specification() -> None:
    found = read_spec("builtin:ml-api")
    assert not found.defaults
    assert [(probe.name, type(probe)) for probe in found.probe] == [
        ("image size and build", spec.SizeProbe),
        ("PyTorch imports and reports its CUDA version", spec.RunProbe),
        ("sentence-transformers and transformers import", spec.ImportProbe),
        ("pytest does not import", spec.AbsentProbe),
        ("the application loads with its routes", spec.RoutesProbe),
        ("no gcc", spec.AbsentProbe),
    ]


@pytest.mark.parametrize("name", builtin_names())
def test_every_built_in_specification_reads(name: str) -> None:
    assert read_spec(f"builtin:{name}").probe


@pytest.mark.parametrize("name", ["no", "", "../builtin/ml-api", "ml-api.toml"])
def test_an_unknown_built_in_specification(name: str) -> None:
    with pytest.raises(BadInputError, match=r"there are .*builtin:ml-api"):
        read_spec(f"builtin:{name}")


def test_names_differ(tmp_path: Path) -> None:
    text = "[[probe]]\nkind='http'\npath='/a'\n" * 2 + "[[probe]]\nkind='http'\npath='/a'\nname='GET /a'\n"
    names = [probe.name for probe in read_spec(written(tmp_path, text)).probe]
    assert names == ["GET /a (2)", "GET /a (3)", "GET /a"]


def test_names_are_short_and_printable() -> None:
    name = name_of(spec.RunProbe(code="\x1b[2Jprint()\n" * 99))
    assert name.isprintable()
    assert len(name) <= 60
    probes = named([spec.RunProbe(command=["ls", "-l"]), spec.FileProbe(path="/x", exists=False), spec.SizeProbe()])
    assert [probe.name for probe in probes] == ["run ls -l", "no /x", "image size"]


TEXT = r'''
# [not.a.table]
defaults = false
a.b."c.d" = 1
[image] # one
max_size = "3GB" # x = 1

[[probe]]
kind = "run"
command = ["a", # [
  "b]", """x
y = 1""",
  """q"""", '''
TEXT += "'''\n[[probe]]\n'''\n]\n"
TEXT += r"""
env = { A = "}", "B" = {c = 1, d=[1,
 2]} }
[probe.headers]
'x y' = ["\"", '\', 1979-05-27T07:32:00Z, {}, []]
[[probe]]
kind = "x"
[[probe.deeper]]
[[probe.deeper]]
deepest = 1
"""


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from paths_of(item, (*path, key))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_key_has_its_line(newline: str) -> None:
    lines = key_lines(TEXT.replace("\n", newline))
    assert set(lines) == set(paths_of(tomllib.loads(TEXT)))
    source = TEXT.split("\n")
    marks = {
        ("defaults",): "defaults",
        ("a", "b", "c.d"): 'a.b."c.d"',
        ("image",): "[image]",
        ("probe", 0, "command", 1): '  "b]"',
        ("probe", 0, "command", 3): '  """q"""",',
        ("probe", 0, "env", "B", "d", 1): " 2]",
        ("probe", 0, "headers", "x y"): "'x y'",
        ("probe", 1): "[[probe]]",
        ("probe", 1, "deeper", 1, "deepest"): "deepest",
    }
    for path, mark in marks.items():
        assert source[lines[path] - 1].startswith(mark), (path, lines[path])


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=5)
VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.text("ab'\"\\\n#=[]{},", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + "".join(f"{inline(item)}, # ]\n" for item in value) + "]"
    return quoted(value) if isinstance(value, str) else str(value).lower()


def as_toml(values: dict[str, Any], header: str = "") -> str:
    """Tables and arrays of tables by headers, what is deeper in lists inline."""
    text = "".join(f"{quoted(key)} = {inline(item)}\n" for key, item in values.items() if not by_header(item))
    for key, item in values.items():
        name = f"{header}.{quoted(key)}" if header else quoted(key)
        for table in item if by_header(item) and isinstance(item, list) else [item] if by_header(item) else []:
            text += (f"[[ {name} ]]\n" if isinstance(item, list) else f"[{name}]\n") + as_toml(table, name)
    return text


def by_header(value: Any) -> bool:
    tables = value if isinstance(value, list) and value else [value]
    return all(isinstance(table, dict) for table in tables)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_every_key_of_any_document_has_its_line(values: dict[str, Any]) -> None:
    text = as_toml(values)
    assert tomllib.loads(text) == values
    assert set(key_lines(text)) == set(paths_of(values))
