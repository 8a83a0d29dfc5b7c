"""A drafted deadweight.toml reads back, whatever names an image or a project has, and says what was found."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from deadweight.application.project import last_stage
from deadweight.errors import BadInputError
from deadweight.verify.draft import Draft, draft_image, draft_project, quoted
from deadweight.verify.spec import AbsentProbe, HttpProbe, ImportProbe, RoutesProbe, Spec, StartProbe
from deadweight.verify.spec.reading import read_spec
from support.contexts import context, distribution
from support.images import Member, directory, file

MAIN = b"""
import numpy, yaml
from fastapi import FastAPI
app = FastAPI()

@app.get("/healthz")
def health(): ...
"""
NAMES = (
    '"]\n[[probe]]\nkind = "run"',
    "'''",
    '"""',
    "\\",
    "\x1b[31m\x07\x7f",
    "\udcff\ud800",
    "x" * 5000,
    "\u2028\u202e",
    "日本語",
    "\U0001f600 #",
)


def image(*members: Member, **run: Any) -> Draft:
    return draft_image(context([directory("app"), *members], run={"WorkingDir": "/app", **run}).ledger)


def read(draft: Draft, folder: Path) -> Spec:
    path = folder / "deadweight.toml"
    path.write_text(draft.text)
    tomllib.loads(draft.text)
    return read_spec(path)


def probes_of(spec: Spec, kind: type[Any]) -> list[Any]:
    return [probe for probe in spec.probe if isinstance(probe, kind)]


def test_an_image(tmp_path: Path) -> None:
    draft = image(
        file("app/main.py", MAIN),
        file("usr/bin/make", b"\x7fELF", mode=0o755),
        file("usr/bin/cmake", b"\x7fELF", mode=0o755),
        *distribution("fastapi", "fastapi/__init__.py"),
        *distribution("numpy", "numpy/__init__.py"),
        *distribution("PyYAML", "yaml/__init__.py", "_yaml/__init__.py"),
        *distribution("unneeded", "unneeded.py"),
        *distribution("ruff", "ruff.py"),
        Cmd=["uvicorn", "main:app", "--port", "8080"],
        Env=["PATH=/usr/bin"],
    )
    spec = read(draft, tmp_path)
    assert (spec.app.asgi, spec.app.wsgi, spec.app.port, spec.app.health) == ("main:app", None, 8080, "/healthz")
    assert spec.app.directory is None
    assert spec.image.max_size is None
    assert "# max_size = " in draft.text
    first, every, measured = probes_of(spec, ImportProbe)
    assert (first.modules, first.must) == (["fastapi", "numpy", "yaml"], True)
    assert (every.modules, every.must) == (None, False)
    assert (measured.modules, measured.time_ratio) == (["main"], 2.0)
    (routes,) = probes_of(spec, RoutesProbe)
    assert (routes.must, routes.count) == (True, None)
    assert len(probes_of(spec, StartProbe)) == 1
    (request,) = probes_of(spec, HttpProbe)
    assert (request.path, request.status) == ("/healthz", 200)
    (absent,) = probes_of(spec, AbsentProbe)
    assert absent.commands == ["gcc", "g++", "cc", "make", "cmake"]
    assert absent.modules == ["pytest", "mypy", "ruff"]
    assert "# numpy: /app/main.py imports it" in draft.text
    assert draft.found == ["application main:app", "port 8080", "health check /healthz", "modules to import: 3"]
    assert draft.missing == []


def test_an_image_that_shows_nothing(tmp_path: Path) -> None:
    draft = image(Cmd=["sleep", "1"])
    spec = read(draft, tmp_path)
    assert (spec.app.asgi, spec.app.port, spec.app.health) == (None, None, None)
    assert [type(probe) for probe in spec.probe] == [ImportProbe, AbsentProbe]
    assert draft.found == []
    assert len(draft.missing) == 4


