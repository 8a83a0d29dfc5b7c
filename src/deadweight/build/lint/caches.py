"""The rule about caches that a layer keeps: of apt, apk, dnf, pip, uv, poetry, conda, npm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deadweight.build.lint.measure import SMALL
from deadweight.build.lint.model import Finding, Rule
from deadweight.build.lint.steps import Install, Tool
from deadweight.build.lint.subject import Step, Subject

_LARGE = 10_000_000
_FALSE = frozenset({"", "0", "false", "no", "off"})


class _Cache(NamedTuple):
    """What a tool leaves."""

    what: str
    places: tuple[str, ...]
    """Where; a cache mount over one of them keeps it out of the layer."""
    options: tuple[str, ...]
    """That leave none."""
    variables: tuple[str, ...]
    """That, set, leave none."""
    cleaned: tuple[str, ...]
    """What a command that cleans says, beside `rm` of a place."""


_PIP = _Cache(
    "pip's cache",
    ("/root/.cache/pip", "~/.cache", "$HOME/.cache", "/root/.cache", "/home/*/.cache/pip"),
    ("--no-cache-dir", "--no-cache"),  # options may be shortened
    ("PIP_NO_CACHE_DIR",),
    ("pip cache purge", "pip3 cache purge"),
)
_UV = _Cache(
    "uv's cache",
    ("/root/.cache/uv", "~/.cache", "$HOME/.cache", "/root/.cache"),
    ("--no-cache", "-n", "--no-cache-dir"),
    ("UV_NO_CACHE",),
    ("uv cache clean", "uv cache prune"),
)
_CACHES: dict[Tool, _Cache] = {
    "apt": _Cache("apt's package lists", ("/var/lib/apt/lists", "/var/lib/apt"), (), (), ("apt-get dist-clean",)),
    "apk": _Cache("apk's index", ("/var/cache/apk", "/etc/apk/cache"), ("--no-cache",), (), ("apk cache clean",)),
    "dnf": _Cache(
        "dnf's cache",
        ("/var/cache/dnf", "/var/cache/yum", "/var/cache/libdnf5"),
        (),
        (),
        ("dnf clean", "yum clean", "microdnf clean", "zypper clean"),
    ),
    "pip": _PIP,
    "uv-pip": _UV,
    "uv-sync": _UV,
    "poetry": _Cache(
        "poetry's cache",
        ("/root/.cache/pypoetry", "~/.cache", "$HOME/.cache", "/root/.cache", "$POETRY_CACHE_DIR", "/tmp/poetry_cache"),  # noqa: S108
        ("--no-cache",),
        ("POETRY_NO_CACHE",),
        ("poetry cache clear",),
    ),
    "conda": _Cache(
        "conda's packages",
        ("/opt/conda/pkgs", "/root/.conda/pkgs", "/opt/miniconda3/pkgs", "/root/micromamba/pkgs"),
        (),
        (),
        ("conda clean", "mamba clean", "micromamba clean"),
    ),
    "npm": _Cache("npm's cache", ("/root/.npm", "~/.npm"), (), (), ("npm cache clean", "yarn cache clean")),
}
_PLACES = {"uv-pip": "UV_CACHE_DIR", "uv-sync": "UV_CACHE_DIR", "pip": "PIP_CACHE_DIR", "poetry": "POETRY_CACHE_DIR"}


def _caches(subject: Subject) -> Iterator[Finding]:
    for step in subject.steps:
        charges = subject.cuts("caches", step)
        if charges is not None and sum(charge.bytes for charge in charges) < SMALL:
            continue
        kept: dict[str, Install] = {}
        for install in step.installs:
            cache = _CACHES.get(install.tool)
            if cache is not None and not _clean(step, install, cache):
                kept.setdefault(cache.what, install)
        if kept:
            what = (
                f"{' and '.join(kept)} {'stays' if _singular(kept) else 'stay'} in the layer{subject.inherited(step)}"
            )
            first = min(kept.values(), key=lambda one: one.command.line)
            yield subject.finding(step, what, command=first.command, charges=charges)
        elif charges and (size := sum(charge.bytes for charge in charges)) >= 10 * SMALL:
            # Nothing that the RUN says is wrong, and logs and dpkg's backups take some of it anyway.
            what = f"caches, logs or temporary files stay in the layer{subject.inherited(step)}"
            severity = "error" if size >= _LARGE else "warning"
            yield subject.finding(step, what, charges=charges, severity=severity)


def _singular(kept: dict[str, Install]) -> bool:
    return len(kept) == 1 and not next(iter(kept)).endswith(("lists", "packages"))


def _clean(step: Step, install: Install, cache: _Cache) -> bool:
    """Whether a RUN leaves nothing of a cache."""
    environment = dict(step.environment)
    for command in step.commands:
        environment.update(command.assignments)
        if command.program == "export":
            environment.update(word.partition("=")[::2] for word in command.words[1:] if "=" in word)
    if install.options.intersection(cache.options):
        return True
    if any(environment.get(name, "").lower() not in _FALSE for name in cache.variables):
        return True
    places = list(cache.places)
    moved = environment.get(_PLACES.get(install.tool, ""), "")
    if moved:
        places.insert(0, moved)
    if step.cached(*(place for place in places if place.startswith("/"))):
        return True
    for command in step.commands:
        words = " ".join((command.program, *command.argv[1:]))
        if any(words.startswith(text) for text in cache.cleaned):
            return True
        removes = command.program == "rm" or (command.program == "find" and "-delete" in words)
        if removes and any(_covers(word, place) for word in command.words[1:] for place in places):
            return True
    return False


def _covers(word: str, place: str) -> bool:
    """Whether removing `word` removes what is in `place`."""
    clean = word.rstrip("/").removesuffix("/*").removesuffix("/*.*").rstrip("/")
    return bool(clean) and (place == clean or place.startswith(clean + "/"))


RULES = (
    Rule(
        "cache-left-in-layer",
        "error",
        "a package manager's cache stays in the layer that filled it",
        "a later RUN that cleans it only hides it: the bytes are in this layer, and in every pull",
        "clean in the same RUN (rm -rf /var/lib/apt/lists/*, pip install --no-cache-dir), or mount the cache: "
        "RUN --mount=type=cache,target=/root/.cache",
        _caches,
    ),
)
