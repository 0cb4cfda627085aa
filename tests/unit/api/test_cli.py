from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from api.cli import app

CHECKOUT = Path(__file__).resolve().parents[3]


def commands(group: object, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], TyperCommand]:
    assert isinstance(group, TyperGroup)
    found: dict[tuple[str, ...], TyperCommand] = {}
    for name, command in group.commands.items():
        if isinstance(command, TyperCommand):
            found[(*prefix, name)] = command
        else:
            found |= commands(command, (*prefix, name))
    return found


COMMANDS = commands(typer.main.get_command(app))


def test_the_commands_are_those_that_the_documents_name() -> None:
    names = {" ".join(path) for path in COMMANDS}

    assert {
        "init", "up", "serve", "runner", "migrate", "demo", "version",
        "policy activate", "policy check", "policy list",
        "dataset add", "dataset open-population", "population disjoint", "population quota",
        "ledger status", "ledger check", "ledger export", "ledger reconcile", "ledger resolve", "ledger rotate-key",
        "user invite", "user accept", "user password",
    } == names  # fmt: skip


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_every_command_and_every_option_explains_itself(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]

    assert command.help
    unexplained = [
        parameter.name
        for parameter in command.params
        if not getattr(parameter, "help", None) and not getattr(parameter, "hidden", False)
    ]
    assert [] == unexplained


def test_the_command_line_starts_without_loading_what_the_service_needs() -> None:
    heavy = ("sqlalchemy", "fastapi", "pydantic", "scipy", "dp_accounting", "tensorflow", "httpx")
    code = f"import sys, api.cli; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)

    assert ("[]\n", "") == (answer.stdout, answer.stderr)
