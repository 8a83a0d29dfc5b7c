"""container-structure-test's files become probes that ask the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deadweight.errors import BadInputError
from deadweight.verify.spec import ConfigProbe, FileProbe, RunProbe
from deadweight.verify.spec.container_structure import read_cst
from deadweight.verify.spec.go_regex import python_regex
from deadweight.verify.spec.variables import expanded

# The examples of its README, put together.
DOCUMENTED = r"""
schemaVersion: 2.0.0
globalEnvVars:
  - key: "VIRTUAL_ENV"
    value: "/env"
  - key: "PATH"
    value: "/env/bin:$PATH"
commandTests:
  - name: "gunicorn flask"
    setup: [["virtualenv", "/env"], ["pip", "install", "gunicorn", "flask"]]
    command: "which"
    args: ["gunicorn"]
    expectedOutput: ["/env/bin/gunicorn"]
  - name:  "apt-get upgrade"
    command: "apt-get"
    args: ["-qqs", "upgrade"]
    excludedOutput: [".*Inst.*Security.* | .*Security.*Inst.*"]
    excludedError: [".*Inst.*Security.* | .*Security.*Inst.*"]
  - name: "say hello world"
    command: "bash"
    args:
      - -c
      - |
         echo hello &&
         echo world
fileExistenceTests:
- name: 'Root'
  path: '/'
  shouldExist: true
  permissions: '-rw-r--r--'
  uid: 1000
  gid: 1000
  isExecutableBy: 'group'
fileContentTests:
- name: 'Debian Sources'
  path: '/etc/apt/sources.list'
  expectedContents: ['.*httpredir\.debian\.org.*']
  excludedContents: ['.*gce_debian_mirror.*']
metadataTest:
  envVars:
    - key: foo
      value: baz
  labels:
    - key: 'com.example.vendor'
      value: 'ACME Incorporated'
    - key: 'build-date'
      value: '^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}$'
      isRegex: true
  exposedPorts: ["8080", "2345"]
  volumes: ["/test"]
  entrypoint: []
  cmd: ["/bin/bash"]
  workdir: "/app"
  user: "luke"
licenseTests:
- debian: true
  files: ["/foo/bar", "/baz/bat"]
containerRunOptions:
  user: "root"
