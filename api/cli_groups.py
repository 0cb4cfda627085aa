"""``pysytff-server policy | population | dataset | user``: what operators and owners do with a node that exists.

Invariants
- Commands that act on the node itself read its folder; commands that act for a person go over REST, as that person.

This module does not: do the work (``node.py``, ``owner.py``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from api.cli_common import DataDir, Url, ask_password, load_settings, out, plain
from api.errors import NodeError

policy = typer.Typer(help="Policies in Rego: check them, and put them in force.", no_args_is_help=True)
population = typer.Typer(help="Who is in several populations, as their owner.", no_args_is_help=True)
dataset = typer.Typer(help="Populations and datasets, as their owner.", no_args_is_help=True)
user = typer.Typer(help="The people of this node.", no_args_is_help=True)

PolicyFile = Annotated[Path, typer.Argument(help="Rego source of the package owners.<id>", exists=True, dir_okay=False)]
PolicyId = Annotated[str, typer.Option("--id", help="the policy's id, as datasets name it: a-z, 0-9, _")]


@policy.command("check")
def policy_check(file: PolicyFile, id: PolicyId) -> None:
    """Check an owner's policy as activation does: syntax, types against the input's schema, permitted builtins."""
    from api import node

    node.check_policy(id, file.read_text(encoding="utf-8"))
    out.print(f"{plain(str(file))}: fit to be activated as {id}")


@policy.command("activate")
def policy_activate(
    file: Annotated[
        Path | None,
        typer.Argument(help="Rego source; left out: the organisation's policies as they lie on disk", exists=True),
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="the policy's id, with FILE")] = None,
    data_dir: DataDir = None,
) -> None:
    """Put a policy in force. It is one entry in the ledger; a running node serves it within about a second."""
    from api import node

    if (file is None) != (id is None):
        raise NodeError("FILE and --id go together; without both, the organisation's policies are activated")
    policies = {id: file.read_text(encoding="utf-8")} if file and id else {}
    active = node.activate_policies(load_settings(data_dir), policies)
    out.print(f"in force: revision {active.revision}")


@policy.command("list")
def policy_list(data_dir: DataDir = None) -> None:
    """What is in force: each policy with the digest of its source."""
    from api import node

    active = node.policies_in_force(load_settings(data_dir))
    if active is None:
        out.print("nothing is in force, so every request is refused")
        return
    out.print(f"revision {active.revision}")
    for name, digest in sorted(active.digests.items()):
        out.print(f"  {name:<20} {digest}")


@user.command("invite")
def user_invite(
    email: Annotated[str, typer.Argument(help="e-mail address")],
    role: Annotated[str, typer.Option(help="owner, researcher, auditor or admin")],
    name: Annotated[str, typer.Option(help="name to show")] = "",
    data_dir: DataDir = None,
) -> None:
    """Invite somebody. The token that is printed is theirs to set a password with, once."""
    from api import node

    token, until = node.invite(load_settings(data_dir), email, role, name or email)
    out.print(f"invitation for {plain(email)} ({role}), good until {until}:\n  {token}")
    out.print("They accept it with POST /v1/users/accept, or: pysytff-server user accept")


@user.command("accept")
def user_accept(url: Url = None) -> None:
    """Accept an invitation: set a password with the token."""
    from api import owner

    token = typer.prompt("Invitation token")
    password = typer.prompt("Password (12 characters or more)", hide_input=True, confirmation_prompt=True)
    owner.accept(url or load_settings().own_url, token, password)
    out.print("accepted; log in with the e-mail address and this password")


@user.command("password")
def user_password(email: Annotated[str, typer.Argument(help="e-mail address")], data_dir: DataDir = None) -> None:
    """Give somebody a new random password, shown once. Their sessions end."""
    from api import node

    out.print(f"new password of {plain(email)}: {node.reset_password(load_settings(data_dir), email)}")


Email = Annotated[
    str, typer.Option("--email", help="the owner's e-mail address; the password is asked for", prompt=True)
]


@dataset.command("open-population")
def open_population(
    name: Annotated[str, typer.Argument(help="its name")],
    size: Annotated[int, typer.Option(help="how many people, as declared; rounded as you like")],
    epsilon: Annotated[float, typer.Option(help="the guarantee for its whole life; it never changes")],
    delta: Annotated[float, typer.Option(help="well below 1/size")],
    email: Email,
    relation: Annotated[
        str, typer.Option(help="ADD_OR_REMOVE_ONE, REPLACE_ONE or REPLACE_SPECIAL; it never changes")
    ] = "ADD_OR_REMOVE_ONE",
    planned_sampling: Annotated[
        float | None, typer.Option(help="clients per round over size that you expect; with --planned-noise")
    ] = None,
    planned_noise: Annotated[
        float | None, typer.Option(help="noise multiplier that you expect: the budget's weights are chosen for it")
    ] = None,
    url: Url = None,
) -> None:
    """Open a population: the people that one budget protects, for life."""
    from api import owner

    if (planned_sampling is None) != (planned_noise is None):
        raise typer.BadParameter("give --planned-sampling and --planned-noise together, or neither")
    planned = None
    if planned_sampling is not None:
        planned = {"sampling_probability": planned_sampling, "noise_multiplier": planned_noise}
    body = {"name": name, "declared_size": size, "epsilon": epsilon, "delta": delta, "relation": relation}
    with owner.Session(url or load_settings().own_url, email, ask_password(email)) as session:
        made = session.open_population(body | {"planned_use": planned})
    out.print(f"population {plain(name)}: {made['id']}")


@population.command("quota")
def population_quota(
    population_name: Annotated[str, typer.Argument(metavar="POPULATION", help="name or id of a population")],
    epsilon: Annotated[float, typer.Option(help="at most the population's own")],
    email: Email,
    project: Annotated[str | None, typer.Option(metavar="ID", help="bind this project")] = None,
    researcher: Annotated[str | None, typer.Option(metavar="ID", help="bind this researcher")] = None,
    initial: Annotated[float | None, typer.Option(help="unlock gradually: so much from the beginning")] = None,
    step: Annotated[float | None, typer.Option(help="so much more after every period")] = None,
    every_days: Annotated[int | None, typer.Option(help="length of a period")] = None,
    starts_at: Annotated[str | None, typer.Option(help="RFC 3339; default: now")] = None,
    url: Url = None,
) -> None:
    """Cap a project's or a researcher's share of a population, or, naming neither, what everybody has together.

    What was spent before counts. With --initial, --step and --every-days the cap is unlocked gradually: a window.
    """
    from api import owner

    if project is not None and researcher is not None:
        raise typer.BadParameter("name a project or a researcher, not both")
    given = [value is not None for value in (initial, step, every_days)]
    if (any(given) and not all(given)) or (starts_at is not None and not all(given)):
        raise typer.BadParameter("a schedule needs --initial, --step and --every-days")
    schedule = None
    if all(given):
        begins = starts_at or datetime.now(UTC).isoformat()
        schedule = {"starts_at": begins, "initial_epsilon": initial, "step_epsilon": step, "period_days": every_days}
    with owner.Session(url or load_settings().own_url, email, ask_password(email)) as session:
        population_id = session.population_id(population_name)
        scope, scope_id = ("population", population_id)
        if project is not None:
            scope, scope_id = ("project", project)
        elif researcher is not None:
            scope, scope_id = ("researcher", researcher)
        body = {"scope": scope, "scope_id": scope_id, "epsilon": epsilon, "schedule": schedule}
        made = session.set_quota(population_id, body)
    out.print(f"{made['scope']} {made['scope_id']}: at most ε = {made['epsilon']:g}")


@population.command("disjoint")
def population_disjoint(
    one: Annotated[str, typer.Argument(help="name or id of a population")],
    other: Annotated[str, typer.Argument(help="name or id of another")],
    email: Email,
    newest_only: Annotated[
        bool,
        typer.Option(
            "--newest-only",
            help="leave out versions that newer ones replaced (where an old release laid them out): who was only in "
            "those is not looked for",
        ),
    ] = False,
    url: Url = None,
    data_dir: DataDir = None,
) -> None:
    """Compare who is in two populations and, if nobody is in both, declare it: one request may then use both."""
    from api import owner, populations

    settings = load_settings(data_dir)
    with owner.Session(url or settings.own_url, email, ask_password(email)) as session:
        left_out = populations.declare_disjoint(settings, session, one, other, newest_only=newest_only)
    among = "nobody among the versions that were compared" if left_out else "nobody"
    out.print(f"{plain(one)} and {plain(other)} share {among}; declared")
    for handle in left_out:
        out.print(f"[yellow]not compared:[/] {plain(handle)}, which a newer version replaced")


@dataset.command("add")
def dataset_add(
    name: Annotated[str, typer.Argument(help="the dataset's name")],
    file: Annotated[Path, typer.Option(help="an .npz, .csv or .parquet file", exists=True, dir_okay=False)],
    unit_column: Annotated[str, typer.Option(help="the column that says whose row it is: who is protected")],
    assets: Annotated[Path, typer.Option(help="JSON: name, dtype, shape (and ranges) of each asset", exists=True)],
    population: Annotated[str, typer.Option(help="name or id of the population")],
    policy: Annotated[str, typer.Option(help="id of an active owner policy")],
    max_examples_per_unit: Annotated[int, typer.Option(min=1, help="a person's rows beyond it are left out")],
    email: Email,
    description: Annotated[str, typer.Option(help="what researchers read")] = "",
    holdout: Annotated[
        Path | None, typer.Option(help="public data of the same columns, for evaluation", exists=True)
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
) -> None:
    """Lay a file out under the node's data root, by privacy unit, and register it as its owner."""
    from api import owner

    settings = load_settings(data_dir)
    files = owner.DatasetFiles(file, unit_column, assets, max_examples_per_unit, holdout)
    with owner.Session(url or settings.own_url, email, ask_password(email)) as session:
        population_id = session.population_id(population)
        handle, holdout_handle = owner.lay_out(files, settings.data_root)
        made = session.register(name, description, population_id, policy, files, handle, holdout_handle)
    out.print(f"dataset {plain(name)}: {made['id']}")
