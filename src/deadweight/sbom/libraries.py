"""The forms of bills of materials, and what writes them: an optional extra, so that it is asked for before any work."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from deadweight.errors import EnvironmentFailure

FORMS: Final = {"cyclonedx": ("cyclonedx", "packageurl"), "spdx": ("spdx_tools", "license_expression", "packageurl")}
"""The modules that each form needs."""


def need(form: str) -> None:
    """Raises EnvironmentFailure where a form cannot be written, since its libraries are not installed."""
    if not all(map(find_spec, FORMS[form])):
        raise EnvironmentFailure(
            f"a bill of materials in the form {form} needs libraries that are not installed: "
            "pip install 'deadweight[sbom]'; or leave --sbom out"
        )
