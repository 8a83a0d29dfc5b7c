"""The commands of shell code, what they install, and texts that nobody would write."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.application.dockerfile import instructions, parse_dockerfile
from deadweight.build.lint.history import instruction_of, match
from deadweight.build.lint.shell import Command, commands, run_commands
from deadweight.build.lint.steps import install_of
from deadweight.build.lint.subject import of_dockerfile
from deadweight.build.lint.table import lint
from deadweight.errors import BadInputError


def shell(text: str) -> list[tuple[tuple[str, ...], str]]:
    return [(one.words, one.after) for one in commands(text, lambda _: 1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b && c|d ; e & f", [(("a", "b"), "&&"), (("c",), "|"), (("d",), ";"), (("e",), "&"), (("f",), "")]),
        ('a \'x && y\' "z; \\" w" \\; c\\ d', [(("a", "x && y", 'z; " w', ";", "c d"), "")]),
        ("a $(b && c; (d)) `e | f` ${g:-h i}", [(("a", "$(b && c; (d))", "`e | f`", "${g:-h i}"), "")]),
        ("a # b && c\nd#e", [(("a",), "\n"), (("d#e",), "")]),
        ("if a; then b; fi || true", [(("a",), ";"), (("b",), "||"), (("true",), "")]),
        ("(a; b) || c", [(("a",), ";"), (("b",), "||"), (("c",), "")]),
        ("a &>/x 2>&1 >> y <z && b", [(("a",), "&&"), (("b",), "")]),
        ("X=1 Y='a b' a", [(("a",), "")]),
        ("a 'open", [(("a", "open"), "")]),
        ('a "open', [(("a", "open"), "")]),
        ("a $(open", [(("a", "$(open"), "")]),
        ("\\", [(("\\",), "")]),
        ("", []),
    ],
)
def test_commands(text: str, expected: list[tuple[tuple[str, ...], str]]) -> None:
    assert shell(text) == expected


def test_redirections_and_assignments() -> None:
    (one,) = commands("X=1 a 2>/dev/null > /x 2>&1 b &>>y", lambda _: 1)
    assert one.words == ("a", "b")
    assert one.redirects == ("2>/dev/null", ">/x", "2>&1", "&>>y")
    assert one.assignments == (("X", "1"),)


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("sudo -E env A=1 /usr/bin/pip install", "pip"),
        ("command -v pip", "command"),
        ("xargs -r strip", "strip"),
        ("exec a", "a"),
        ("", ""),
    ],
)
def test_programs(words: str, program: str) -> None:
    assert Command(tuple(words.split()), 1).program == program


def test_lines_in_a_run() -> None:
    text = "RUN a && \\\n  b \\\n  c\nRUN <<E\nx\n\ny z\nE\nRUN python3 <<E\nimport pip\nE\nRUN <<E bash\nq\nE\n"
    found = [[(one.words, one.line) for one in run_commands(each)] for each in instructions(text)]
    assert found == [
        [(("a",), 1), (("b", "c"), 2)],
        [(("x",), 5), (("y", "z"), 7)],
        [(("python3",), 9)],
        [(("bash",), 12), (("q",), 13)],
    ]
    script = "RUN <<E\n#!/usr/bin/env python3\nimport x; y = 1\nE\n"
    assert [run_commands(one) for one in instructions(script)] == [()]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pip install --index-url http://x a==1 'B_c[d]>2' -c x.txt", ("pip", ("a", "b-c"), (), False, ())),
        (
            "python -m pip install -r r.txt --requirement=s.txt -rt.txt",
            ("pip", (), ("r.txt", "s.txt", "t.txt"), False, ()),
        ),
        ("pip3.12 install -e .[x,y] /src[z] dist/a.whl", ("pip", ("dist",), (), True, ("x", "y", "z"))),
        ("uv pip sync requirements.txt", ("uv-pip", (), ("requirements.txt",), False, ())),
        ("uv sync --extra a --extra=b --no-dev", ("uv-sync", (), (), True, ("a", "b"))),
        ("poetry install -E a", ("poetry", (), (), True, ("a",))),
        ("apt-get -o A=1 install -y -t sid a=1 b/x c:amd64", ("apt", ("a", "b", "c:amd64"), (), False, ())),
        ("apk add --virtual .x a~1 b>2", ("apk", ("a", "b"), (), False, ())),
        ("pip download a", None),
        ("pip", None),
        ("apt-get update", None),
        ("uv run x", None),
        ("uv", None),
        ("python -m", None),
        ("pip install -r", ("pip", (), (), False, ())),
    ],
)
def test_installs(command: str, expected: tuple[object, ...] | None) -> None:
    found = install_of(Command(tuple(command.replace("'", "").split()), 1))
    if found is None:
        assert expected is None
    else:
        files = tuple(filter(None, found.files))
        assert (found.tool, found.packages, files, found.project, found.extras) == expected


PIECES = st.sampled_from(
    [
        *("FROM python:3.12-slim", "FROM a AS b", "FROM b", "RUN ", "COPY --from=b ", "COPY . .", "ENV A=$A", "ARG A"),
        *("CMD ", '["uvicorn", "--reload"]', "pip install ", "-r", "-e", ".[dev]", "apt-get install -y gcc", "strip"),
        *("&&", "||", ";", "|", "(", ")", "{", "}", "if", "fi", "true", "2>/dev/null", ">", "&", "$(", "`", "'", '"'),
        *(
            "<<E",
            "E",
            "\n",
            "\n",
            "\n",
            "chown -R a /app",
            "useradd",
            "uv sync",
            "find -exec",
            "set -e",
            "\\",
            "rm -rf",
        ),
        *(
            "\x00",
            "\u2028",
            "--",
            "=",
            "[",
            "*",
            "/usr/local",
            "uv.lock",
            "FLASK_DEBUG=1",
            "WORKDIR ..",
            "conda",
            "USER ",
        ),
        *("--mount=type=cache", "# deadweight ignore=,"),
    ]
)


@given(st.lists(PIECES, max_size=40).map(" ".join))
def test_no_text_makes_a_rule_fail(text: str) -> None:
    text = f"FROM x\nRUN {text}"
    with suppress(BadInputError):
        dockerfile = parse_dockerfile(text)
        result = lint(of_dockerfile("x", dockerfile, None, None, None))
        lines = text.count("\n") + 1
        assert all(1 <= place.line <= lines for one in result.found for place in one.finding.places)


@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_no_history_makes_reading_fail(text: str) -> None:
    one = instruction_of(text, 1)
    assert match([one], []) == [None]
    run_commands(one)


def test_what_is_large_takes_no_long_time() -> None:
    for text in ("a " * 200_000, "a && " * 100_000, "$(" * 50_000, '"\\"' * 100_000, "a>" * 100_000, "(" * 200_000):
        commands(text, lambda _: 1)
