"""The command line: a thin skin over the library. One file for each command; heavy modules are imported inside."""

from deadweight.cli.main import main

__all__ = ["main"]
