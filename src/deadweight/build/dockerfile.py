"""A recipe as a Dockerfile: a template for people to own, so it is readable, and says why where a line is not obvious.

It needs no frontend but BuildKit's own, as of Docker 20.10: no `# syntax=` line, no heredoc.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

from deadweight.build.dockerfile_cpu import CpuChoice, cpu_step
from deadweight.build.dockerfile_steps import CACHE, SOURCE, Install, Step, install_steps, run
from deadweight.build.pythons import holds
from deadweight.build.recipe import APP, APP_LIB, UID, USER, VENV, Recipe
from deadweight.build.running import (
    ENVIRONMENT,
    INTERVAL,
    RETRIES,
    START_PERIOD,
    TIMEOUT,
    USER_BY_NUMBER,
    health_words,
    image_labels,
    path_entries,
)
from deadweight.build.system import HEALTH_CLIENT
from deadweight.errors import UsageError, shown
from deadweight.files.cpu_wheel import Runs

UV_VERSION = "0.13.9"
STAGED = "/staged"
"""Where app-stage puts together what goes to `APP`."""
_IMAGE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(?::\d+)?(?:/[A-Za-z0-9._-]+)*(?::\w[\w.-]*)?(?:@sha256:[0-9a-f]{64})?\Z"
)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:=[A-Za-z0-9.+:~*-]+)?\Z")
_DEBIAN = re.compile(r"(?:[\w.-]+(?::\d+)?/)*debian(?::|@|\Z)")
_PLAIN = re.compile(r"(?:[\w.-]+(?::\d+)?/)*(?:debian|python)(?::|@|\Z)")
"""Images that have no ENTRYPOINT, no HEALTHCHECK and no PYTHONPATH."""
_PYTHON = re.compile(r"(?:^|/)(?:python:3\.(\d+)|debian:([a-z]+|\d+))")
_RELEASES = {"bullseye": 9, "11": 9, "bookworm": 11, "12": 11, "trixie": 13, "13": 13}
"""Y of Python 3.Y in Debian's releases."""
_GLIBC = {"bullseye": (2, 31), "bookworm": (2, 36), "trixie": (2, 41)}
OWN_MINOR = 11
"""Of the oldest Python that deadweight runs on."""
_CACHE_APT = (
    "--mount=type=cache,target=/var/cache/apt,sharing=locked",
    "--mount=type=cache,target=/var/lib/apt/lists,sharing=locked",
)


@dataclass(frozen=True)
class Choices:
    """What whoever asks for the Dockerfile decides."""

    base: str = ""
    """An image; the newest `python:X.Y-slim-bookworm` that the project allows without."""
    gpu: str = ""
    """The GPUs that GPU=... names where nobody says otherwise, as sm_80,sm_90; `none` for machines without."""
    keep_ptx: bool = True
    raw_blobs: bool = False
    recompress: bool = False
    add: tuple[str, ...] = ()
    """Debian packages, beside those of the recipe."""
    drop: tuple[str, ...] = ()
    """Debian packages of the recipe that are not wanted."""
    deadweight: str = "deadweight"
    """How pip is asked for deadweight."""
    file: str = ""
    """What the Dockerfile will be called, below the project; empty where that is not known."""
    weights: str = ""
    """What the numbers of models that distributions bring become, as for `deadweight prune`; empty: they stay."""
    cpu: CpuChoice | None = None
    """CPU builds in the place of what is locked for GPUs: then that is what is built where nobody says otherwise."""
    part: str = ""
    """Which part of the project's service it is, where it is one of several."""


def render(recipe: Recipe, choices: Choices = Choices()) -> str:
    """The Dockerfile.

    Raises UsageError for what is no image or no Debian package, and for a base whose Python does not fit.
    """
    check_choices(choices)
    _check_python(recipe, choices)
    install = install_steps(recipe)
    if choices.part:  # what another part is made of is not in this one
        install = replace(install, core=None)
    packages = chosen_packages(recipe, choices)
    stages = [
        _head(recipe, choices, install),
        _base(recipe, choices, packages),
        _builder(recipe),
        _pruner(),
        _dependencies("deps-stage", install.whole, install, choices),
        *([_dependencies("core-stage", install.core, install, choices)] if install.core else []),
        *([_cpu(recipe, choices.cpu, install, choices)] if choices.cpu else []),
        *([_chosen()] if _has_variants(choices, install) else []),
        *([_app(recipe)] if recipe.installable or recipe.copied else []),
        _runtime(recipe, choices, packages, install),
    ]
    return "\n\n".join(stages) + "\n"


