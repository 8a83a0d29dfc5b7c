"""What mistakes cost, to the byte: of images whose every layer is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from deadweight.application.dockerfile import instructions
from deadweight.build.lint.history import history, instruction_of, match
from deadweight.build.lint.measure import Measure
from deadweight.build.lint.model import total
from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import all_passes
from deadweight.plan import METADATA
from deadweight.planning import make_plan
from support.careless import library
from support.contexts import SITE, distribution
from support.images import Member, directory, file, make_tar, whiteout
from support.layers import image_of
from support.linting import costs, lines, result_of, result_of_image, subject_of

STATUS = """Package: libc6
Status: install ok installed
Priority: optional
Architecture: amd64
Version: 2.36

Package: gcc
Status: install ok installed
Priority: optional
Architecture: amd64
Version: 12.2

"""


def block(size: int) -> int:
    """A file in a tar: its header, and its content in blocks."""
    return 512 + -(-size // 512) * 512


def image(layers: Sequence[tuple[str, Sequence[Member]]], **run: object) -> Image:
    """An image of layers with their history; a step without members makes no layer."""
    entries = [{"created_by": by} if members else {"created_by": by, "empty_layer": True} for by, members in layers]
    tars = [make_tar(*members) for _, members in layers if members]
    return image_of(
        tars, {"config": {"WorkingDir": "/app", "User": "a", **run}, "history": entries, "architecture": "amd64"}
    )


BASE = (
    file("etc/os-release", b"ID=debian\n"),
    file("var/lib/dpkg/status", STATUS.partition("\n\n")[0].encode() + b"\n\n"),
    file("var/lib/dpkg/info/libc6.list", b"/usr/lib/libc.so.6\n"),
    file("usr/lib/libc.so.6", bytes(20_000)),
)
GCC = (
    file("var/lib/dpkg/status", STATUS.encode()),
    file("var/lib/dpkg/info/gcc.list", b"/usr/lib/gcc/cc1\n"),
    file("usr/lib/gcc/cc1", bytes(300_000)),
    file("var/lib/apt/lists/main_Packages", b"p" * 150_001),
)
PYTEST = distribution("pytest", file(f"{SITE}/pytest/__init__.py", b"#" * 200_000))
APP = (
    directory("app"),
    file("app/main.py", b"print()\n" * 1000),
    file("app/tests/test_main.py", b"assert True\n" * 100),
)
DOCKERFILE = """FROM debian:bookworm AS base
RUN apt-get update && \\
    apt-get install -y gcc
FROM base
WORKDIR /app
RUN pip install --no-cache-dir pytest
COPY . .
RUN chown -R 1000 /app
USER 1000
"""


def built() -> Image:
    """What DOCKERFILE makes, by BuildKit's history."""
    return image(
        [
            ("/bin/sh -c #(nop) ADD file:4f2c in / ", BASE),
            ("RUN /bin/sh -c apt-get update &&     apt-get install -y gcc # buildkit", GCC),
            ("WORKDIR /app", [directory("app")]),
            ("RUN /bin/sh -c pip install --no-cache-dir pytest # buildkit", PYTEST),
            ("COPY . . # buildkit", APP),
            ("RUN /bin/sh -c chown -R 1000 /app # buildkit", _owned(APP)),
            ("USER 1000", []),
        ]
    )


def _owned(members: Sequence[Member]) -> Sequence[Member]:
    return [Member(**{**vars(one), "uid": 1000}) for one in members]


def test_a_dockerfile_with_its_image() -> None:
    with built() as made:
        result = result_of(DOCKERFILE, image=made)
        assert [(one.finding.places[0].line, one.rule.name, one.finding.layer) for one in result.found] == [
            (3, "compilers-in-runtime", 1),
            (3, "cache-left-in-layer", 1),
            (6, "dev-dependencies", 3),
            (7, "tests-copied", 4),
            (8, "chown-after-copy", 5),
        ]
        dev = sum(block(len(one.data)) for one in PYTEST)
        copied = block(8000) + block(1200)
        assert costs(result) == {
            "compilers-in-runtime": block(300_000) + block(17),
            "cache-left-in-layer": block(150_001),
            "dev-dependencies": dev,
            # Both copies: what COPY brought, and what chown made of it.
            "tests-copied": 2 * block(1200),
            # The first copies; directories that are there again are nobody's mistake.
            "chown-after-copy": copied,
        }
        # The first copy of the tests is in two findings, and counts once.
        assert total(one.finding for one in result.found) == sum(
            (block(300_000), block(17), block(150_001), dev, block(1200), copied)
        )


def test_an_image_alone() -> None:
    with built() as made:
        result = result_of_image(made)
        assert [(one.finding.places[0].line, one.rule.name) for one in result.found] == [
            (2, "compilers-in-runtime"),
            (2, "cache-left-in-layer"),
            (4, "dev-dependencies"),
            (5, "tests-copied"),
            (6, "chown-after-copy"),
        ]