"""
ENVIRONMENT = {"VIRTUAL_ENV": "/env", "PATH": "/env/bin:$PATH"}
HEAD = "schemaVersion: 2.0.0\n"


def written(folder: Path, text: str, name: str = "tests.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_documented_example(tmp_path: Path) -> None:
    path = written(tmp_path, DOCUMENTED)
    found = read_cst(path)
    assert not found.defaults
    security = [".*Inst.*Security.* | .*Security.*Inst.*"]
    assert found.probe == [
        RunProbe(
            name="gunicorn flask",
            must=True,
            command=["which", "gunicorn"],
            status=0,
            output=["/env/bin/gunicorn"],
            env=ENVIRONMENT,
            setup=[["virtualenv", "/env"], ["pip", "install", "gunicorn", "flask"]],
            expand=True,
        ),
        RunProbe(
            name="apt-get upgrade",
            must=True,
            command=["apt-get", "-qqs", "upgrade"],
            status=0,
            no_output=security,
            no_error=security,
            env=ENVIRONMENT,
            expand=True,
        ),
        RunProbe(
            name="say hello world",
            must=True,
            command=["bash", "-c", "echo hello &&\necho world\n"],
            status=0,
            env=ENVIRONMENT,
            expand=True,
        ),
        FileProbe(
            name="Root",
            must=True,
            path="/",
            follow=False,
            expand=True,
            permissions="-rw-r--r--",
            uid=1000,
            gid=1000,
            executable_by="group",
        ),
        FileProbe(
            name="Debian Sources",
            must=True,
            path="/etc/apt/sources.list",
            contents=[r".*httpredir\.debian\.org.*"],
            no_contents=[".*gce_debian_mirror.*"],
        ),
        ConfigProbe(
            name="Metadata Test",
            must=True,
            env={"foo": "baz"},
            labels={
                "com.example.vendor": "ACME Incorporated",
                "build-date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}\Z",
            },
            regex=["build-date"],
            ports=["8080", "2345"],
            volumes=["/test"],
            entrypoint=[],
            cmd=["/bin/bash"],
            workdir="/app",
            user="luke",
        ),
    ]
    assert found.notes == [
        f"{path}: licenseTests: passed over, licenses are not judged here",
        f"{path}: containerRunOptions: passed over, the sandbox has none of them",
    ]


def test_a_test_of_content_asks_for_a_file(tmp_path: Path) -> None:
    probe = read_cst(written(tmp_path, HEAD + "fileContentTests: [{name: a, path: /a}]")).probe[0]
    assert isinstance(probe, FileProbe)
    assert probe.contents == [""]


def test_json_says_the_same(tmp_path: Path) -> None:
    tests = [{"name": "a", "path": "etc/x\u00e9", "shouldExist": False, "uid": 3}]
    data = {"schemaVersion": "2.0.0", "fileExistenceTests": tests, "commandTests": None}
    path = written(tmp_path, json.dumps(data, indent="\t"), "tests.json")
    assert read_cst(path).probe == [
        FileProbe(name="a", must=True, path="/etc/x\u00e9", exists=False, follow=False, expand=True)
    ]


def test_text_stays_as_it_is_written(tmp_path: Path) -> None:
    text = "metadataTest: {envVars: [{key: A, value: 1.10}, {key: B, value: yes}, {key: C}], exposedPorts: [8080]}"
    probe = read_cst(written(tmp_path, HEAD + text)).probe[0]
    assert isinstance(probe, ConfigProbe)
    assert (probe.env, probe.ports) == ({"A": "1.10", "B": "yes", "C": ""}, ["8080"])


def test_values_by_regular_expression_and_exactly(tmp_path: Path) -> None:
    pairs = "[{key: A, value: ^a$, isRegex: true}, {key: B, value: b.c}, {key: A, value: b, isRegex: true}]"
    text = f"metadataTest: {{envVars: {pairs}, labels: [{{key: A, value: a.b}}], unboundEnvVars: [{{key: C}}]}}"
    first, second = read_cst(written(tmp_path, HEAD + text)).probe
    assert isinstance(first, ConfigProbe)
    assert isinstance(second, ConfigProbe)
    assert (first.env, first.regex) == ({"A": r"^a\Z", "B": "b.c"}, ["A"])
    assert (first.labels, first.no_env) == ({"A": r"\Aa\.b\Z"}, ["C"])
    assert (second.name, second.env, second.regex) == ("Metadata Test (2)", {"A": "b"}, ["A"])


def test_variables_of_the_file_and_of_a_test(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
globalEnvVars: [{key: HOME, value: /env}]
commandTests:
- {name: a, command: $HOME/x, args: [$OWN, "$5"], envVars: [{key: OWN, value: "${HOME}/y"}]}
- {name: a, command: $OWN, setup: [[ls]], teardown: [[ls]], envVars: [{key: OWN, value: z}], exitCode: 3}
"""
    )
    one, two = read_cst(written(tmp_path, text)).probe
    assert isinstance(one, RunProbe)
    assert isinstance(two, RunProbe)
    assert one.command == ["/env/x", "$OWN", "$5"]
    assert one.env == {"HOME": "/env", "OWN": "/env/y"}
    assert (two.name, two.command, two.status) == ("a (2)", ["z"], 3)
    assert (two.setup, two.teardown) == ([["ls"]], [["ls"]])


def test_expansion_is_that_of_go() -> None:
    known = {"A": "x", "A_B": "y"}
    for text, wanted in [
        ("$A/${A_B}", "x/y"),
        ("$C|$1|${}|", "|||"),
        ("$(ls) 5$ $%", "$(ls) 5$ $%"),
        ("$A_B-$A.", "y-x."),
    ]:
        assert expanded(text, known) == wanted


