"""What lint says of a Dockerfile, or of an image made from a few words."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from deadweight.application.dockerfile import parse_dockerfile
from deadweight.build.lint.context import Context
from deadweight.build.lint.history import history
from deadweight.build.lint.measure import Measure
from deadweight.build.lint.subject import Subject, of_dockerfile, of_image
from deadweight.build.lint.table import Result, lint
from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger

HERE = Path(__file__).parents[1] / "unit" / "build"
REPORT = HERE / "report"
"""The Dockerfiles of the published report's history."""
GOOD = sorted((HERE / "good").glob("*.Dockerfile"))
"""Dockerfiles that are as they should be."""
CLEAN = "FROM python:3.12-slim\n{}\nUSER app\n"
"""One with nothing in it."""


def subject_of(text: str, folder: Path | None = None, image: Image | None = None, target: str | None = None) -> Subject:
    """A Dockerfile as lint looks at it."""
    built = None if image is None else (history(image), Measure(Ledger(image)))
    context = None if folder is None else Context(folder)
    return of_dockerfile("Dockerfile", parse_dockerfile(text), target, context, built)


def result_of(text: str, folder: Path | None = None, image: Image | None = None, target: str | None = None) -> Result:
    """What all rules say of a Dockerfile."""
    return lint(subject_of(text, folder, image, target))


def result_of_image(image: Image, only: Collection[str] = ()) -> Result:
    """What all rules say of an image alone."""
    return lint(of_image("image", history(image), Measure(Ledger(image))), only=only)


def found(text: str, folder: Path | None = None, target: str | None = None) -> list[tuple[int, str]]:
    """The lines and names of the rules that a Dockerfile breaks."""
    return [(one.finding.places[0].line, one.rule.name) for one in result_of(text, folder, None, target).found]


def lines(rule: str, text: str, folder: Path | None = None) -> list[int]:
    """The lines where a Dockerfile breaks a rule."""
    return [line for line, name in found(text, folder) if name == rule]


def costs(result: Result) -> dict[str, int | None]:
    """Bytes by rule; where a rule has several findings, the last one's."""
    return {one.rule.name: one.finding.bytes for one in result.found}