def test_the_image_shows_that_it_is_not_so() -> None:
    text = "FROM debian\nRUN ./install.sh\nRUN apt-get install -y gcc\nCOPY . /app\nRUN chown -R a /app\nUSER a\n"
    small = [[file(f"usr/share/{name}", b"x")] for name in "abc"]
    layers = [
        ("RUN ./install.sh", GCC),
        ("RUN apt-get install -y gcc", small[0]),
        ("COPY . /app", small[1]),
        ("RUN chown -R a /app", small[2]),
    ]
    with image([("ADD rootfs.tar /", BASE), *layers]) as made:
        # No Dockerfile says what the script does: the layer does.
        result = result_of(text, image=made)
        assert [(one.rule.name, one.finding.places[0].line) for one in result.found] == [("compilers-in-runtime", 2)]


def test_compilers_of_the_base_are_the_froms() -> None:
    status = [Member(**vars(one)) for one in BASE if one.name != "var/lib/dpkg/status"]
    with image([("ADD rootfs.tar /", [*status, *GCC]), ("COPY x /x", [file("x", b"1")])]) as made:
        found = result_of("FROM acme/base\nCOPY x /x\nUSER a\n", image=made).found
        assert [(one.rule.name, one.finding.places[0].line, one.finding.bytes) for one in found] == [
            ("compilers-in-runtime", 1, block(300_000) + block(17))
        ]


def test_deleted_in_another_layer() -> None:
    layers = [
        ("COPY data.tar.gz /tmp/", [file("tmp/data.tar.gz", b"d" * 200_000)]),
        ("RUN rm /tmp/data.tar.gz", [whiteout("tmp/data.tar.gz")]),
    ]
    with image([("ADD x /", BASE), *layers]) as made:
        result = result_of("FROM x\nCOPY data.tar.gz /tmp/\nRUN rm /tmp/data.tar.gz\nUSER a\n", image=made)
        assert costs(result) == {"removed-too-late": block(200_000)}
        assert costs(result_of_image(made, ["removed-too-late"])) == {"removed-too-late": block(200_000)}


STRIPS = """FROM python:3.12-slim
COPY --from=build /opt/venv /opt/venv
RUN find /opt/venv -name '*.so' -exec strip {} + 2>/dev/null || true
USER a
"""


def _strips(after: Sequence[Member]) -> Image:
    command = "RUN /bin/sh -c find /opt/venv -name '*.so' -exec strip {} + 2>/dev/null || true # buildkit"
    copy = "COPY /opt/venv /opt/venv # buildkit"
    return image([("ADD x /", BASE), (copy, [file("opt/venv/x.so", library())]), (command, after)])


def test_a_strip_that_never_ran() -> None:
    with _strips([]) as made:
        found = costs(result_of(STRIPS, image=made))
        symbols = found["hidden-failure"]
        assert symbols is not None
        # Less than the file, and most of what -g brings.
        assert 1000 < symbols < len(library())
        assert found == {"hidden-failure": symbols, "strip-without-binutils": symbols, "strip-after-copy": 0}
        # The same bytes in two findings.
        assert total(one.finding for one in result_of(STRIPS, image=made).found) == symbols


def test_a_strip_after_the_copy() -> None:
    with _strips([file("opt/venv/x.so", library()[:4096])]) as made:
        assert costs(result_of(STRIPS, image=made))["strip-after-copy"] == block(len(library()))


def test_an_image_of_another_dockerfile() -> None:
    with image([("ADD x /", BASE), ("RUN make", GCC)]) as made:
        text = "FROM x\nRUN pip install x\nUSER a\n"
        result = result_of(text, image=made)
        assert "no entry for line 2" in subject_of(text, image=made).notes[0]
        assert costs(result) == {"cache-left-in-layer": None}


@pytest.mark.parametrize(
    ("created_by", "name", "text"),
    [
        ("RUN |2 A=1 B=a b /bin/sh -c make # buildkit", "RUN", "make"),
        ("|1 EXTRA=ml /bin/sh -c make", "RUN", "make"),
        ("/bin/sh -c make", "RUN", "make"),
        ("RUN /bin/bash -o pipefail -c make # buildkit", "RUN", "make"),
        ("RUN make", "RUN", "make"),
        ('/bin/sh -c #(nop)  CMD ["x"]', "CMD", '["x"]'),
        ("/bin/sh -c #(nop) COPY dir:0123abcd in /app ", "COPY", ". /app"),
        ("COPY --chown=a x y # buildkit", "COPY", "x y"),
        ('CMD ["uvicorn" "x:y" "--reload"]', "CMD", '["uvicorn", "x:y", "--reload"]'),
        ('/bin/sh -c #(nop)  ENTRYPOINT ["a b" "\\""]', "ENTRYPOINT", '["a b", "\\""]'),
        ('CMD ["a" b', "CMD", '["a" b'),
        ("RUN /bin/sh -c set -e\nmake\n # buildkit", "RUN", "set -e\nmake"),
        ("apt-get install x", "RUN", "apt-get install x"),
        ("", "RUN", ""),
        ("\x1b[31m\x00", "RUN", "\x1b[31m\x00"),
        ("COPY", "COPY", ""),
    ],
)
def test_entries_of_histories(created_by: str, name: str, text: str) -> None:
    found = instruction_of(created_by, 7)
    assert (found.name, found.text, found.line, found.line_at(0)) == (name, text, 7, 7)


