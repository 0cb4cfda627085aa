"""login, logout, whoami: the command line's session."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pysytff.cli.output import AsJson, errors_explained, pairs, show
from pysytff.domain import Domain
from pysytff.errors import NotLoggedInError, UnreachableError
from pysytff.tokens import FileTokens
from pysytff.transport import DEFAULT_PORT, Transport, base_url


def current() -> Domain:
    """The domain of the stored session. Raises ``NotLoggedInError``."""
    keeper = FileTokens()
    transport = Transport(keeper.url)
    transport.keeper = keeper
    return Domain(transport)


def login(
    email: Annotated[str, typer.Option("--email", "-e", prompt=True, help="Your e-mail address on the node.")],
    url: Annotated[str | None, typer.Option(help="The node's address, such as https://node.example.")] = None,
    host: Annotated[str, typer.Option(help="The node's host, where no --url is given.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The node's port, where no --url is given.", min=1, max=65535)
    ] = DEFAULT_PORT,
    as_json: AsJson = False,
) -> None:
    """Log in to a node. The password is asked for, or read from the environment variable PYSYTFF_PASSWORD.

    It is never an argument, because arguments can be read by everybody on the machine. The session is stored in a file
    that only you can read; the password is not.
    """
    with errors_explained(as_json=as_json):
        transport = Transport(base_url(url, host, port))
        password = os.environ.get("PYSYTFF_PASSWORD") or str(typer.prompt("Password", hide_input=True, err=True))
        keeper = FileTokens()
        keeper.start(transport.url, email, transport.log_in(email, password))
        transport.keeper = keeper
        me = Domain(transport).me
        name = me.display_name or me.email
        show(me if as_json else f"Logged in to {transport.url} as {name} ({me.role}).", as_json=as_json)


def logout(as_json: AsJson = False) -> None:
    """End the session, here and on the node."""
    with errors_explained(as_json=as_json):
        told = True
        try:
            current().logout()
        except (NotLoggedInError, UnreachableError) as error:
            FileTokens().write(None)
            told = isinstance(error, NotLoggedInError)
        text = (
            "Logged out." if told else "Logged out here; the node could not be reached, so its session ends by itself."
        )
        show({"logged_out": True, "node_told": told} if as_json else text, as_json=as_json)


def whoami(as_json: AsJson = False) -> None:
    """Show who you are on which node."""
    with errors_explained(as_json=as_json):
        domain = current()
        values = {"node": domain.url, **domain.me.model_dump()}
        show(values if as_json else pairs("You", values), as_json=as_json)