def check_choices(choices: Choices) -> None:
    """Raises UsageError for what is no image or no Debian package."""
    if choices.base and not _IMAGE.match(choices.base):
        raise UsageError(f"--base {shown(choices.base)} is no image: name one as python:3.12-slim-bookworm")
    if "alpine" in choices.base:
        raise UsageError(
            f"--base {shown(choices.base)} is no Debian, whose packages and wheels this is for: name another"
        )
    for name in (*choices.add, *choices.drop):
        if not _PACKAGE.match(name):
            raise UsageError(f"{shown(name)} is no Debian package: names are small letters, digits, + . and -")


def runs_of(recipe: Recipe, choices: Choices) -> Runs:
    """Where wheels for the image have to run: what its base says, on this machine's kind of machine."""
    base = base_of(recipe, choices)
    match = _PYTHON.search(base)
    minor = int(match[1]) if match and match[1] else _RELEASES.get(match[2]) if match else None
    glibc = next((version for name, version in _GLIBC.items() if name in base), _GLIBC["bookworm"])
    return Runs(f"3.{minor}" if minor is not None else recipe.python, platform.machine(), glibc)


def _check_python(recipe: Recipe, choices: Choices) -> None:
    base = base_of(recipe, choices)
    match = _PYTHON.search(base)
    minor = int(match[1]) if match and match[1] else _RELEASES.get(match[2]) if match else None
    if minor is None:
        return
    if recipe.requires_python and not holds(recipe.requires_python, minor):
        raise UsageError(
            f"{base} has Python 3.{minor}, and {recipe.name} requires {recipe.requires_python}: name another by --base"
        )
    if minor < OWN_MINOR:
        raise UsageError(
            f"{base} has Python 3.{minor}, and deadweight, which prunes there, needs 3.{OWN_MINOR}: name another by "
            "--base"
        )


def base_of(recipe: Recipe, choices: Choices) -> str:
    """The image that the Dockerfile begins with."""
    return choices.base or f"python:{recipe.python}-slim-bookworm"


def chosen_packages(recipe: Recipe, choices: Choices) -> dict[str, str]:
    """Debian packages of the running service, each with the reason; Python too for a base that has none."""
    debian = _DEBIAN.match(base_of(recipe, choices)) is not None
    found = {"ca-certificates": "TLS", "python3": "this base has none"} if debian else {}
    found |= {name: recipe.reasons.get(name, "") for name in recipe.packages}
    found |= dict.fromkeys(choices.add, "asked for")
    return {name: why for name, why in sorted(found.items()) if name not in choices.drop}


def _head(recipe: Recipe, choices: Choices, install: Install) -> str:
    file = f" -f {shlex.quote(choices.file)}" if choices.file not in ("", "Dockerfile") else ""
    build = f"docker build{file} -t {recipe.name}{f'-{choices.part}' if choices.part else ''}"
    uses, arguments = [f"#   {build} ."], []
    default = "cpu" if choices.cpu else "deps"
    if choices.cpu is not None:
        uses.append(f"#   {build}:gpu --build-arg VARIANT=deps .")
        arguments.append(
            f"# cpu has CPU builds of {', '.join(pin.name for pin in choices.cpu.pins)}, deps has all as locked."
        )
    if install.core is not None:
        uses.append(f"#   {build}:core --build-arg VARIANT=core .")
        arguments.append(f"# core is without {_listed(recipe.extras, 'the extra')}.")
    if _has_variants(choices, install):
        arguments.append(f"ARG VARIANT={default}")
    if install.develops:
        uses.append(f"#   {build}:dev --build-arg INCLUDE_DEV=true .")
        arguments += [f"# true adds what developers need: {install.develops}.", "ARG INCLUDE_DEV=false"]
    arguments += [
        "# The GPUs that the image runs on, as `deadweight gpus` lists them: h100, or sm_80,sm_90, or none. GPU code",
        "# that only others run leaves, about half of a CUDA build of torch. Empty keeps it all.",
        f"ARG GPU={choices.gpu}",
        *_version(recipe),
        f"ARG UV_VERSION={UV_VERSION}",
        "# Any requirement, or the URL of a wheel.",
        f"ARG DEADWEIGHT={choices.deadweight}",
    ]
    what = f"{recipe.name}'s part {choices.part}" if choices.part else recipe.name
    command = "split" if choices.part else "dockerfile"
    about = [f"# The image of {what}. `deadweight {command}` wrote this; from here on it is yours.", "#"]
    return "\n".join(
        [*about, *uses, "#", "# BuildKit builds it: before Docker 23, set DOCKER_BUILDKIT=1.", "", *arguments]
    )