def test_applications_that_are_made_and_lie_elsewhere(tmp_path: Path) -> None:
    code = b"from flask import Flask\ndef create_app():\n    return Flask('x')\n"
    draft = image(file("app/src/web.py", code), Cmd=["gunicorn", "--chdir", "src", "web:create_app()"])
    spec = read(draft, tmp_path)
    assert (spec.app.wsgi, spec.app.directory) == ("web:create_app()", "/app/src")
    assert all(probe.time_ratio is None for probe in probes_of(spec, ImportProbe))


def test_compilers_stay_where_the_application_compiles(tmp_path: Path) -> None:
    draft = image(file("app/main.py", b"import torch\nmodel = torch.compile(model)\n"), Cmd=["python", "main.py"])
    assert probes_of(read(draft, tmp_path), AbsentProbe)[0].commands == []
    assert "mentions torch.compile" in draft.text


def test_a_drafted_specification_can_be_completed_by_taking_out_hashes(tmp_path: Path) -> None:
    draft = image(file("app/main.py", MAIN), Cmd=["uvicorn", "main:app"])
    for line in ("# max_size = ", "# count = 9", "# DATABASE_URL", "# [app.env]"):
        assert line in draft.text
    text = draft.text.replace("# [app.env]\n# DATABASE", "[app.env]\nDATABASE").replace("# max_size", "max_size")
    at = text.index("# [[probe]]")
    lines = text[at:].split("\n\n")[0].splitlines()
    text = text.replace("\n".join(lines), "\n".join(line.removeprefix("# ") for line in lines))
    spec = read(Draft(text.replace("# count", "count"), [], []), tmp_path)
    assert spec.app.env == {"DATABASE_URL": "sqlite:////tmp/test.db"}
    assert probes_of(spec, RoutesProbe)[0].count == 9
    assert probes_of(spec, HttpProbe)[1].json == {"text": "hello"}


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names(name: str, tmp_path: Path) -> None:
    entry = name.encode("utf-8", "surrogateescape" if "\ud800" not in name else "surrogatepass")
    site = "usr/lib/python3.11/site-packages"
    draft = image(
        file("app/main.py", b"import evil\n@app.get('/health')\ndef x(): ...\n"),
        file("app/\x1b[31m\u2028.py", b"import bad\n"),
        *distribution("bad", "bad.py", site=site),
        *distribution("evil", "evil/__init__.py", site=site, url="file:///app"),
        file(
            f"{site}/x-1.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: " + entry.replace(b"\n", b"") + b"\nVersion: 1\n",
        ),
        Entrypoint=["uvicorn", f"{name}:app", "main:app"],
        Cmd=[name, "--port", name],
        Env=[f"PORT={name}", f"{name}=1"],
        WorkingDir="/app",
        Healthcheck={"Test": ["CMD-SHELL", f"curl http://localhost:80/{name}"]},
        ExposedPorts={name: {}},
    )
    spec = read(draft, tmp_path)
    assert {probe.__struct_config__.tag for probe in spec.probe} <= {"import", "routes", "start", "http", "absent"}
    assert all(c.isprintable() or c == "\n" for c in draft.text)
    assert draft.text.isascii() or name in ("日本語", "\U0001f600 #")


def test_strings() -> None:
    for name in NAMES:
        back = tomllib.loads(f"x = {quoted(name)}")["x"]
        assert back == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in name)
        assert quoted(name).isprintable()


PYPROJECT = b"""
[project]
name = "svc"
dependencies = ["fastapi[standard]>=0.100", "PyYAML", "scikit-learn", "tomli; python_version < '3.11'",
    "not a requirement!"]
[project.scripts]
svc-run = "svc.cli:main"
"""
DOCKERFILE = b"""
# syntax=docker/dockerfile:1
FROM python:3.12 AS base
ENV PORT=8700 \\
    # a comment within
    NAME="a b"
WORKDIR /srv
EXPOSE 1234/tcp
HEALTHCHECK --interval=5s CMD curl -f http://localhost:${PORT}/up || exit 1
FROM base AS test
CMD pytest
FROM base
WORKDIR app
ENTRYPOINT ["./entry.sh"]
cmd ["serve"]
"""
ENTRY = b"#!/bin/sh\nexec uvicorn svc.web:app --host 0.0.0.0 --port $PORT\n"


