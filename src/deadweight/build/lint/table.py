"""All rules, and one function that applies them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from deadweight.build.lint import caches, compilers, copies, dev, failures, order, repeated, serving, strip
from deadweight.build.lint.model import Finding, Rule
from deadweight.build.lint.subject import Subject
from deadweight.errors import UsageError, shown

_MODULES = (compilers, copies, dev, strip, failures, caches, serving, repeated, order)
RULES: tuple[Rule, ...] = tuple(rule for module in _MODULES for rule in module.RULES)
"""In the order in which `--list` shows them."""
_IGNORE = re.compile(r"#\s*deadweight\s+ignore=([\w,-]+)")


@dataclass(frozen=True)
class Found:
    """A rule with one of its findings."""

    rule: Rule
    finding: Finding


@dataclass(frozen=True)
class Result:
    """What all rules found."""

    found: tuple[Found, ...]
    ignored: int
    """Findings that a comment says are meant."""
    unknown: tuple[str, ...]
    """Names in such comments that are no rule's."""


def check_names(names: Collection[str]) -> None:
    """Raises UsageError for the first that is no rule's."""
    for name in names:
        if name not in [rule.name for rule in RULES]:
            raise UsageError(f"there is no rule {shown(name)}; `deadweight lint --list` lists them")


def lint(
    subject: Subject,
    skip: Collection[str] = (),
    only: Collection[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """The findings of all rules, or of `only` these, less `skip`, by line. Raises UsageError for no rule's name."""
    check_names((*skip, *only))
    names = [rule.name for rule in RULES]
    wanted = [rule for rule in RULES if rule.name not in skip and (not only or rule.name in only)]
    found: list[Found] = []
    ignored = 0
    for number, rule in enumerate(wanted):
        if progress is not None:
            progress(f"looking for {rule.name}", number, len(wanted))
        for finding in rule.check(subject):
            if rule.name in _meant(finding.comments):
                ignored += 1
            else:
                found.append(Found(rule, replace(finding, severity=finding.severity or rule.severity)))
    found.sort(key=lambda one: (one.finding.places[0].line, names.index(one.rule.name)))
    unknown = dict.fromkeys(
        name for step in subject.steps for name in _meant(step.instruction.comments) if name not in names
    )
    return Result(tuple(found), ignored, tuple(unknown))


def _meant(comments: Iterable[str]) -> list[str]:
    return [name for comment in comments if (match := _IGNORE.match(comment)) for name in match[1].split(",") if name]