def _version(recipe: Recipe) -> list[str]:
    """The argument with the version, where the project has it of its history."""
    if not recipe.scm_version:
        return []
    about = "# The project takes its version from its history, which a build does not see."
    if recipe.version_variable:
        return [about, "ARG VERSION=0.0.0"]
    return [about, "# Nothing says the version in its place: what is installed has the one that stands for none."]


def _listed(names: Iterable[str], what: str) -> str:
    names = list(names)
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _base(recipe: Recipe, choices: Choices, packages: dict[str, str]) -> str:
    lines = [
        "# What runs: no compiler, no installer.",
        f"FROM {base_of(recipe, choices)} AS base",
        _pairs("ENV", ENVIRONMENT.items()),
    ]
    if packages:
        lines += [f"# {name}: {why}." for name, why in packages.items() if why]
        lines += [_apt(packages, "find /var/log -type f -delete")]
    user = f"--gid {USER} --no-log-init --no-create-home --home-dir {APP} --shell /usr/sbin/nologin {USER}"
    lines += [
        run(
            [
                f"groupadd --gid {UID} {USER}",
                f"useradd --uid {UID} {user}",
                f"install --directory --owner={USER} --group={USER} {APP}",
            ]
        ),
        f"WORKDIR {APP}",
    ]
    return "\n".join(lines)


def _apt(packages: Iterable[str], *then: str) -> str:
    names = " \\\n        ".join(sorted(packages))
    install = f"apt-get install -y --no-install-recommends \\\n        {names}"
    return (
        "# Versions are not pinned: Debian's mirrors drop those that a newer one replaces.\n"
        f"# hadolint ignore=DL3008\n{run(['apt-get update', install, *then], _CACHE_APT)}"
    )


def _builder(recipe: Recipe) -> str:
    # That the module is missing is the question here, and the answer to it is the installation: no failure is hidden.
    headers = (
        "{ python3 -c 'import ensurepip' 2>/dev/null "
        "|| apt-get install -y --no-install-recommends python3-dev python3-venv; }"
    )
    uv = [
        "python3 -m venv /opt/uv",
        '/opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"',
        "ln -s /opt/uv/bin/uv /usr/local/bin/uv",
        f"uv venv --python python3 {VENV}",
    ]
    return "\n".join(
        [
            "# Compilers and uv. Nothing of this stage is in the image but what later stages copy.",
            "FROM base AS builder",
            "# Debian's own Python has its headers and venv in packages of their own.",
            _apt(recipe.build_packages, headers),
            "ARG UV_VERSION",
            run(uv),
            "# Installed files are copies, since a cache mount is another file system.",
            "ENV UV_LINK_MODE=copy \\",
            "    UV_PYTHON_DOWNLOADS=never \\",
            f"    UV_PROJECT_ENVIRONMENT={VENV} \\",
            f"    VIRTUAL_ENV={VENV}",
            f"WORKDIR {SOURCE}",
        ]
    )


def _pruner() -> str:
    commands = [
        "uv venv --python python3 /opt/deadweight",
        'uv pip install --python /opt/deadweight/bin/python "${DEADWEIGHT}"',
    ]
    return "\n".join(
        [
            "# deadweight, apart from what it prunes.",
            "FROM builder AS pruner",
            "ARG DEADWEIGHT",
            run(commands, [CACHE]),
        ]
    )


def _dependencies(stage: str, step: Step, install: Install, choices: Choices) -> str:
    lines = [f"FROM builder AS {stage}"]
    if stage == "deps-stage":
        lines.insert(0, "# Dependencies change only with their lock, so the code is not here yet.")
    else:
        lines.insert(0, "# The same without extras.")
    if install.develops:
        lines.append("ARG INCLUDE_DEV")
    if not step.locked:
        lines.append("# Nothing pins these versions: builds differ, until the project has a lock (`uv lock`).")
    lines.append(run(step.commands, step.mounts))
    if stage == "deps-stage":
        lines += ["# Not in the runtime stage: there the old bytes would stay in the layer below the new ones."]
    lines += ["ARG GPU", _prune(choices, gpus=True)]
    return "\n".join(lines)


