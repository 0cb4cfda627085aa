"""Runs: watch, cancel, and the result.

Invariants
- Waiting is separate from the run: a timeout, Ctrl-C or a lost connection ends the wait, and says how to go on.
- A result is read only from a published run, and its weights are checked against the digest that the node published.

This module does not: submit (``pysytff.domain`` does).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import rich.console
import rich.progress

from pysytff import weights
from pysytff.audit_models import Statement
from pysytff.display import Table, Tabular
from pysytff.errors import RunEndedError, RunLeftRunning, RunNotFinishedError
from pysytff.follow import POLL_S, Follower
from pysytff.models import Decision, ResultInfo, RunEvent, RunInfo, is_final
from pysytff.transport import Transport


@dataclass(frozen=True)
class RunResult:
    """What a run published. ``metrics`` come from the public hold-out; ``privacy`` is the model's privacy statement."""

    run_id: str
    metrics: Mapping[str, Any]
    privacy: Mapping[str, Any]
    content: bytes = field(repr=False)  # the safetensors file
    weights: weights.Tensors = field(repr=False)

    def load_into(self, model: Any) -> Any:
        """Sets a Keras model's weights and returns it. The model must have the layers that were submitted."""
        weights.set_weights(model, self.weights)
        return model


class Run(Tabular):
    """One run on the node. Its state is read when asked for, so it is never older than the question."""

    def __init__(
        self, transport: Transport, run_id: str, *, info: RunInfo | None = None, decision: Decision | None = None
    ) -> None:
        self._transport = transport
        self._info = info
        self._decision = decision
        self.id = run_id
        self.poll_s = POLL_S

    @property
    def info(self) -> RunInfo:
        """As last read."""
        return self._info or self.refresh()

    def refresh(self) -> RunInfo:
        self._info = RunInfo.of(self._transport.get(f"/v1/runs/{self.id}"))
        return self._info

    @property
    def status(self) -> str:
        """The state now: reserved, running, published, cancelled, failed or quarantined."""
        return self.refresh().state

    @property
    def decision(self) -> Decision:
        if self._decision is None:
            self._decision = self.info.decision or self.refresh().decision
        if self._decision is None:
            answer = {"id": self.info.decision_id, "outcome": "approved", "run_id": self.id}
            fields = {"requested": self.info.requested, "effective": self.info.effective}
            self._decision = Decision.of(answer | fields)
        return self._decision

    def events(self, timeout: float | None = None) -> Iterator[RunEvent]:
        """States and rounds as they come, until the run has ended. Raises ``RunTimeoutError`` after ``timeout`` s."""
        yield from Follower(self._transport, self.id, timeout, self.poll_s).events()

    def watch(self, timeout: float | None = None, *, progress: bool = True) -> Run:
        """Waits for the end of the run, with a progress bar. Raises ``RunTimeoutError``; Ctrl-C leaves the run."""
        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("rounds"),
            rich.progress.TimeElapsedColumn(),
        )
        console = rich.console.Console(file=sys.stderr)
        try:
            with rich.progress.Progress(*columns, console=console, disable=not progress) as bar:
                task = bar.add_task(f"{self.id} …", total=None)
                for event in self.events(timeout):
                    description = f"{self.id} {event.state}"
                    bar.update(task, description=description, total=event.rounds, completed=event.rounds_done)
        except KeyboardInterrupt:
            raise RunLeftRunning(self.id) from None
        self._info = None
        return self

    def cancel(self) -> Run:
        """Stops the run. What was debited stays debited; the rest of its budget is released."""
        answer = self._transport.request("POST", f"/v1/runs/{self.id}:cancel")
        self._info = RunInfo.of(self._transport.json(answer))
        return self

    def result(self) -> RunResult:
        """Raises ``RunNotFinishedError`` before the end, ``RunEndedError`` where the run ended without a result."""
        state = self.refresh().state
        if not is_final(state):
            raise RunNotFinishedError(self.id, state)
        if state != "published":
            raise RunEndedError(self.id, state, self.info.state_reason)
        told = ResultInfo.of(self._transport.get(f"/v1/runs/{self.id}/result"))
        content = self._transport.request("GET", f"/v1/runs/{self.id}/weights", retry=True).content
        tensors = weights.read(content, told.weights_sha256)
        return RunResult(self.id, told.metrics, told.privacy_statement, content, tensors)

    @property
    def statement(self) -> Statement:
        """The privacy statement with its place in the ledger. Raises ``ConflictError`` before the publication."""
        return Statement.of(self._transport.get(f"/v1/runs/{self.id}/statement", format="json"))

    def statement_page(self) -> str:
        """The same as a page of HTML, in one file that loads nothing."""
        asked = {"format": "html"}
        return self._transport.request("GET", f"/v1/runs/{self.id}/statement", retry=True, params=asked).text

    def table(self) -> Table:
        info = self.info
        rows: list[tuple[str, Any]] = [
            ("state", info.state if info.state_reason in (None, info.state) else f"{info.state} ({info.state_reason})"),
            ("rounds", f"{info.rounds_done} of {info.rounds} done, {info.rounds_debited} debited"),
            ("dataset", info.dataset_id),
            ("population", info.population_id),
            ("project", info.project_id),
            ("created", info.created_at.isoformat(timespec="seconds")),
            ("updated", info.updated_at.isoformat(timespec="seconds")),
        ]
        rows += [(name, value) for name, value in info.effective.items() if name not in ("model", "rounds", "project")]
        return Table(f"Run {info.id}", ("field", "value"), rows)


class Runs(Tabular, Sequence[Run]):
    """The runs that one may see, newest first. By id without listing them; listed once, when first needed."""

    SHOWN = 50

    def __init__(self, transport: Transport, state: str | None = None) -> None:
        self._transport = transport
        self._state = state
        self._runs: list[Run] | None = None

    def _listed(self) -> list[Run]:
        if self._runs is None:
            found = self._transport.items("/v1/runs", state=self._state, page_size=200)
            infos = [RunInfo.of(item) for item in found]
            self._runs = [Run(self._transport, info.id, info=info) for info in infos]
        return self._runs

    @overload
    def __getitem__(self, key: int | str) -> Run: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Run]: ...
    def __getitem__(self, key: int | str | slice) -> Run | Sequence[Run]:
        if isinstance(key, str):
            run = Run(self._transport, key)
            run.refresh()  # NotFoundError here rather than at the first use
            return run
        return self._listed()[key]

    def __len__(self) -> int:
        return len(self._listed())

    def table(self) -> Table:
        runs = self._listed()
        rows = [
            (
                index,
                run.id,
                run.info.state,
                f"{run.info.rounds_done}/{run.info.rounds}",
                run.info.dataset_id,
                run.info.created_at.isoformat(timespec="seconds"),
            )
            for index, run in enumerate(runs[: self.SHOWN])
        ]
        more = f"and {len(runs) - self.SHOWN} more" if len(runs) > self.SHOWN else ""
        note = more if rows else "(none)"
        return Table("Runs", ("", "id", "state", "rounds", "dataset", "created"), rows, note=note)