@pytest.mark.parametrize(
    ("go", "ls"),
    [
        *(("dtrwxrwxrwx", "drwxrwxrwt"), ("urwxr-xr-x", "-rwsr-xr-x"), ("gr--r--r--", "-r--r-Sr--")),
        *(("-rw-r--r--", "-rw-r--r--"), ("Lrwxrwxrwx", "lrwxrwxrwx"), ("Dcrw-rw----", "crw-rw----")),
        *(("Drw-rw----", "brw-rw----"), ("0644", "0644")),
    ],
)
def test_modes_as_go_writes_them(tmp_path: Path, go: str, ls: str) -> None:
    text = f"fileExistenceTests: [{{name: a, path: /a, permissions: '{go}', uid: -1}}]"
    probe = read_cst(written(tmp_path, HEAD + text)).probe[0]
    assert isinstance(probe, FileProbe)
    assert (probe.permissions, probe.uid) == (ls, None)


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = """
fileExistenceTests:
- &first {name: a, path: /a, uid: 1}
- {<<: *first, name: b, gid: &id 2}
- {<<: [{path: /c}, *first], name: c, gid: *id}
"""
    found = [p for p in read_cst(written(tmp_path, HEAD + text)).probe if isinstance(p, FileProbe)]
    assert [(p.name, p.path, p.uid, p.gid) for p in found] == [
        ("a", "/a", 1, None),
        ("b", "/a", 1, 2),
        ("c", "/c", 1, 2),
    ]


WRONG = [
    ("schemaVersion: 1.0.0", "tests.yaml: schemaVersion is '1.0.0'; 2.0.0 is what is read"),
    ("commandTests: []", "tests.yaml: schemaVersion is missing"),
    ("", "tests.yaml: there is nothing in it"),
    ("[]", "tests.yaml:1: expected a mapping, got a list"),
    (HEAD + "a: b: c", "tests.yaml:2: mapping values are not allowed here"),
    (HEAD + "x: *y", "tests.yaml:2: found undefined alias 'y'"),
    (HEAD + "--- 1", "tests.yaml:2: but found another document"),
    ("a: \x07", "tests.yaml: no YAML: unacceptable character"),
    (HEAD + "commandtests: []", "tests.yaml:2: commandtests: there is no such field; there are commandTests,"),
    (HEAD + "commandTests: []\ncommandTests: []", "tests.yaml:3: commandTests: is written twice"),
    (HEAD + "commandTests:\n- name: a", "tests.yaml:3: commandTests[0]: command is missing"),
    (HEAD + "commandTests:\n- command: a", "tests.yaml:3: commandTests[0]: name is missing"),
    (HEAD + "commandTests:\n- name: a\n  shell: 1", "tests.yaml:4: commandTests[0].shell: there is no such field"),
    (
        HEAD + "commandTests: [{name: a, command: [b]}]",
        "tests.yaml:2: commandTests[0].command: expected a string, got a l",
    ),
    (HEAD + "commandTests: [{name: a, command: b, setup: [[]]}]", "2: commandTests[0].setup[0]: is empty"),
    (
        HEAD + "commandTests:\n- name: a\n  command: b\n  expectedOutput:\n  - a\n  - '('",
        "tests.yaml:7: commandTests[0].expectedOutput[1]: '(': no regular expression: a missing )",
    ),
    (HEAD + "commandTests: [{name: a, command: b, exitCode: x}]", "exitCode: expected a whole number, got 'x'"),
    (
        HEAD + "fileExistenceTests:\n- name: a\n  path: b\n  uid:\n\n    x",
        "tests.yaml:5: fileExistenceTests[0].uid: exp",
    ),
    (HEAD + "commandTests: [{name: a, command: b, exitCode: '1'}]", "exitCode: expected a whole number, got '1'"),
    (HEAD + "fileExistenceTests: [{name: a, path: b, shouldExist: 'no'}]", "expected true or false, got 'no'"),
    (
        HEAD + "fileExistenceTests: [{name: a, path: b, isExecutableBy: me}]",
        "expected any, owner, group, other, got 'me'",
    ),
    (HEAD + "fileContentTests: {}", "tests.yaml:2: fileContentTests: expected a list, got a mapping"),
    (HEAD + "metadataTest: {user: !!python/name:os.system x}", "metadataTest.user: expected a string, got 'x'"),
    (HEAD + "metadataTest: {envVars: [{key: 'A=B'}], labels: [{value: x}]}", "labels[0]: key is missing"),
]


