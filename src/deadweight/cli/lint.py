"""`deadweight lint`: the mistakes in a Dockerfile, or in an image's history, that make it heavy."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deadweight.cli.common import opened
from deadweight.cli.options import Documents, platform_option, report_options
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress

if TYPE_CHECKING:
    from deadweight.build.lint.subject import Subject
    from deadweight.cli.progress import Report
    from deadweight.report.model import ImageLine


@click.command("lint")
@click.argument("target", metavar="DOCKERFILE|IMAGE", required=False)
@click.option("--image", metavar="IMAGE", help="The image that was built of the Dockerfile: says what each line costs.")
@click.option(
    "--context",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="The build context.  [default: the Dockerfile's directory, or the one above, if it has what COPY names]",
)
@click.option("--target", "stage", metavar="STAGE", help="The stage that is built.  [default: the last]")
@click.option("--only", multiple=True, metavar="RULE", help="Look for this alone.")
@click.option("--skip", multiple=True, metavar="RULE", help="Do not look for this.")
@click.option("--strict", is_flag=True, help="Exit with status 1 for warnings, too.")
@click.option("--list", "list_rules", is_flag=True, help="List the rules.")
@report_options
@platform_option
@click.pass_context
def lint_command(
    context: click.Context,
    target: str | None,
    image: str | None,
    folder: str | None,
    stage: str | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    strict: bool,
    list_rules: bool,
    documents: Documents,
    platform: str | None,
) -> None:
    """Find the mistakes in a DOCKERFILE, or in the history of an IMAGE, that make images heavy.

    Each is named with its line and with what it costs: to the byte where there is an image, of the build context's
    files where only these are there, and otherwise not at all. An image's lines are the entries of its history.

    A comment above an instruction, `# deadweight ignore=RULE,...`, says that it is meant. The exit status is 1 where
    there is an error (with --strict: or a warning), 3 where the Dockerfile or the image cannot be read.

    \b
    Examples:
      deadweight lint Dockerfile
      deadweight lint Dockerfile --image docker-archive:service.tar
      deadweight lint docker-archive:service.tar
      deadweight lint - --context . --target runtime < Dockerfile
      deadweight lint Dockerfile --strict --skip runs-as-root --json lint.json
    """
    from deadweight.build.lint.table import RULES, check_names, lint  # noqa: PLC0415
    from deadweight.errors import UsageError  # noqa: PLC0415
    from deadweight.report.lint import lint_report, print_lint, print_rules, rules_report  # noqa: PLC0415

    if list_rules:
        check_outputs(documents.values(), [])
        rules = rules_report(RULES)
        deliver(rules, documents, lambda console: print_rules(console, rules))
        return
    if target is None:
        raise UsageError("say which Dockerfile or image to look at: deadweight lint Dockerfile")
    check_names((*skip, *only))
    check_outputs(documents.values(), [target, image])
    with ExitStack() as stack:
        report = stack.enter_context(progress(f"reading {target}"))
        subject, line = _subject(stack, report, target, image, folder, stage, platform)
        found = lint_report(subject, lint(subject, skip, only, report), line)
    deliver(found, documents, lambda console: print_lint(console, found))
    context.exit(1 if found.errors or (strict and found.warnings) else 0)


def _subject(
    stack: ExitStack,
    report: Report | None,
    target: str,
    image: str | None,
    folder: str | None,
    stage: str | None,
    platform: str | None,
) -> tuple[Subject, ImageLine | None]:
    from deadweight.build.lint.history import history  # noqa: PLC0415
    from deadweight.build.lint.measure import Measure  # noqa: PLC0415
    from deadweight.build.lint.sniff import context_of, read_dockerfile  # noqa: PLC0415
    from deadweight.build.lint.subject import of_dockerfile, of_image  # noqa: PLC0415
    from deadweight.errors import UsageError  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.identity import image_line  # noqa: PLC0415
    from deadweight.report.lint import HISTORY  # noqa: PLC0415

    dockerfile = read_dockerfile(target)
    if dockerfile is None:
        if image or folder or stage:
            raise UsageError("--image, --context and --target go with a Dockerfile: this is an image")
        source = stack.enter_context(opened(target, platform, report))
        return of_image(f"{target}{HISTORY}", history(source), Measure(Ledger(source), report)), image_line(source)
    context = context_of(target, dockerfile, None if folder is None else Path(folder))
    built = None
    line = None
    if image is not None:
        source = stack.enter_context(opened(image, platform, report))
        built = history(source), Measure(Ledger(source), report)
        line = image_line(source)
    return of_dockerfile(target, dockerfile, stage, context, built), line
