"""Each rule, with Dockerfiles that break it and ones that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.build.lint.table import RULES
from support.linting import GOOD, REPORT, found, lines, result_of

SLIM = "FROM python:3.12-slim\n"
BUILD = "FROM python:3.12-slim AS build\n"

SITE = "/usr/local/lib/python3.12/site-packages"
COPIED = BUILD + f"FROM debian\nCOPY --from=build {SITE} {SITE}\n"

BROKEN = [
    ("compilers-in-runtime", SLIM + "RUN apt-get update && apt-get install -y \\\n  curl \\\n  gcc=4:12", [4]),
    ("compilers-in-runtime", "FROM python:3.12\n", [1]),
    ("compilers-in-runtime", "FROM docker.io/library/python:3.12-bookworm@sha256:abc\n", [1]),
    ("compilers-in-runtime", "ARG V=12.8\nFROM nvidia/cuda:${V}-devel-ubuntu22.04\n", [2]),
    ("compilers-in-runtime", "FROM debian AS base\nRUN apt-get install -y libpq-dev\nFROM base\n", [2]),
    ("compilers-in-runtime", SLIM + "RUN apt-get install gcc && apt-get purge curl", [2]),
    ("compilers-in-runtime", SLIM + "RUN <<EOF\napk add build-base\nEOF", [3]),
    ("compilers-in-runtime", 'FROM alpine\nRUN ["apk", "add", "gcc"]', [2]),
    ("installer-in-runtime", SLIM + "RUN pip install --no-cache-dir 'uv==0.5'", [2]),
    ("installer-in-runtime", SLIM + "COPY --from=ghcr.io/astral-sh/uv:latest /uv /uvx /bin/", [2]),
    ("installer-in-runtime", SLIM + "RUN curl -LsSf https://astral.sh/uv/install.sh | sh", [2]),
    ("whole-prefix-copied", BUILD + "FROM python:3.12-slim\nCOPY --from=build /usr/local /usr/local", [3]),
    ("whole-prefix-copied", BUILD + 'FROM debian\nCOPY --from=build ["/root/.local/", "/root/.local"]', [3]),
    ("whole-prefix-copied", BUILD + "ENV P=/usr/local\nFROM debian\nENV P=/usr/local\nCOPY --from=0 $P $P", [5]),
    ("scripts-left-behind", COPIED + 'CMD ["uvicorn", "x:y"]', [3]),
    ("tests-copied", SLIM + "COPY src tests/ ./", [2]),
    ("tests-copied", SLIM + 'COPY ["scripts", "/app/scripts"]', [2]),
    ("dev-dependencies", SLIM + "RUN pip install \\\n fastapi \\\n pytest-cov", [2]),
    ("dev-dependencies", SLIM + "RUN pip install -r requirements-dev.txt", [2]),
    ("dev-dependencies", SLIM + "ARG E=dev\nRUN uv pip install '.[ml,$E]'", [3]),
    ("dev-dependencies", SLIM + "RUN uv sync --all-extras", [2]),
    ("dev-dependencies", BUILD + "RUN pip install -e .[test]\nFROM debian\nCOPY --from=build /opt/venv /opt/venv", [2]),
    ("dev-dependencies", SLIM + "RUN poetry install --with dev", [2]),
    ("dev-by-default", SLIM + "ARG INCLUDE_DEV=true", [2]),
    ("strip-after-copy", SLIM + "COPY --from=x /opt /opt/x\nRUN cd /opt && \\\n strip x.so", [4]),
    ("strip-after-copy", SLIM + "RUN pip install torch\nRUN find / -name '*.so' | xargs strip", [3]),
    (
        "strip-after-copy",
        SLIM + "COPY x /x\nRUN apt-get install -y binutils && strip /x && apt-get purge binutils",
        [3],
    ),
    ("strip-without-binutils", SLIM + "RUN pip install torch && strip /usr/lib/x.so", [2]),
    ("strip-without-binutils", BUILD + "RUN strip /x\nFROM debian\nCOPY --from=build /x /x", [2]),
    ("hidden-failure", SLIM + "RUN find / -exec strip {} \\; 2>/dev/null || true", [2]),
    ("hidden-failure", SLIM + "RUN a && \\\n pip install x && b || :", [2]),
    ("hidden-failure", SLIM + "RUN set +e; pip install x", [2]),
    ("hidden-failure", SLIM + "RUN curl -O http://x/y &>/dev/null", [2]),
    ("hidden-failure", SLIM + "RUN pip install x > /dev/null 2>&1", [2]),
    ("hidden-failure", SLIM + "RUN pip install x; exit 0", [2]),
    ("hidden-failure", SLIM + "RUN (pip install x) || true", [2]),
    ("hidden-failure", SLIM + "RUN pip install x || echo failed", [2]),
    ("hidden-failure", SLIM + "RUN <<E\npip install x\nrm -rf y\nE", [3]),
    ("hidden-failure", BUILD + "RUN strip /x || true\nFROM debian\nRUN --mount=from=build,target=/m cp /m/x /x", [2]),
    (
        "cache-left-in-layer",
        SLIM + "RUN apt-get update && apt-get install -y curl\nRUN rm -rf /var/lib/apt/lists/*",
        [2],
    ),
    ("cache-left-in-layer", SLIM + "RUN apt-get update && apt-get install -y curl && apt-get clean", [2]),
    ("cache-left-in-layer", SLIM + "ENV PIP_NO_CACHE_DIR=0\nRUN python3 -m pip install x", [3]),
    ("cache-left-in-layer", SLIM + "RUN --mount=type=cache,target=/root/.cache/pip uv pip install x", [2]),
    ("cache-left-in-layer", "FROM alpine\nRUN apk add curl", [2]),
    ("cache-left-in-layer", "FROM x\nRUN conda install -y x", [2]),
    ("reload-in-production", SLIM + 'CMD ["uvicorn", "x:y", \\\n  "--reload"]', [3]),
    ("reload-in-production", SLIM + "ENTRYPOINT exec uvicorn x:y --reload", [2]),
    ("reload-in-production", SLIM + 'CMD ["fastapi", "dev"]', [2]),
    ("reload-in-production", SLIM + "ENV A=1 FLASK_DEBUG=1", [2]),
    ("runs-as-root", SLIM, [1]),
    ("runs-as-root", SLIM + "USER app\nUSER root\nCMD x", [3]),
    ("runs-as-root", SLIM + "RUN echo && \\\n useradd -m -u 1000 app\nCMD x", [3]),
    ("chown-after-copy", SLIM + "WORKDIR /app\nCOPY . .\nRUN useradd a && \\\n chown -R a /app", [5]),
    ("chown-after-copy", SLIM + "COPY x /app/\nRUN chmod --recursive 755 /app/x", [3]),
    ("removed-too-late", SLIM + "RUN apt-get install gcc\nRUN apt-get purge -y gcc", [3]),
    ("removed-too-late", SLIM + "COPY x.tgz /tmp/x.tgz\nRUN tar xf /tmp/x.tgz && rm /tmp/x.tgz", [3]),
    ("lock-ignored", SLIM + "COPY pyproject.toml uv.lock ./\nRUN uv pip install .", [2]),
    ("lock-ignored", SLIM + "COPY pyproject.toml poetry.lock* ./\nRUN pip install .", [2]),
    ("apt-update-alone", SLIM + "RUN apt-get update\nRUN apt-get install -y curl", [2]),
    ("copy-before-install", SLIM + "WORKDIR /app\nCOPY . .\nRUN pip install -r requirements.txt", [3]),
]
FINE = [
    ("compilers-in-runtime", SLIM + "RUN apt-get install -y gcc && pip install x && apt-get purge -y gcc"),
    (
        "compilers-in-runtime",
        SLIM + "RUN apt-get install -y gcc && pip install x && apt-get purge -y --auto-remove gcc",
    ),
    (
        "compilers-in-runtime",
        "FROM python:3.12 AS b\nRUN apt-get install gcc\nFROM python:3.12-slim\nCOPY --from=b /v /v",
    ),
    ("compilers-in-runtime", SLIM + "RUN apt-get install -y libgcc-s1 gcc-12-base libstdc++6 python3"),
    ("compilers-in-runtime", SLIM + "RUN apt-get install -y gcc\nRUN pip install vllm"),
    ("compilers-in-runtime", SLIM + "RUN echo 'apt-get install gcc'"),
    ("installer-in-runtime", SLIM + "RUN --mount=from=ghcr.io/astral-sh/uv,source=/uv,target=/bin/uv uv sync"),
    ("installer-in-runtime", SLIM + "RUN pip install poetry && poetry install && pip uninstall -y poetry"),
    (
        "whole-prefix-copied",
        BUILD + "FROM debian\nCOPY --from=build /install /usr/local\nCOPY --from=build /usr/local/bin/x /x",
    ),
    ("whole-prefix-copied", BUILD + "FROM scratch\nCOPY --from=build / /"),
    ("whole-prefix-copied", SLIM + "COPY /usr/local /usr/local"),
    ("scripts-left-behind", COPIED + 'CMD ["python", "-m", "uvicorn", "x:y"]'),
    ("scripts-left-behind", COPIED + 'COPY --from=build /usr/local/bin /usr/local/bin\nCMD ["uvicorn", "x:y"]'),
    ("scripts-left-behind", COPIED + 'COPY --from=build /usr/local/bin/uvicorn /bin/\nCMD ["uvicorn", "x:y"]'),
    ("scripts-left-behind", COPIED + 'RUN pip install uvicorn\nCMD ["uvicorn", "x:y"]'),
    ("tests-copied", SLIM + "COPY src contest ./\nCOPY scripts/start.sh /start.sh"),
    ("tests-copied", SLIM + 'COPY scripts ./scripts\nCMD ["scripts/start.sh"]'),
    ("tests-copied", "FROM debian AS t\nCOPY tests tests\nFROM debian"),
    ("dev-dependencies", "FROM x AS t\nRUN pip install pytest\nFROM debian"),
    ("dev-dependencies", SLIM + "RUN uv sync --no-dev --extra ml"),
    ("dev-dependencies", SLIM + "RUN pip install -r requirements.txt '.[ml]' latest-thing devtools-x"),
    ("dev-dependencies", SLIM + "RUN poetry install --only main --without dev,test"),
    ("dev-by-default", SLIM + "ARG INCLUDE_DEV=false\nARG DEVICE=true\nARG DEV"),
    ("strip-after-copy", BUILD + "COPY x /x\nRUN strip /x\nFROM debian\nCOPY --from=build /x /x"),
    ("strip-after-copy", SLIM + "RUN pip install torch && find / -name '*.so' -exec strip {} +"),
    ("strip-after-copy", SLIM + "COPY x /x\nRUN pip install strip-hints && echo strip"),
    ("strip-without-binutils", SLIM + "RUN apt-get install -y binutils\nRUN strip /x"),
    ("strip-without-binutils", "FROM acme/base\nRUN strip /x"),
    ("strip-without-binutils", "FROM debian AS b\nRUN apt-get install -y gcc\nFROM b\nRUN strip /x"),
    ("hidden-failure", SLIM + "RUN if command -v x >/dev/null 2>&1; then pip install x; fi"),
    ("hidden-failure", SLIM + "RUN rm -rf /x 2>/dev/null || true; find . -name __pycache__ -exec rm -rf {} + || true"),
    ("hidden-failure", SLIM + "RUN useradd app || true\nHEALTHCHECK CMD curl -f http://x >/dev/null 2>&1 || exit 1"),
    ("hidden-failure", SLIM + "RUN set -e; pip install x; rm -rf y"),
    ("hidden-failure", SLIM + 'SHELL ["/bin/bash", "-ec"]\nRUN pip install x; rm -rf y'),
    ("hidden-failure", SLIM + "RUN test -f x || (pip install y >/dev/null && cp a b)"),
    ("hidden-failure", SLIM + "RUN strip --version >/dev/null 2>&1 || pip install x"),
    ("hidden-failure", SLIM + "RUN echo 'pip install x || true' > /start.sh"),
    ("hidden-failure", "FROM debian AS t\nRUN pytest || true\nFROM debian"),
    ("cache-left-in-layer", SLIM + "RUN apt-get install -y curl \\\n && rm -rf /var/lib/apt/lists/*"),
    ("cache-left-in-layer", SLIM + "RUN pip --no-cache-dir install x && rm -rf ~/.cache"),
    ("cache-left-in-layer", SLIM + "ENV UV_CACHE_DIR=/c\nRUN --mount=type=cache,target=/c uv sync"),
    ("cache-left-in-layer", SLIM + "RUN PIP_NO_CACHE_DIR=1 pip install x"),
    ("cache-left-in-layer", BUILD + "RUN pip install x\nFROM debian\nCOPY --from=build /v /v"),
    ("reload-in-production", SLIM + 'CMD ["uvicorn", "x:y", "--reload"]\nCMD ["uvicorn", "x:y"]\nENV FLASK_DEBUG=0'),
    ("reload-in-production", SLIM + 'CMD --reload\nENTRYPOINT ["x"]\nRUN systemctl daemon --reload'),
    ("runs-as-root", SLIM + "USER 1000:1000"),
    ("runs-as-root", "FROM gcr.io/distroless/python3-debian12:nonroot\nCMD x"),
    ("runs-as-root", SLIM + 'ENTRYPOINT ["gosu", "app", "x"]'),
    ("chown-after-copy", SLIM + "COPY x /app/\nRUN mkdir /data && chown -R a /data && chown a /app"),
    ("chown-after-copy", SLIM + "COPY --chown=a x /app/"),
    ("removed-too-late", SLIM + "COPY x /app/x\nRUN apt-get install gcc && apt-get purge gcc && rm -rf /tmp/y"),
    ("removed-too-late", SLIM + "RUN apt-get install -y curl\nRUN mkdir /x && rm -rf /x"),
    ("lock-ignored", SLIM + "COPY pyproject.toml uv.lock ./\nRUN uv export -o r.txt && uv pip install -r r.txt ."),
    ("lock-ignored", SLIM + "COPY uv.lock ./\nRUN pip install uv\nRUN uv sync --frozen"),
    (
        "apt-update-alone",
        SLIM + "RUN apt-get update && apt-get install -y curl\nRUN apt-get update && apt-get upgrade -y",
    ),
    (
        "copy-before-install",
        SLIM + "COPY pyproject.toml ./\nRUN pip install -r r.txt\nCOPY . .\nRUN pip install --no-deps .",
    ),
    ("copy-before-install", SLIM + "COPY --from=x . .\nRUN pip install -r requirements.txt"),
]


@pytest.mark.parametrize(("rule", "text", "where"), BROKEN)
def test_what_breaks_a_rule(rule: str, text: str, where: list[int]) -> None:
    assert lines(rule, text) == where


@pytest.mark.parametrize(("rule", "text"), FINE)
def test_what_does_not(rule: str, text: str) -> None:
    assert lines(rule, text) == []


def test_every_rule_is_tried_both_ways() -> None:
    names = {rule.name for rule in RULES}
    assert {rule for rule, _, _ in BROKEN} == names == {rule for rule, _ in FINE}
    for rule in RULES:
        assert rule.summary
        assert rule.why
        assert rule.instead


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_ones_give_nothing(path: Path) -> None:
    assert found(path.read_text()) == []


REPORTED = {
    "original": [
        (6, "compilers-in-runtime"),
        (13, "installer-in-runtime"),
        (13, "cache-left-in-layer"),
        (16, "dev-by-default"),
        (17, "lock-ignored"),
        (18, "copy-before-install"),
        (19, "dev-dependencies"),
        (19, "cache-left-in-layer"),
        (20, "runs-as-root"),
        (20, "chown-after-copy"),
        (22, "reload-in-production"),
    ],
    "phase-1": [
        (5, "compilers-in-runtime"),
        (8, "installer-in-runtime"),
        (11, "lock-ignored"),
        (16, "whole-prefix-copied"),
        (18, "tests-copied"),
        (19, "runs-as-root"),
        (19, "chown-after-copy"),
        (21, "reload-in-production"),
    ],
    "phase-2": [
        (8, "lock-ignored"),
        (19, "strip-after-copy"),
        (19, "strip-without-binutils"),
        (19, "hidden-failure"),
        (22, "runs-as-root"),
        (24, "reload-in-production"),
    ],
}


@pytest.mark.parametrize("name", REPORTED)
def test_the_report(name: str) -> None:
    text = (REPORT / f"{name}.Dockerfile").read_text()
    result = result_of(text)
    assert [(one.finding.places[0].line, one.rule.name) for one in result.found] == REPORTED[name]
    # Nothing is known of bytes without an image or a context, and nothing is made up.
    assert all(one.finding.bytes is None for one in result.found)


def test_comments_that_say_that_it_is_meant() -> None:
    text = (
        "FROM x\n# deadweight ignore=runs-as-root,nothing\n# why: it must\nRUN adduser a && \\\n"
        "  # deadweight ignore=hidden-failure\n  pip install --no-cache x || true\n"
    )
    result = result_of(text)
    assert result.ignored == 2
    assert result.found == ()
    assert result.unknown == ("nothing",)
    assert lines("hidden-failure", text.replace("# deadweight", "# deadwight")) == [6]


def test_another_stage() -> None:
    text = "FROM python:3.12 AS one\nUSER a\nFROM python:3.12-slim AS two\nUSER a\n"
    assert found(text) == []
    assert found(text, target="one") == [(1, "compilers-in-runtime")]
    assert found(text, target="0") == [(1, "compilers-in-runtime")]