@pytest.mark.parametrize(("text", "what"), WRONG, ids=[what[:60] for _, what in WRONG])
def test_errors_say_the_line(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_cst(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path))
    assert what in str(caught.value)


def test_files_that_are_bombs(tmp_path: Path) -> None:
    text = HEAD + "commandTests:\n- {name: a, command: a, args: &a [" + "b, " * 1000 + "]}\n"
    text += "- {name: a, command: a, args: *a}\n" * 300
    with pytest.raises(BadInputError, match="more than 200,000 values"):
        read_cst(written(tmp_path, text))
    levels = "".join(f"- &m{n + 1} {{<<: [*m{n}, *m{n}]}}\n" for n in range(60))
    with pytest.raises(BadInputError, match=r"merge keys|more than 200,000 values"):
        read_cst(written(tmp_path, HEAD + "fileContentTests:\n- &m0 {name: a, path: b}\n" + levels))
    with pytest.raises(BadInputError, match="merge keys"):
        read_cst(written(tmp_path, HEAD + "metadataTest: &a {<<: *a}"))
    with pytest.raises(BadInputError, match="nested too deep"):
        read_cst(written(tmp_path, HEAD + "commandTests: " + "[" * 5000))
    with pytest.raises(BadInputError, match="nested too deep"):
        read_cst(written(tmp_path, "[" * 100_000, "deep.json"))
    with pytest.raises(BadInputError, match="nested too deep"):
        read_cst(
            written(tmp_path, HEAD + "fileContentTests: [{name: a, path: b, expectedContents: ['" + "(" * 9000 + "']}]")
        )
    with pytest.raises(BadInputError, match="more than 1,000,000 bytes"):
        read_cst(written(tmp_path, "#" * 1_000_001))
    with pytest.raises(BadInputError, match="cannot be read"):
        read_cst(tmp_path / "none.yaml")


# What Go's regexp says of each, by its documentation of the syntax.
REGEX = [
    ("^foo$", "foo\n", False),
    ("^foo$", "foo", True),
    ("(?m)^foo$", "foo\n", True),
    (r"foo\z", "foo\n", False),
    ("(a|b$)", "b\n", False),
    (r"\$[$]", "$$", True),
    ("a(?i)b|c", "C", True),
    ("a(?i)b|c", "A", False),
    ("(a(?i)b)c", "aBC", False),
    ("(?s)(?-s)a.b", "a\nb", False),
    ("(?is:A.)B", "a\nB", True),
    (r"\Qa.b\E+$", "a.bbb", True),
    (r"\Qa.b\E", "aXb", False),
    ("^[[:alpha:]_]+$", "ab_c", True),
    ("[[:space:]]", "a", False),
    (r"\w", "\u00e9", False),
    (r"[^\w]", "\u00e9", True),
    (r"[\W]", "_a0", False),
    (r"^[\W]+$", "[]^`", True),
    (r"^[\D]$", "5", False),
    (r"\s", "\v", False),
    (r"[\S]", "\v", True),
    (r"\bx", "\u00e9x", True),
    ("(?i)\u00c9", "\u00e9", True),
    ("x{,5}", "x{,5}", True),
    ("^x{2,3}$", "xxx", True),
    (r"^\x{1F600}\x41\101$", "\U0001f600AA", True),
    ("[]a]", "]", True),
    ("[a&&b]", "&", True),
    ("(?P<n>a)(?<m>b)(?:c)", "abc", True),
]


@pytest.mark.parametrize(("pattern", "text", "matches"), REGEX)
def test_regular_expressions_match_as_in_go(pattern: str, text: str, matches: bool) -> None:
    assert bool(re.search(python_regex(pattern), text)) is matches, python_regex(pattern)


@pytest.mark.parametrize(
    "pattern", ["(?=a)", r"\pL", "(", "a)", "[a", "(?U)a", "a\\", "[[:^alpha:]]", r"\1", r"\x{110000}"]
)
def test_regular_expressions_that_python_does_not_have(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"expression|supported|character"):
        python_regex(pattern)
