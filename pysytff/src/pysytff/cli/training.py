"""preview and train: a model file and parameters to a decision, a run, and a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pysytff import keras
from pysytff.cli.output import AsJson, errors_explained, plain, show
from pysytff.cli.session import current
from pysytff.domain import Domain
from pysytff.errors import ParameterError
from pysytff.params import KINDS

_PANEL = "Parameters"
Model = Annotated[
    Path, typer.Option("--model", "-m", help="JSON: a model document, or Keras' model.to_json().", dir_okay=False)
]
Params = Annotated[
    Path | None, typer.Option("--params", "-p", help="JSON object of parameters; options go before it.", dir_okay=False)
]
Rounds = Annotated[int | None, typer.Option(help="Training rounds.", rich_help_panel=_PANEL)]
Clients = Annotated[int | None, typer.Option(help="Expected units in a round.", rich_help_panel=_PANEL)]
Noise = Annotated[float | None, typer.Option(help="Noise over clipping norm.", rich_help_panel=_PANEL)]
Pool = Annotated[int | None, typer.Option(help="Expected size of the run's pool.", rich_help_panel=_PANEL)]
Train = Annotated[
    str | None, typer.Option("--train-data", help="Asset id, or DATASET/ASSET by name.", rich_help_panel=_PANEL)
]
Labels = Annotated[
    str | None, typer.Option("--label-data", help="Asset id, or DATASET/ASSET by name.", rich_help_panel=_PANEL)
]
Project = Annotated[str | None, typer.Option(help="Project id or name.", rich_help_panel=_PANEL)]
Purpose = Annotated[str | None, typer.Option(help="What the training is for.", rich_help_panel=_PANEL)]
OnExceed = Annotated[str | None, typer.Option(help="clamp (default) or refuse.", rich_help_panel=_PANEL)]
Others = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other parameter; may be repeated.", rich_help_panel=_PANEL),
]


def preview(
    model: Model,
    params: Params = None,
    rounds: Rounds = None,
    clients_per_round: Clients = None,
    noise_multiplier: Noise = None,
    no_clients: Pool = None,
    train_data: Train = None,
    label_data: Labels = None,
    project: Project = None,
    purpose: Purpose = None,
    on_exceed: OnExceed = None,
    others: Others = None,
    as_json: AsJson = False,
) -> None:
    """Ask what would be decided and what it would cost. Nothing is recorded or charged.

    Ends with 0 if the request would be approved or clamped, with 3 if it would be refused.
    """
    with errors_explained(as_json=as_json):
        domain = current()
        given = _Given(locals())
        decision = domain.preview(_read_model(model), given.params(domain, params, others))
        show(decision, as_json=as_json)
        if not decision.allowed:
            raise typer.Exit(3)


def train(
    model: Model,
    params: Params = None,
    rounds: Rounds = None,
    clients_per_round: Clients = None,
    noise_multiplier: Noise = None,
    no_clients: Pool = None,
    train_data: Train = None,
    label_data: Labels = None,
    project: Project = None,
    purpose: Purpose = None,
    on_exceed: OnExceed = None,
    others: Others = None,
    watch: Annotated[bool, typer.Option(help="Wait for the end, or return once it is submitted.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most; the run goes on.", min=0.001)] = 5000,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the weights here (safetensors).")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Repeat an earlier call safely.")] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a training, wait for it, and show its metrics and privacy statement.

    Ends with 3 if it was refused, 5 if it still runs when the time is over.
    """
    with errors_explained(as_json=as_json):
        domain = current()
        given = _Given(locals())
        run = domain.submit(
            _read_model(model), given.params(domain, params, others), idempotency_key=idempotency_key, stacklevel=2
        )
        if not watch:
            show({"run_id": run.id, "decision": run.decision} if as_json else run.decision, as_json=as_json)
            return
        result = run.watch(timeout, progress=not as_json).result()
        write_result(result, output, as_json=as_json)


def write_result(result: Any, output: Path | None, *, as_json: bool) -> None:
    if output is not None:
        output.write_bytes(result.content)
    answer = {"run_id": result.run_id, "metrics": result.metrics, "privacy_statement": result.privacy}
    if output is not None:
        answer["weights"] = str(output)
    text = json.dumps(plain(answer), ensure_ascii=False, indent=2)
    show(answer if as_json else text, as_json=as_json)


class _Given:
    """The parameters that were given as options."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.values = {name: arguments[name] for name in KINDS if arguments.get(name) is not None}
        for option, name in (("train_data", "train_data_id"), ("label_data", "label_data_id")):
            if arguments[option] is not None:
                self.values[name] = arguments[option]

    def params(self, domain: Domain, path: Path | None, others: list[str] | None) -> dict[str, Any]:
        """File, then --set, then options; ids looked up where names were given."""
        params = _read_params(path) | dict(_assigned(item) for item in others or ()) | self.values
        for name in ("train_data_id", "label_data_id"):
            if isinstance(params.get(name), str) and "/" in params[name]:
                dataset, _, asset = params[name].rpartition("/")
                params[name] = domain.datasets[dataset][asset].id
        project = params.get("project")
        if isinstance(project, str) and not project.startswith("prj_"):
            params["project"] = domain.projects[project].id
        return params


def _read_model(path: Path) -> dict[str, Any]:
    return keras.to_document(path.read_text(encoding="utf-8"))


def _read_params(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        params = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ParameterError(
            [{"path": str(path), "message": f"is not JSON: {error}", "hint": "give an object"}]
        ) from None
    if not isinstance(params, dict):
        raise ParameterError([{"path": str(path), "message": "is no JSON object", "hint": 'such as {"rounds": 10}'}])
    return params


def _assigned(item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not equals:
        raise ParameterError([{"path": f"--set {item}", "message": "has no '='", "hint": "such as local_epochs=2"}])
    if KINDS.get(name) is str:
        return name, text
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text
