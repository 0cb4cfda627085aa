"""The whole story in one run: a researcher is governed, a model is trained, the owner watches, the auditor recomputes.

Invariants
- Every number that is shown comes from this run: nothing is written down beforehand.
- The node is a real one in a folder of its own; it ends with this process, whatever happens.
"""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import pysytff as sy
from examples.digits import seed
from governance.ledger.verify import Known, Report, verify
from pysytff.errors import RequestRefusedError
from pysytff.models import Decision, LedgerEntry

LEAST_ACCURACY, LARGEST_EPSILON = 0.90, 8.0  # what this demo is held to

# Softmax regression; chosen on public knowledge about the digits, not on this population.
USEFUL: Mapping[str, Any] = {
    "rounds": 100,
    "clients_per_round": 60,
    "noise_multiplier": 2.0,
    "clipping_norm": 0.3,
    "client_learning_rate": 2.0,
    "server_momentum": 0.9,
    "purpose": "research: reading handwritten digits",
}


def small_model() -> Any:
    """Built here, in the researcher's process; it travels as a document."""
    import tensorflow as tf

    return tf.keras.models.Sequential(
        [tf.keras.layers.Flatten(input_shape=(8, 8, 1)), tf.keras.layers.Dense(10, activation="softmax")]
    )


class Demo:
    def __init__(self, url: str, console: Console) -> None:
        self._url = url
        self._console = console
        self._rows: list[tuple[str, Decision]] = []

    def run(self) -> bool:
        """Whether the model that came out is as useful and as private as it should be."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with self._as(seed.RESEARCHER) as sam:
            reached = self._researcher(sam)
        with self._as(seed.OWNER) as owner:
            self._heading("The owner watches spending")
            self._console.print(_budget(owner))
        with self._as(seed.AUDITOR) as auditor:
            agrees = self._auditor(auditor)
        return reached and agrees

    def _as(self, email: str) -> sy.Domain:
        return sy.login(email=email, password=seed.PASSWORD, url=self._url)

    # --- researcher ------------------------------------------------------------------------------------------------

    def _researcher(self, sam: sy.Domain) -> bool:
        self._heading("The researcher sees metadata, never rows")
        dataset = sam.datasets[0]
        self._console.print(dataset)
        columns = {
            "train_data_id": dataset["images"].id_at_location.to_string(),
            "label_data_id": dataset["labels"].id_at_location.to_string(),
        }
        preview = sam.preview(small_model, {**columns, **USEFUL})
        if preview.cost is not None:
            self._console.print(
                f"A preview costs nothing: this run would be {preview.outcome}, at ε = "
                f"{preview.cost.epsilon_of_run_alone:.2f} by itself (δ = {preview.cost.delta:g})."
            )
        self._heading("Approved: training, with one silo for each person")
        model, metrics = self._train(sam, "approved", {**columns, **USEFUL})
        self._heading("The announcement's own parameters: noise 0.05, 2 of 3 clients")
        asked = {"rounds": 10, "no_clients": 3, "noise_multiplier": 0.05, "clients_per_round": 2}
        self._train(sam, "clamped", {**columns, **asked, "purpose": "research: the announcement's notebook"})
        self._heading("Refused")
        self._refused(sam, "refused by policy", {**columns, **USEFUL, "purpose": "marketing by handwriting"})
        self._refused(
            sam, "refused by budget", {**columns, **USEFUL, "max_noise_multiplier": 2.0, "clipping_norm": 1.0}
        )
        self._heading("Requested → effective")
        self._console.print(self._decisions())
        return self._judge(model, metrics)

    def _train(self, sam: sy.Domain, label: str, params: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            run = sam.submit(small_model, params)
        for warning in told:
            self._console.print(f"[yellow]{warning.message}[/yellow]", highlight=False)
        self._rows.append((label, run.decision))
        result = run.watch(timeout=900).result()
        return result.load_into(small_model()), {**result.metrics, "privacy": result.privacy}

    def _refused(self, sam: sy.Domain, label: str, params: Mapping[str, Any]) -> None:
        """Refused as it should be; an approval here would be a fault of the node, and ends the demo."""
        fixed = {**params, "on_exceed": "refuse"} if "budget" in label else params
        try:
            sam.submit(small_model, fixed)
        except RequestRefusedError as error:
            if error.decision is None:
                raise
            self._rows.append((label, error.decision))
            self._console.print(str(error), highlight=False, markup=False)
            return
        raise RuntimeError(f"a request that should have been {label} was let through")

    def _decisions(self) -> Table:
        table = _table("", "outcome", "rounds", "clients", "noise multiplier", "reasons")
        for label, decision in self._rows:
            effective = decision.effective or {}
            cells = [
                _arrow(decision.requested[name], effective.get(name))
                for name in ("rounds", "clients_per_round", "noise_multiplier")
            ]
            reasons = [f"{reason.code} ({reason.source})" for reason in decision.reasons]
            if effective:
                reasons = [f"{clamp.parameter}: {clamp.by}" for clamp in decision.clamps]
            table.add_row(label, str(decision.outcome), *cells, "\n".join(reasons))
        return table

    def _judge(self, model: Any, metrics: Mapping[str, Any]) -> bool:
        statement = metrics["privacy"]
        epsilon, accuracy = statement["this_run"]["epsilon"], metrics["holdout_accuracy"]
        self._heading("The model, its metrics and its privacy statement")
        table = _table("", "value")
        table.add_row("parameters", str(model.count_params()))
        table.add_row("accuracy on the public hold-out", f"{accuracy:.3f}")
        table.add_row("ε of this run by itself (RDP)", f"{epsilon:.2f} at δ = {statement['this_run']['delta']:g}")
        guarantee = statement["population_guarantee"]
        table.add_row(
            "guarantee to the people, for life", f"ε ≤ {guarantee['epsilon']:g} at δ = {guarantee['delta']:g}"
        )
        table.add_row("protected", statement["privacy_unit"])
        self._console.print(table)
        good = bool(accuracy >= LEAST_ACCURACY and epsilon <= LARGEST_EPSILON)
        if not good:
            self._console.print(
                f"[red]Not useful enough: at least {LEAST_ACCURACY} at ε ≤ {LARGEST_EPSILON:g} is expected.[/red]"
            )
        return good

    # --- auditor -----------------------------------------------------------------------------------------------------

    def _auditor(self, auditor: sy.Domain) -> bool:
        self._heading("The auditor reads every entry and recomputes the odometer")
        entries = list(auditor.ledger())
        table = _table("index", "kind", "rounds", "leaf hash")
        for entry in entries:
            facts = entry.body["facts"]
            rounds = facts.get("rounds", facts.get("rounds_released", ""))
            table.add_row(str(entry.index), entry.kind, str(rounds), entry.leaf_hash[:16])
        self._console.print(table)
        population = auditor.populations[0]
        report = _verified(entries)
        ours = next(one for one in report.populations if one.id == population.id)
        theirs = auditor.budget(population)[0]
        table = _table(f"odometer at δ = {ours.delta:g}", "recomputed from the entries", "the node says")
        table.add_row("spent ε", repr(ours.spent_epsilon), repr(theirs.spent_epsilon))
        table.add_row("committed ε", repr(ours.committed_epsilon), repr(theirs.committed_epsilon))
        self._console.print(table)
        agrees = (ours.spent_epsilon, ours.committed_epsilon) == (theirs.spent_epsilon, theirs.committed_epsilon)
        verdict = "they agree to the last bit" if agrees else "[red]THEY DIFFER[/red]"
        for finding in report.findings.kept:
            self._console.print(f"[red]entry {finding.index}: {finding.code}[/red]: {escape(finding.message)}")
        if report.is_clean:
            self._console.print(
                f"{report.entries} entries: every leaf hash right, none missing, each may follow the last;"
            )
        self._console.print(f"the odometer from the entries and the node's: {verdict}.")
        return agrees and report.is_clean

    def _heading(self, text: str) -> None:
        self._console.print()
        self._console.rule(f"[bold]{text}[/bold]", align="left")


def _verified(entries: Sequence[LedgerEntry]) -> Report:
    """What ``pysytff-verify`` does with an export, with the entries as REST gave them."""
    bodies = b"".join(base64.b64decode(entry.body_base64) + b"\n" for entry in entries)
    return verify(io.BytesIO(bodies), Known(leaf_hashes=[bytes.fromhex(entry.leaf_hash) for entry in entries]))


def _budget(owner: sy.Domain) -> Table:
    table = _table("budget", "guarantee ε", "committed ε", "spent ε", "δ")
    for reading in owner.budget():
        numbers = (reading.guarantee_epsilon, reading.committed_epsilon, reading.spent_epsilon)
        table.add_row(reading.scope, *(f"{number:.3f}" for number in numbers), f"{reading.delta:g}")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column)
    return table


def _arrow(requested: object, effective: object | None) -> str:
    if effective is None or effective == requested:
        return f"{requested}"
    return f"{requested} → {effective}"
