"""``admission``: one decision through REST, durable, against R: one raw query of the same policy and input.

R, SQLite and PostgreSQL take turns, request by request. "Warm" means that the curve of the request's parameters is in
the memo; "cold" requests ask for a noise multiplier that was never seen before. The shares come from the answers' own
``timings_ms``, the API's log, and a pass in process that listens to SQLAlchemy.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy import event

from api.schemas import TrainRequestIn
from benchmarks.record import Recorder
from benchmarks.stage import POSTGRES, RESEARCHERS, SQLITE, Api, Kept, Opa, Site, Submitter, api, stage
from benchmarks.timing import fsync_milliseconds, interleaved, milliseconds, p50, p99
from governance.admission import Admission
from governance.ledger.tables import decisions

_TURNS, _WARM_UP, _COLD = 300, 40, 12
_CROWD_S = 8.0
_IN_PROCESS = 100
_QUERY = "/v1/data/pysytff/gate?metrics=true&provenance=true&strict-builtin-errors=true"
_RAW = "R: raw OPA query"


def run(recorder: Recorder) -> None:
    with stage() as theatre, ExitStack() as stack:
        sites = {name: theatre.site(name) for name in (SQLITE, POSTGRES)}
        served = {name: stack.enter_context(api(site)) for name, site in sites.items()}
        submit = {name: Submitter(site, served[name].port) for name, site in sites.items()}
        submit[SQLITE]()
        raw = _raw_query(theatre.opa, sites[SQLITE])
        steps: dict[str, list[dict[str, float]]] = {name: [] for name in sites}
        works: dict[str, Callable[[], object]] = {_RAW: raw}
        works |= {name: _noting(submit[name], steps[name]) for name in sites}
        warm = interleaved(works, times=_TURNS, warm_up=_WARM_UP)
        r50, r99 = p50(warm[_RAW]), p99(warm[_RAW])
        for name in sites:
            recorder.add(f"{name}, warm, p50", p50(warm[name]), "ms", baseline=(_RAW, r50), aim="<= R + 6 ms")
            recorder.add(f"{name}, warm, p99", p99(warm[name]), "ms", baseline=(f"{_RAW}, p99", r99))
        for name, values in _cold(submit).items():
            recorder.add(f"{name}, cold curve, p50", p50(values), "ms", baseline=(_RAW, r50))
        for name, site in sites.items():
            recorder.add(f"{name}, {RESEARCHERS} clients", _crowd(site, served[name]), "decisions/s")
        recorder.add("a 4 kB write that reaches the disk", fsync_milliseconds(theatre.folder), "ms")
        for name, site in sites.items():
            _shares(recorder, name, p50(warm[name]), steps[name][-_TURNS:], _in_process(theatre.opa, site))


def _raw_query(opa: Opa, site: Site) -> Callable[[], object]:
    """The very input that admission sent, as its evidence has it."""
    with site.database.read() as connection:
        document = connection.execute(sa.select(decisions.c.policy_input).limit(1)).scalar_one()
    kept = Kept(urlsplit(opa.url).port or 0, opa.token)
    body = b'{"input":' + str(document).encode() + b"}"

    def query() -> None:
        status, answer = kept.call("POST", _QUERY, body)
        if status != 200 or not json.loads(answer)["result"]["organisation"]["allow"]:
            raise RuntimeError(f"OPA answered {status}: {answer[:300]!r}")

    return query


def _noting(submit: Submitter, into: list[dict[str, float]]) -> Callable[[], object]:
    return lambda: into.append(submit()["timings_ms"])


def _cold(submit: dict[str, Submitter]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in submit}
    for number in range(_COLD):
        for name, ask in submit.items():
            noise = 1.6 + number / 64
            found[name].append(milliseconds(lambda ask=ask, noise=noise: ask(noise_multiplier=noise)))  # type: ignore[misc]
    return {name: values[2:] for name, values in found.items()}  # the first one also loads dp_accounting


def _crowd(site: Site, served: Api) -> float:
    """Decisions per second with a client for each of many researchers, after a second of warm-up."""
    began = time.monotonic() + 1.0
    end = began + _CROWD_S

    def client(researcher: int) -> int:
        submit, decided = Submitter(site, served.port, researcher), 0
        while (now := time.monotonic()) < end:
            submit()
            decided += now >= began
        return decided

    with ThreadPoolExecutor(RESEARCHERS) as pool:
        decisions_made = sum(pool.map(client, range(RESEARCHERS)))
    return decisions_made / (time.monotonic() - began)


@dataclass
class _Listened:
    """One admission's dealings with the database."""

    statements: int = 0
    sql_ms: float = 0.0
    commit_ms: float = 0.0
    total_ms: float = 0.0
    texts: list[str] = field(default_factory=list)


def _in_process(opa: Opa, site: Site) -> list[_Listened]:
    engine = opa.engine()
    try:
        admission = Admission(site.database, engine)
        request = TrainRequestIn.model_validate(site.request()).to_domain()

        def admit() -> None:
            admission.admit(site.researcher, request, idempotency_key=secrets.token_hex(12), request_digest=bytes(32))

        return [_listened(site, admit) for _ in range(_IN_PROCESS)][10:]
    finally:
        engine.close()


def _listened(site: Site, work: Callable[[], Any]) -> _Listened:
    with _listening(site.database.engine) as heard:
        heard.total_ms = milliseconds(work)
    return heard


@contextmanager
def _listening(engine: sa.Engine) -> Iterator[_Listened]:
    heard, began = _Listened(), [0.0]
    commit = engine.dialect.do_commit

    def before(_c: object, _k: object, statement: str, *_: object) -> None:
        heard.statements += 1
        heard.texts.append(statement)
        began[0] = time.perf_counter()

    def after(*_: object) -> None:
        heard.sql_ms += (time.perf_counter() - began[0]) * 1000

    def timed_commit(connection: Any) -> None:
        heard.commit_ms += milliseconds(lambda: commit(connection))

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    engine.dialect.do_commit = timed_commit  # type: ignore[assignment,method-assign]
    try:
        yield heard
    finally:
        del engine.dialect.do_commit  # the class's own again
        event.remove(engine, "before_cursor_execute", before)
        event.remove(engine, "after_cursor_execute", after)


def _shares(
    recorder: Recorder, name: str, rest_ms: float, steps: list[dict[str, float]], heard: list[_Listened]
) -> None:
    def share(step: str, value: float) -> None:
        recorder.add(f"{name}, share: {step}", value, "ms", baseline=("a warm decision through REST", rest_ms))

    inside = p50([one.total_ms for one in heard])
    commit = p50([one.commit_ms for one in heard])
    known = {step: p50([timings[step] for timings in steps]) for step in ("registry", "policy", "budget")}
    for step, value in known.items():
        share(step, value)
    share("locks, checks again and record", max(inside - sum(known.values()) - commit, 0.0))
    share("commit", commit)
    share("HTTP, log-in and answer", max(rest_ms - inside, 0.0))
    share("of all of it, SQL statements without the commit", p50([one.sql_ms for one in heard]))
    recorder.add(f"{name}, SQL statements of one admission", p50([one.statements for one in heard]), "")
