"""Debian packages that Python distributions need: the rules of system.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources

COMPILERS = ("gcc", "g++", "libc6-dev")
"""What installing needs where a distribution has no wheel: in the builder stage, which is no part of the image."""
HEALTH_CLIENT = "curl"


@dataclass(frozen=True)
class Rule:
    """Packages that some distributions need."""

    when: frozenset[str]
    unless: frozenset[str]
    packages: tuple[str, ...]
    build: tuple[str, ...]
    why: str


@cache
def rules() -> tuple[Rule, ...]:
    """All rules."""
    text = resources.files(__package__).joinpath("system.toml").read_text("utf-8")
    return tuple(
        Rule(
            frozenset(one["when"]),
            frozenset(one.get("unless", ())),
            tuple(one["packages"]),
            tuple(one.get("build", ())),
            one["why"],
        )
        for one in tomllib.loads(text)["rule"]
    )


def system_packages(names: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """(packages for the running service, each with the reason; packages for installing) of these distributions."""
    running: dict[str, str] = {}
    building: list[str] = list(COMPILERS)
    for rule in rules():
        for name in sorted(rule.when & set(names)) if not rule.unless & set(names) else ():
            for package in rule.packages:
                running.setdefault(package, f"{name} {rule.why}")
            building += [package for package in rule.build if package not in building]
    return running, tuple(building)
