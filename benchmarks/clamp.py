"""``clamp``: the noise multiplier that fits what 100 past runs left, by us and by ``calibrate_dp_mechanism``.

Both look for the noise multiplier of one more run under the same (ε, δ) and the same history. The library is used as
its documentation says: the event to calibrate is the whole composition, so every guess composes the history again (the
library refuses an accountant that holds something already). Somebody who writes an accountant of their own that
remembers the history's curve is much faster; this is the second baseline, for information.

Our time is ``governance.clamping.fit``, the whole of step (4). The first answer to a new question is charged with a
curve that dp_accounting computes too (privacy rule 13), so "cold" holds two such curves: the requested one, which does
not fit, and the answer's.
"""

from __future__ import annotations

from typing import Any, ClassVar

import dp_accounting
from dp_accounting import rdp

from accountant.calibration import Cap
from accountant.curve import round_curve
from accountant.filter import Budget, add, zero
from benchmarks.history import past_events, past_parameters
from benchmarks.record import Recorder
from benchmarks.timing import milliseconds, p50
from governance.clamping import Fitted, fit
from governance.model import TrainRequest

_POOL, _CLIENTS, _ROUNDS, _ASKED = 10_000, 100, 100, 0.8
_EPSILON, _DELTA = 1.5, 1e-5
_WARM, _COLD, _REMEMBERING = 50, 9, 3


def run(recorder: Recorder) -> None:
    cap = _cap()
    cold = []
    for number in range(_COLD):
        request = _request(_ROUNDS + 3 * number, _ASKED + number / 1000)  # never seen before, nor its answer
        cold.append(milliseconds(lambda request=request: _solve(request, cap)))  # type: ignore[misc]
    asked = _request(_ROUNDS, _ASKED)
    ours = _solve(asked, cap)
    warm = p50([milliseconds(lambda: _solve(asked, cap)) for _ in range(_WARM)])
    answers: list[float] = []
    naive = milliseconds(lambda: answers.append(_calibrate_composition()))  # once: it takes long enough
    _Remembering.history = _history()
    quick = p50([milliseconds(lambda: answers.append(_calibrate(_Remembering, _new))) for _ in range(_REMEMBERING)])
    if not all(0.9 * theirs <= ours.event.noise_multiplier <= 1.3 * theirs for theirs in answers):
        # Ours holds for any later request too, theirs for this one: the filter's weights make ours a little higher.
        raise RuntimeError(f"not the same question: {ours.event.noise_multiplier} against {answers}")
    library = ("calibrate_dp_mechanism over the history", naive)
    recorder.add("final curve in the memo", warm, "ms", baseline=library, aim="<= 0.005")
    recorder.add("new question, curves cold", p50(cold[1:]), "ms", baseline=library, aim="<= 0.005")
    remembering = ("calibrate_dp_mechanism, history remembered", quick)
    recorder.add("final curve in the memo, history remembered", warm, "ms", baseline=remembering)
    recorder.add("new question, history remembered", p50(cold[1:]), "ms", baseline=remembering)
    recorder.add("noise multiplier found", ours.event.noise_multiplier, "", baseline=("the library's", answers[0]))


def _request(rounds: int, noise_multiplier: float) -> TrainRequest:
    return TrainRequest(
        rounds=rounds,
        clients_per_round=_CLIENTS,
        noise_multiplier=noise_multiplier,
        train_data_id="",
        label_data_id="",
        model={},
    )


def _solve(request: TrainRequest, cap: Cap) -> Fitted:
    fitted = fit(request, (cap,), ("noise_multiplier",), pool_size=_POOL)
    if not isinstance(fitted, Fitted) or not fitted.clamps:
        raise RuntimeError("the request was to be clamped")
    return fitted


def _cap() -> Cap:
    budget = Budget.open(_EPSILON, _DELTA)
    spent = zero(budget.orders)
    for q, z, rounds in past_parameters():
        spent = add(spent, round_curve(q, z, budget.orders).times(rounds))
    return Cap("the population's budget", budget, spent)


def _new(noise_multiplier: float) -> dp_accounting.DpEvent:
    sampled = dp_accounting.PoissonSampledDpEvent(_CLIENTS / _POOL, dp_accounting.GaussianDpEvent(noise_multiplier))
    return dp_accounting.SelfComposedDpEvent(sampled, _ROUNDS)


def _calibrate_composition() -> float:
    past = past_events()
    return _calibrate(rdp.RdpAccountant, lambda noise: dp_accounting.ComposedDpEvent([*past, _new(noise)]))


class _Remembering(rdp.RdpAccountant):  # type: ignore[misc]  # the library has no annotations
    """Adds the history's curve, composed beforehand, to whatever it is asked about."""

    history: ClassVar[Any]

    def get_epsilon(self, target_delta: float) -> float:
        epsilon, _ = rdp.compute_epsilon(self._orders, self.rdp + self.history, target_delta)
        return float(epsilon)


def _history() -> Any:
    accountant = rdp.RdpAccountant()
    for past in past_events():
        accountant.compose(past)
    return accountant.rdp


def _calibrate(make_accountant: object, make_event: object) -> float:
    bracket = dp_accounting.ExplicitBracketInterval(_ASKED, 100.0)
    found = dp_accounting.calibrate_dp_mechanism(make_accountant, make_event, _EPSILON, _DELTA, bracket, tol=1e-3)
    return float(found)
