"""The command line ``pysytff``. Its commands are thin: each calls the SDK and shows the answer."""

from pysytff.cli.app import app, main

__all__ = ["app", "main"]
