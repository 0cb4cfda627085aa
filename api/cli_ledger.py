"""``pysytff-server ledger``: what operators do with the log.

This module does not: do the work (``node.py``).
"""

from __future__ import annotations

import typer

from api.cli_common import DataDir, load_settings, out, plain

ledger = typer.Typer(help="The log of this node: its keys and its state.", no_args_is_help=True)


@ledger.command("rotate-key")
def rotate_key(data_dir: DataDir = None) -> None:
    """Give the log a new signing key. Both sign the next checkpoint; after that the old one is destroyed."""
    from api import node

    found = node.rotate_log_key(load_settings(data_dir))
    out.print(f"in force from entry {found.index} on:\n  {plain(found.key.encode())}")
    out.print("Witnesses must learn it: pysytff-witness trust KEY. Auditors follow it from the old one by themselves.")
