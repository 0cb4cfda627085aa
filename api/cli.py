"""The command line of a node: ``pysytff-server``.

Invariants
- Starting it is quick: each command imports what it needs when it runs.
- Whatever a person can do wrong ends in one line on stderr and status 1 (2 for wrong options), never in a traceback.

This module does not: do the work (``node.py``, ``up.py``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api import cli_groups, cli_ledger
from api.cli_common import DataDir, err, load_settings, out, plain
from api.errors import NodeError, OperatorError
from governance.errors import GovernanceError, InvalidRequestError

if TYPE_CHECKING:
    from api.settings import Settings

app = typer.Typer(
    name="pysytff-server",
    help="A PySyTFF node: the policy and privacy-budget gate in front of TensorFlow Federated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_groups.policy, name="policy")
app.add_typer(cli_groups.population, name="population")
app.add_typer(cli_groups.dataset, name="dataset")
app.add_typer(cli_groups.user, name="user")
app.add_typer(cli_ledger.ledger, name="ledger")

Host = Annotated[str | None, typer.Option(help="address to listen on [env: PYSYTFF_HOST; default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="port to listen on; 0: any free one [env: PYSYTFF_PORT; default: 8081]")]
DEMO_DATA_DIR = Path("pysytff-data-demo")
DEFAULT_ADMIN = "admin@localhost"


def main() -> None:
    """Entry point. Turns what went wrong into one line and a status."""
    try:
        app()
    except GovernanceError as error:
        problems = error.problems if isinstance(error, InvalidRequestError) else ()
        listed = [": ".join(p[k] for k in ("path", "message", "hint") if p.get(k)) for p in problems]
        _fail("\n  ".join([error.detail, *listed]))
    except OperatorError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(text: str) -> None:
    err.print(f"[bold red]error:[/] {plain(text)}")
    sys.exit(1)


def _tell(name: str, text: str) -> None:
    out.print(f"[bold]{name:<14}[/] {plain(text)}")


@app.command()
def init(
    email: Annotated[str | None, typer.Option(help="the first admin's e-mail address; asked for if left out")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a node: folder, secrets, database, first admin (the password is shown once), the organisation's policies."""
    _create(load_settings(data_dir), email)


def _create(settings: Settings, email: str | None, *, demo: bool = False) -> None:
    from api import node

    if node.exists(settings):
        raise NodeError(f"{settings.data_dir} holds a node already, and it stays as it is")
    if email is None:
        email = typer.prompt("E-mail address of the first admin", default=DEFAULT_ADMIN) if _asks() else DEFAULT_ADMIN
    admin = node.create(settings, email, demo=demo)
    out.print(f"Made a node at {plain(str(settings.data_dir))}")
    if not demo:
        out.print(
            f"  admin     {plain(admin.email)}\n  password  {admin.password}   [dim](shown this once; keep it)[/]"
        )


def _asks() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    init: Annotated[bool, typer.Option("--init", help="make the node first, if there is none")] = False,
    email: Annotated[str | None, typer.Option(help="with --init: the first admin's e-mail address")] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="the notebook's node: known passwords, on loopback only, in a folder of its own"),
    ] = False,
) -> None:
    """Run the node: policy engine, API and runner, until Ctrl-C. Whichever ends first, all end."""
    from api import node
    from api import up as processes

    if demo and data_dir is None and not os.environ.get("PYSYTFF_DATA_DIR"):
        data_dir = DEMO_DATA_DIR
    settings = load_settings(data_dir, host, port)
    if (demo or node.is_demo(settings)) and not settings.on_loopback:
        raise NodeError(f"a demo node has passwords that everybody knows: it listens on loopback, not {settings.host}")
    if demo and node.exists(settings) and not node.is_demo(settings):
        raise NodeError(f"{settings.data_dir} is no demo node; choose another folder with --data-dir")
    if (init or demo) and not node.exists(settings):
        _create(settings, email, demo=demo)
    if demo:
        _seed(settings)
    processes.up(settings, _tell)


def _seed(settings: Settings) -> None:
    """The demo's people, population and dataset, where they are not there yet."""
    from importlib import import_module

    from api import node

    node.require(settings)
    demo = import_module("examples.digits.seed")  # outside the wheel, so it is looked for only when it is asked for
    demo.seed(settings)
    out.print(f"Everybody's password here is {demo.PASSWORD}:")
    for address, role in demo.PEOPLE.items():
        out.print(f"  {role.value:<11}{plain(address)}")


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    descriptor: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the API without a runner, with the policy engine at PYSYTFF_OPA_URL or else with one as its child."""
    from api import node
    from api import up as processes

    settings = load_settings(data_dir, host, port)
    if settings.opa_url is None:
        processes.up(settings, _tell, with_runner=False)
        return
    from api import serving

    node.require(settings)
    listener = serving.inherited(descriptor) if descriptor is not None else processes.listen(settings)
    serving.serve(settings, listener)


@app.command()
def runner(data_dir: DataDir = None) -> None:
    """Run a runner, for the API at PYSYTFF_API_URL with the credential in PYSYTFF_RUNNER_CREDENTIAL_FILE."""
    from api import up as processes

    processes.run_runner(load_settings(data_dir))


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to this release. Back it up first."""
    from migrations.run import upgrade

    upgrade(load_settings(data_dir).database_url)
    out.print("the database is of this release")


@app.command()
def demo() -> None:
    """The whole story on real data, in a folder that is removed afterwards."""
    from api import up as processes

    processes.checkout_module("examples.digits")


@app.command()
def version() -> None:
    """This release, its Python, and the OPA that it finds."""
    import platform
    from importlib import metadata

    from governance.errors import GovernanceError
    from governance.policy import locate

    out.print(f"pysytff-server {metadata.version('pysytff-server')}, Python {platform.python_version()}")
    try:
        out.print(f"OPA: {locate.find_opa()}")
    except GovernanceError as error:
        out.print(f"OPA: {plain(error.detail)}")


if __name__ == "__main__":
    main()
