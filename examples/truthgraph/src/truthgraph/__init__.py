"""Checks claims against stored evidence."""

from importlib.metadata import version

__version__ = version("truthgraph")