def project(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_a_project(tmp_path: Path) -> None:
    place = project(
        tmp_path / "svc",
        pyproject_DOT_toml=PYPROJECT,
        Dockerfile=DOCKERFILE,
        entry_DOT_sh=ENTRY,
        src__svc__web_DOT_py=MAIN,
        tests__test_x_DOT_py=b"from flask import Flask\napp = Flask('x')\n",
        _DOT_venv__lib__x_DOT_py=b"from flask import Flask\napp = Flask('x')\n",
    )
    draft = draft_project(place)
    spec = read(draft, tmp_path)
    assert (spec.app.asgi, spec.app.port, spec.app.health) == ("svc.web:app", 8700, "/up")
    assert probes_of(spec, ImportProbe)[0].modules == ["fastapi", "yaml", "sklearn"]
    assert "# guessed from the requirement PyYAML" in draft.text
    assert any("'tomli; python_version" in note for note in draft.missing)
    assert any("'not a requirement!'" in note for note in draft.missing)


def test_a_project_without_a_dockerfile(tmp_path: Path) -> None:
    place = project(
        tmp_path / "svc", requirements_DOT_txt=b"# all\n-r more.txt\nFlask==3.0 \\\n    --hash=sha256:0\nnumpy # x\n"
    )
    (place / "app.py").write_bytes(b"from flask import Flask\napp = Flask('x')\n")
    (place / "evil.py").symlink_to("/etc/passwd")
    (place / "Containerfile").symlink_to("/etc/passwd")
    draft = draft_project(place)
    spec = read(draft, tmp_path)
    assert spec.app.wsgi == "app:app"
    assert probes_of(spec, ImportProbe)[0].modules == ["flask", "numpy"]
    assert probes_of(spec, StartProbe) == []
    assert "there is no Dockerfile" in draft.missing


def test_projects_that_cannot_be_read(tmp_path: Path) -> None:
    for number, wrong in enumerate((b"[project", b"a = " + b"9" * 5000, b"\xff")):
        with pytest.raises(BadInputError, match=r"pyproject.toml' is no TOML"):
            draft_project(project(tmp_path / f"a{number}", pyproject_DOT_toml=wrong))
    deep = b"[project]\ndependencies = ['x; " + b"(" * 3000 + b'os_name == "a"' + b")" * 3000 + b"', 'torch']\n"
    assert probes_of(read(draft_project(project(tmp_path / "deep", pyproject_DOT_toml=deep)), tmp_path), ImportProbe)
    odd = b"project = 3\n[tool.poetry.dependencies]\npython = '^3.11'\ntorch = '*'\n"
    spec = read(draft_project(project(tmp_path / "b", pyproject_DOT_toml=odd)), tmp_path)
    assert probes_of(spec, ImportProbe)[0].modules == ["torch"]


def test_the_last_stage_of_a_dockerfile() -> None:
    stage = last_stage(DOCKERFILE.decode())
    assert (stage.entrypoint, stage.cmd, stage.workdir, stage.ports) == (["./entry.sh"], ["serve"], "/srv/app", [1234])
    assert stage.environment == {"PORT": "8700", "NAME": "a b"}
    assert last_stage("FROM x\nCMD uvicorn main:app\n").cmd == ["/bin/sh", "-c", "uvicorn main:app"]
    assert last_stage("FROM\nCMD\nENV\nHEALTHCHECK NONE\nEXPOSE x $PORT 8000-8010\n\\\n").ports == []
