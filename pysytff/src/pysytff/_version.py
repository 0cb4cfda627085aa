"""The version of this package, from its metadata."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("pysytff")
