"""The parser of Dockerfiles: lines, heredocs, stages, and whatever somebody might write."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.application.dockerfile import SIZE_LIMIT, Instruction, expand, instructions, parse_dockerfile
from deadweight.errors import BadInputError


def one(text: str) -> Instruction:
    (found,) = instructions(text)
    return found


def test_lines_of_what_goes_on() -> None:
    text = "# first\n\nRUN  a &&\\\n  # why\n\n   b && \\  \n   c\nCMD x\n"
    run, cmd = instructions(text)
    assert (run.name, run.line, run.end_line, cmd.line) == ("RUN", 3, 7, 8)
    assert run.text == "a &&   b &&    c"
    assert [run.line_at(run.text.index(word)) for word in "abc"] == [3, 6, 7]
    assert run.comments == ("# why",)


def test_a_flag_on_a_line_of_its_own_moves_no_line() -> None:
    run = one("RUN --mount=type=cache,target=/root/.cache \\\n    --network=none \\\n    pip install x \\\n    y\n")
    assert run.flags == (("mount", "type=cache,target=/root/.cache"), ("network", "none"))
    assert run.text.split() == ["pip", "install", "x", "y"]
    assert (run.line_at(0), run.line_at(run.text.index("y"))) == (3, 4)
    assert (run.flag("network"), run.flag("from")) == ("none", None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('CMD ["a", "b c"]', ("a", "b c")),
        ("CMD ['a']", None),
        ('CMD ["a", 1]', None),
        ("CMD [ -f x ]", None),
        ('ENV ["a"]', None),
        ("CMD " + "[" * 5000, None),
    ],
)
def test_exec_forms(line: str, words: tuple[str, ...] | None) -> None:
    assert one(line).words == words


def test_heredocs() -> None:
    text = (
        "RUN <<EOF\n# no comment\nset -e\n\nFROM x\nEOF\nCOPY <<-\"A\" <<B /etc/\n\t1\n\tA\n2\nB\nRUN echo '<<X' a<<Y\n"
    )
    run, copy, plain = instructions(text)
    assert [(h.name, h.content, h.line) for h in run.heredocs] == [("EOF", "# no comment\nset -e\n\nFROM x", 2)]
    assert [(h.name, h.content, h.line) for h in copy.heredocs] == [("A", "1", 8), ("B", "2", 10)]
    assert (run.end_line, copy.line, copy.end_line) == (6, 7, 11)
    assert plain.heredocs == ()
    with pytest.raises(BadInputError, match="line 2: the heredoc 'EOF' does not end"):
        list(instructions("FROM x\nRUN <<EOF\necho\n"))


def test_directives() -> None:
    assert one("# syntax=docker/dockerfile:1\n# escape=`\nRUN a `\n  b\\\n").text == "a   b\\"
    late = list(instructions("# a comment\n# escape=`\nRUN a `\nRUN b\n"))
    assert [each.text for each in late] == ["a `", "b"]


def test_stages() -> None:
    text = """ARG TAG=3.12
ARG BASE=python:${TAG}-slim
from $BASE as Base
FROM base AS build
RUN make
FROM --platform=linux/amd64 Base
COPY --from=build /x /y
"""
    found = parse_dockerfile(text)
    assert [(s.name, s.base, s.parent, s.start.line) for s in found.stages] == [
        ("base", "python:3.12-slim", None, 3),
        ("build", "base", 0, 4),
        ("", "Base", 0, 6),
    ]
    last = found.stages[-1]
    assert [stage.index for stage in found.chain(last)] == [0, 2]
    assert (found.stage("BUILD"), found.stage("2"), found.stage("9"), found.stage("none")) == (
        found.stages[1],
        last,
        None,
        None,
    )
    assert last.instructions[0].flag("from") == "build"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM"),
        ("RUN x\nFROM a", "line 1: RUN stands before the first FROM"),
        ("FROM a\n\nFRMO b", "line 3: there is no instruction 'FRMO'"),
        ("FROM a b", "line 1: FROM takes an image"),
        ("FROM", "line 1: FROM takes"),
        ("\x7fELF\x1b[31m", r"there is no instruction '\\x7fELF"),
    ],
)
def test_no_dockerfile(text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        parse_dockerfile(text)


def test_too_large() -> None:
    with pytest.raises(BadInputError, match="line 1: it has more than"):
        parse_dockerfile("FROM x\n" + "#" * SIZE_LIMIT)
    with pytest.raises(BadInputError, match="line 1: it has more than"):
        parse_dockerfile("FROM x\n#" + "\u00e4" * (SIZE_LIMIT // 2))


def test_what_is_large_takes_no_long_time() -> None:
    quotes = "RUN <<" + '"\\"\'' * 200_000
    assert len(list(instructions(quotes))) == 1
    assert len(list(instructions("RUN a\\\n" * 100_000 + "b"))) == 1
    assert len(list(instructions("#x\n" * 300_000 + "RUN b"))) == 1
    assert len(list(instructions("RUN " + "--a=" * 200_000))) == 1


def test_variables() -> None:
    known = {"A": "1", "EMPTY": ""}
    assert (
        expand("$A ${A} ${A:-x} ${B:-x} ${B-y} ${A:+z} ${B:+z} $B ${EMPTY-x}${EMPTY:-w}", known) == "1 1 1 x y z  $B w"
    )


WORDS = st.sampled_from(
    [
        *("FROM a", "FROM a AS b", "RUN", "RUN <<E", "E", "COPY", "--from=b", "\\", "`", "# escape=`", "#", '"', "'"),
        *('["a"]', "[", "<<", "<<-'X Y'", "&&", "||", " ", "\t", "\r", "\x85", "\u2028", "\x00", "x", "$A", "ARG A=1"),
    ]
)
TEXTS = st.one_of(
    st.text(),
    st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=12).map("\n".join),
)


@given(TEXTS)
def test_the_parser_never_raises_anything_else_and_lines_are_the_files(text: str) -> None:
    lines = text.count("\n") + 1
    found: list[Instruction] = []
    with suppress(BadInputError):
        found.extend(instructions(text))
    end = 0
    for each in found:
        assert end < each.line <= each.end_line <= lines
        end = each.end_line
        places = [each.line_at(at) for at in range(len(each.text) + 1)]
        assert places == sorted(places)
        assert all(each.line <= place <= each.end_line for place in places)
        assert all(each.line < doc.line <= each.end_line for doc in each.heredocs)
    with suppress(BadInputError):
        parse_dockerfile(text)