def _prune(choices: Choices, *, gpus: bool) -> str:
    words = [f"/opt/deadweight/bin/deadweight prune {VENV}"]
    if gpus:
        options = ['--gpu "$GPU"']
        options += ["--drop-ptx"] if not choices.keep_ptx else []
        options += ["--raw-blobs"] if choices.raw_blobs else []
        options += ["--recompress"] if choices.recompress else []
        words.append(f"${{GPU:+{' '.join(options)}}}")
    words += [f"--weights {choices.weights}"] if choices.weights else []
    return run([" ".join(words)], ["--mount=type=bind,from=pruner,source=/opt/deadweight,target=/opt/deadweight"])


def _cpu(recipe: Recipe, choice: CpuChoice, install: Install, choices: Choices) -> str:
    step = cpu_step(recipe, choice, bool(install.develops))
    lines = ["# As locked, with CPU builds, and without what only GPU builds need.", "FROM builder AS cpu-stage"]
    if install.develops:
        lines.append("ARG INCLUDE_DEV")
    lines.append(run(step.commands, step.mounts))
    lines.append(_prune(choices, gpus=False))
    return "\n".join(lines)


def _has_variants(choices: Choices, install: Install) -> bool:
    return install.core is not None or choices.cpu is not None


def _chosen() -> str:
    return "# COPY --from takes no variable, FROM does.\nFROM ${VARIANT}-stage AS dependencies"


def _app(recipe: Recipe) -> str:
    lines = [f"# What goes to {APP}, readable for all and nobody's to change but root's.", "FROM builder AS app-stage"]
    commands = []
    if recipe.version_variable:
        lines += ["ARG VERSION", f"ENV {recipe.version_variable}=${{VERSION}}"]
    if recipe.installable:
        library = f"{STAGED}/{APP_LIB.removeprefix(APP + '/')}"
        commands.append(f"uv pip install --no-deps --target {library} .")
    if recipe.copied:
        names = " ".join(map(shlex.quote, recipe.copied))
        commands += [f"mkdir -p {STAGED}", f"cp --recursive --parents -- {names} {STAGED}"]
    commands.append(f"chmod -R a+rX,go-w {STAGED}")
    lines += [run(commands, [CACHE, f"--mount=type=bind,target={SOURCE},rw"])]
    return "\n".join(lines)


def _runtime(recipe: Recipe, choices: Choices, packages: dict[str, str], install: Install) -> str:
    known = not choices.base or _PLAIN.match(choices.base) is not None
    environment = {"PATH": ":".join([*path_entries(recipe), "$PATH"])}
    if recipe.python_path:
        environment["PYTHONPATH"] = ":".join(recipe.python_path) + ("" if known else "${PYTHONPATH:+:$PYTHONPATH}")
    lines = [
        "# What changes least comes first: a new version of the code is one small layer, the last.",
        "FROM base AS runtime",
        _pairs("ENV", environment.items()),
        f"COPY --from={'dependencies' if _has_variants(choices, install) else 'deps-stage'} {VENV} {VENV}",
    ]
    if recipe.installable or recipe.copied:
        lines.append(f"COPY --from=app-stage {STAGED} {APP}")
    lines.append(_pairs("LABEL", ((name, f'"{value}"') for name, value in image_labels(recipe).items())))
    lines += [f"# {USER}, by number: Kubernetes' runAsNonRoot cannot tell who a name is.", f"USER {USER_BY_NUMBER}"]
    if recipe.port is not None and recipe.command:
        lines += [f"EXPOSE {recipe.port}", *_check(recipe, recipe.port, HEALTH_CLIENT in packages)]
    if recipe.command:
        if not known:
            lines += ["# The base's own, if it has one, was for another command.", "ENTRYPOINT []"]
            lines += [] if recipe.port is not None else ["HEALTHCHECK NONE"]
        lines.append(f"CMD {json.dumps(recipe.command)}")
    else:
        lines.append('# No application was found. Say what the container runs: CMD ["python", "-m", "..."]')
    return "\n".join(lines)


def _check(recipe: Recipe, port: int, curl: bool) -> list[str]:
    about = [] if recipe.health else ["# No route for a health check was found: any HTTP answer will do."]
    options = f"--interval={INTERVAL}s --timeout={TIMEOUT}s --start-period={START_PERIOD}s --retries={RETRIES}"
    return [*about, f"HEALTHCHECK {options} \\\n    CMD {json.dumps(health_words(recipe, port, curl=curl))}"]


def _pairs(instruction: str, pairs: Iterable[tuple[str, str]]) -> str:
    lines = " \\\n    ".join(f"{name}={value}" for name, value in pairs)
    return f"{instruction} {lines}"
