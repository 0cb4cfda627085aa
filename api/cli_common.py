"""What the modules of the command line share: consoles, options, and reading the settings late."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape as plain

__all__ = ["DataDir", "Url", "ask_password", "err", "load_settings", "out", "plain"]

if TYPE_CHECKING:
    from api.settings import Settings

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="the node's folder [env: PYSYTFF_DATA_DIR; default: ./pysytff-data]")
]
Url = Annotated[str | None, typer.Option("--url", help="the node's address; default: the node on this machine")]


def ask_password(email: str) -> str:
    """From PYSYTFF_PASSWORD, or asked for: on a command line every user of the machine could read it."""
    answer: str = os.environ.get("PYSYTFF_PASSWORD") or typer.prompt(f"Password of {email}", hide_input=True)
    return answer


def load_settings(data_dir: Path | None = None, host: str | None = None, port: int | None = None) -> Settings:
    from api import settings

    return settings.load(data_dir=data_dir, host=host, port=port)
