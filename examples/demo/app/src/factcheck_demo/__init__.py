"""Stores claims and finds similar ones."""

__version__ = "1.2.0"