def test_what_an_images_history_runs() -> None:
    layers = [("ADD x /", BASE), ("RUN /bin/sh -c set +e\nstrip /usr/lib/x\n # buildkit", [])]
    with image([*layers, ('CMD ["uvicorn" "x:y" "--reload"]', [])]) as made:
        assert [(one.rule.name, one.finding.places[0].line) for one in result_of_image(made).found] == [
            ("strip-after-copy", 2),
            ("hidden-failure", 2),
            ("reload-in-production", 3),
        ]
        text = 'FROM x\nRUN <<EOF\nset +e\nstrip /usr/lib/x\nEOF\nCMD ["uvicorn", "x:y", "--reload"]\nUSER a\n'
        subject = subject_of(text, image=made)
        assert [step.number for step in subject.steps] == [2, 3, None]
        assert [(one.rule.name, one.finding.places[0].line) for one in result_of(text, image=made).found] == [
            ("hidden-failure", 4),
            ("reload-in-production", 6),
        ]


def test_histories_that_nobody_would_write() -> None:
    entries: list[object] = ["no object", {"created_by": 3}, {"empty_layer": True}]
    with image_of([make_tar(file("a", b"1"))] * 4, {"history": entries}) as made:
        assert [entry.layer for entry in history(made)] == [0, 1, None, 2, 3]
        assert result_of_image(made).found


def test_matching() -> None:
    steps = list(instructions("RUN a\nARG X=1\nENV X=1\nCOPY $X /y\nRUN a\nRUN b \\\n  c\n"))
    texts = ["RUN a", "RUN a", "ENV X=1", "COPY 1 /y", "RUN a", "RUN b   c"]
    with image_of([], {"history": [{"created_by": text, "empty_layer": True} for text in texts]}) as made:
        # The base has a `RUN a`, too: the Dockerfile's is the later one. ARG has no entry.
        assert match(steps, history(made)) == [1, None, 2, 3, 4, 5]
        assert match([], history(made)) == []
        assert match(steps, []) == [None] * 6


def test_the_user_of_the_base_counts() -> None:
    layers = [("ADD x /", BASE), ("COPY x /x", [file("x", b"1")])]
    text = "FROM acme/base\nCOPY x /x\n"
    with image(layers, User="app") as made:
        assert result_of(text, image=made).found == result_of_image(made).found == ()
    with image(layers, User="0:0") as made:
        assert costs(result_of(text, image=made)) == costs(result_of_image(made)) == {"runs-as-root": None}


def test_lines_of_an_image_are_entries() -> None:
    assert lines("runs-as-root", "FROM x") == [1]


def test_no_byte_is_counted_twice() -> None:
    """What all passes would take, with hidden entries apart, is what a plan of those passes saves."""
    with built() as made:
        measure = Measure(Ledger(made))
        names = ("caches", "build-tools", "dev-tools", "tests")
        charges = [charge for name in names for charge in measure.cuts(name)]
        charges += [charge for layer in made.layers for charge in measure.replaced_by(layer.position)]
        skip = [one.name for one in all_passes() if one.name not in (*names, "shadowed")]
        plan = make_plan(Ledger(made), skip=skip, all_layers=True)
        follows = sum(cut.before_bytes - cut.after_bytes for cut in plan.cuts if cut.pass_ == METADATA)
        assert len({charge.key for charge in charges}) == len(charges)
        assert min(charge.bytes for charge in charges) > 0
        directories = 2 * 512  # app/, of WORKDIR and of COPY
        assert (
            sum(charge.bytes for charge in charges) + directories == plan.before_bytes - plan.predicted_bytes - follows
        )


@pytest.mark.parametrize(("size", "severity"), [(900_000, None), (1_000_000, "warning"), (10_000_000, "error")])
def test_caches_that_no_line_explains(size: int, severity: str | None) -> None:
    text = "FROM x\nRUN ./install.sh\nUSER a\n"
    with image([("ADD x /", BASE), ("RUN ./install.sh", [file("var/log/install.log", bytes(size))])]) as made:
        found = result_of(text, image=made).found
        assert [one.finding.severity for one in found] == ([] if severity is None else [severity])
