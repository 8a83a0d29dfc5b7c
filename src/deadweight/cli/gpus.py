"""`deadweight gpus`: the GPUs that have names."""

from __future__ import annotations

import click

from deadweight.cli.options import Documents, json_option
from deadweight.cli.output import check_outputs, deliver


@click.command("gpus")
@json_option
def gpus_command(documents: Documents) -> None:
    """List the GPUs that can be named, and their architectures.

    Spaces, dashes, capitals and NVIDIA's prefixes do not matter: "NVIDIA GeForce RTX 4090" is rtx4090. A GPU that is
    not listed is named by its compute capability, as sm_90 or 9.0.

    \b
    Examples:
      deadweight gpus
      deadweight gpus --json - | jq -r '.gpus[] | select(.sm == "sm_90").name'
    """
    from deadweight.binary.gpu import products  # noqa: PLC0415
    from deadweight.report.gpus import GpuName, GpusReport, print_gpus  # noqa: PLC0415

    check_outputs(documents.values(), [])
    gpus = [GpuName(gpu.name, gpu.title, gpu.generation, f"sm_{gpu.sm}") for gpu in products()]
    found = GpusReport(gpus)
    deliver(found, documents, lambda console: print_gpus(console, found))
