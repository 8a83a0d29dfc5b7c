"""`--sbom FORM=FILE|-`: a bill of materials beside a report."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from deadweight.cli.options import Documents
from deadweight.cli.output import STANDARD

if TYPE_CHECKING:
    from deadweight.apply import Applied
    from deadweight.image.reference import Reference
    from deadweight.ledger.ledger import Ledger
    from deadweight.sbom.model import Inventory

FORMS = ("cyclonedx", "spdx")


class SbomType(click.ParamType[tuple[str, str]]):
    """A form, and where the document goes: syft's way of saying it (`-o FORM=FILE`)."""

    name = "sbom"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """(form, file or -)."""
        form, equals, name = str(value).partition("=")
        if form not in FORMS:
            self.fail(f"{form!r} is no form of bills of materials: {' and '.join(FORMS)} are", param, ctx)
        if equals and not name:
            self.fail(f"name a file after {form}=, or -", param, ctx)
        return form, name or STANDARD

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """The forms; after a form, files."""
        form, equals, name = incomplete.partition("=")
        if equals and form in FORMS:
            return [CompletionItem(name, type="file")]
        return [CompletionItem(f"{each}=") for each in FORMS if each.startswith(incomplete)]


def sbom_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--sbom`; the documents that it asks for join the command's `documents`.

    It stands below the options for reports. Raises EnvironmentFailure where a form's library is missing, UsageError
    where a form is asked for twice.
    """

    @functools.wraps(function)
    def with_sboms(*arguments: Any, sbom: tuple[tuple[str, str], ...], documents: Documents, **options: Any) -> Any:
        from deadweight.errors import UsageError  # noqa: PLC0415
        from deadweight.sbom.libraries import need  # noqa: PLC0415

        for form, _ in sbom:
            need(form)
        if len(dict(sbom)) < len(sbom):
            raise UsageError("--sbom has one of its forms twice: each is written to one place")
        return function(*arguments, documents={**documents, **dict(sbom)}, **options)

    return click.option(
        "--sbom",
        multiple=True,
        type=SbomType(),
        metavar="FORM[=FILE|-]",
        help="Write a bill of materials: cyclonedx (1.6) or spdx (2.3), as JSON, to a file or alone to standard "
        "output. Of a slim image, with what was removed and modified marked.",
    )(with_sboms)


def asked(documents: Documents) -> bool:
    """Whether a bill of materials is among the documents."""
    return any(form in documents for form in FORMS)


def image_sboms(documents: Documents, ledger: Ledger) -> dict[str, Callable[[], bytes]]:
    """What gives `deliver` the bills of materials of an image, those that were asked for."""
    if not asked(documents):
        return {}
    from deadweight.sbom.inventory import inventory  # noqa: PLC0415

    return _makers(documents, inventory(ledger))


def original_inventory(documents: Documents, ledger: Ledger) -> Inventory | None:
    """The components of an image that is to be slimmed; None where nobody asks for them.

    Raises BadInputError, before there is a slim image, where they are too many.
    """
    if not asked(documents):
        return None
    from deadweight.sbom.inventory import inventory  # noqa: PLC0415

    return inventory(ledger)


def slim_sboms(
    documents: Documents, before: Inventory | None, ledger: Ledger, over: Ledger, applied: Applied, to: Reference
) -> dict[str, Callable[[], bytes]]:
    """The same of the slim image that was made at `to`; `before` is what `original_inventory` gave."""
    if before is None:
        return {}
    from deadweight.sbom.changes import slim_inventory  # noqa: PLC0415

    return _makers(documents, slim_inventory(before, ledger, over, applied, to))


def _makers(documents: Documents, found: Inventory) -> dict[str, Callable[[], bytes]]:
    from deadweight.sbom.document import document  # noqa: PLC0415

    return {form: functools.partial(document, form, found) for form in FORMS if form in documents}
