"""``pysytff-witness``: an independent process that cosigns a log's checkpoints, so that a rewritten log is found.

Invariants
- It shares nothing with the node: its own folder, its own key, no database.
- It listens on loopback unless told otherwise, answers ``POST /add-checkpoint`` and nothing else, and reads no more
  than a note may have.

This module does not: decide (``witness_state.py``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api import witness_state
from api.cli_common import err, out, plain
from api.errors import OperatorError
from governance.ledger.notes import MAX_NOTE_BYTES

if TYPE_CHECKING:
    from fastapi import FastAPI

app = typer.Typer(
    name="pysytff-witness",
    help="A witness of ledgers: cosigns checkpoints that continue what it cosigned before (c2sp.org/tlog-witness).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Folder = Annotated[Path, typer.Option("--dir", help="the witness's folder", envvar="PYSYTFF_WITNESS_DIR")]
DEFAULT = Path("pysytff-witness")


def main() -> None:
    """Entry point. Turns what went wrong into one line and a status."""
    try:
        app()
    except (OperatorError, OSError) as error:
        err.print(f"[bold red]error:[/] {plain(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def init(
    name: Annotated[str, typer.Option(help="its name, for example witness.example.org/w1: no spaces, no plus sign")],
    log: Annotated[list[str] | None, typer.Option(help="verifier key of a log to cosign; may be repeated")] = None,
    folder: Folder = DEFAULT,
) -> None:
    """Make a witness: a key and a folder. Prints the verifier key, which the log and its auditors need."""
    key = witness_state.init(folder, name)
    for text in log or ():
        witness_state.trust(folder, text)
    out.print(plain(key.encode()))


@app.command()
def trust(log: Annotated[str, typer.Argument(help="verifier key of a log")], folder: Folder = DEFAULT) -> None:
    """Cosign this log too, or this log's new key after a rotation. A running witness heeds it at once."""
    key = witness_state.trust(folder, log)
    out.print(f"trusts {plain(key.name)} ({key.key_id.hex()})")


@app.command()
def show(folder: Folder = DEFAULT) -> None:
    """The witness's key, and what it cosigned last of each log."""
    key, logs = witness_state.show(folder)
    out.print(plain(key.encode()))
    for log, checkpoint in logs:
        out.print(f"  {plain(log.encode())}\n    {checkpoint.size} entries, root {checkpoint.root.hex()}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any free one")] = 8089,
    folder: Folder = DEFAULT,
) -> None:
    """Answer checkpoints until Ctrl-C."""
    import socket

    import uvicorn

    witness = witness_state.Witness(folder)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            out.print(f"{plain(witness.key.encode())}\nlistens on {host} port {listener.getsockname()[1]}")
            config = uvicorn.Config(application(witness), log_level="warning", access_log=False, server_header=False)
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        witness.close()


def application(witness: witness_state.Witness) -> FastAPI:
    import anyio.to_thread
    from fastapi import FastAPI, Request, Response

    service = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_NOTE_BYTES:
                return Response("the request is too large\n", 413, media_type=witness_state.TEXT_TYPE)
        answer = await anyio.to_thread.run_sync(witness.add_checkpoint, body)
        return Response(answer.text, answer.status, headers={"Content-Type": answer.media_type})

    # With its types in hand: this function's imports are not the module's, where FastAPI looks names up.
    add_checkpoint.__annotations__ = {"request": Request, "return": Response}
    service.add_api_route("/add-checkpoint", add_checkpoint, methods=["POST"], response_model=None)
    return service


if __name__ == "__main__":
    main()
