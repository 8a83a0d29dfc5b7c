"""Which kind a probe is of: the module of this room that its `kind` names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import msgspec

from deadweight.verify import spec
from deadweight.verify.probes import Kind

_MODULES: dict[type[msgspec.Struct], str] = {
    spec.ImportProbe: "imports",
    spec.RunProbe: "run",
    spec.AccuracyProbe: "accuracy",
    spec.ModelsProbe: "models",
    spec.HttpProbe: "http",
    spec.StartProbe: "start",
    spec.RoutesProbe: "routes",
    spec.AbsentProbe: "absent",
    spec.LibrariesProbe: "libraries",
    spec.SizeProbe: "size",
    spec.TestsProbe: "tests",
    spec.FileProbe: "file",
    spec.ConfigProbe: "config",
}


def kind_of(probe: Any) -> Kind:
    """The kind of a probe."""
    found = import_module(f"deadweight.verify.probes.{_MODULES[type(probe)]}").KIND
    assert isinstance(found, Kind)
    return found
