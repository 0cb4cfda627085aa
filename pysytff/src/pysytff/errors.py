"""Everything that this package raises or warns with.

Invariants
- Every message says what was wrong, where, and what to do; facts are attributes, so nobody has to parse text.
- A problem document (RFC 9457) of the node becomes a ``ProblemError`` or one of its subclasses, by its stable ``code``.

This module does not: speak HTTP, or know which call failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pysytff.models import Decision


class PysytffError(Exception):
    """Base of every error of this package."""

    code = "pysytff_error"


# --- before or below the node's answer ---


class InsecureTransportError(PysytffError):
    """The address is plain HTTP and not on this machine: password, token and model would travel readable."""

    code = "insecure_transport"

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url} is plain HTTP to another machine, so your password could be read on the way. "
            "Use an https:// address, or an SSH tunnel to a port on 127.0.0.1."
        )
        self.url = url


class UnreachableError(PysytffError):
    """No answer came. Whether the node received the request is not known; submitting again is safe (same key)."""

    code = "unreachable"

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(f"No answer from {url}: {cause}. Check the address, and that the node is running.")
        self.url = url


class UnexpectedAnswerError(PysytffError):
    """The answer is not what a node of this version says; perhaps the address belongs to something else."""

    code = "unexpected_answer"


class NotLoggedInError(PysytffError):
    """There is no session, or it has ended."""

    code = "not_logged_in"


class ParameterError(PysytffError, ValueError):
    """``params`` cannot be sent. ``problems``: {path, message, hint} each."""

    code = "invalid_parameters"

    def __init__(self, problems: Sequence[Mapping[str, str]]) -> None:
        super().__init__(_listed("The parameters cannot be sent:", problems))
        self.problems = tuple(problems)


class UnsupportedModelError(PysytffError, ValueError):
    """The Keras model cannot travel as a model document. ``problems``: {path, message, hint} each."""

    code = "unsupported_model"

    def __init__(self, problems: Sequence[Mapping[str, str]]) -> None:
        super().__init__(_listed("This model cannot be sent, because only listed layers travel:", problems))
        self.problems = tuple(problems)


class UnknownNameError(PysytffError, KeyError):
    """No item of a collection has this name or id."""

    code = "unknown_name"

    def __str__(self) -> str:  # KeyError would show the message quoted, as a key
        return str(self.args[0])


class WeightsError(PysytffError):
    """The weights of a run do not fit the model, or are not those that the node published."""

    code = "weights_mismatch"


# --- runs ---


class RunError(PysytffError):
    """Something about one run. ``run_id`` names it."""

    code = "run_error"

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunTimeoutError(RunError, TimeoutError):
    """The wait is over, the run is not."""

    code = "run_timeout"

    def __init__(self, run_id: str, seconds: float, state: str) -> None:
        super().__init__(
            run_id,
            f"Run {run_id} is still {state} after {seconds:g} s of waiting, and goes on. "
            f"Continue with domain.runs[{run_id!r}].watch() and then .result(), or stop it with .cancel().",
        )
        self.state = state


class RunEndedError(RunError):
    """The run ended without a result."""

    code = "run_ended"

    def __init__(self, run_id: str, state: str, reason: str | None) -> None:
        because = f" ({reason})" if reason and reason != state else ""
        super().__init__(
            run_id,
            f"Run {run_id} ended {state}{because} and has no result. What it had spent stays spent; "
            "the data owner sees its log.",
        )
        self.state = state
        self.reason = reason


class RunNotFinishedError(RunError):
    """The result was asked for before the run ended."""

    code = "run_not_finished"

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(run_id, f"Run {run_id} is {state}: wait for it with domain.runs[{run_id!r}].watch().")
        self.state = state


class RunLeftRunning(KeyboardInterrupt):
    """Ctrl-C ended the wait, not the run. A KeyboardInterrupt, so that ``except Exception`` does not swallow it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Stopped waiting; run {run_id} goes on. Watch it with domain.runs[{run_id!r}].watch() "
            f"(or: pysytff runs watch {run_id}), stop it with .cancel() (or: pysytff runs cancel {run_id})."
        )
        self.run_id = run_id


# --- problems that the node reports ---


class ProblemError(PysytffError):
    """The node answered with a problem. ``errors``: {path, message, hint} each; ``problem``: the whole document."""

    advice = ""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        self.problem = dict(problem)
        self.status = status
        self.code = str(problem.get("code") or f"http_{status}")
        self.detail = str(problem.get("detail") or problem.get("title") or f"the node answered with status {status}")
        reported = problem.get("errors")
        self.errors: tuple[Mapping[str, str], ...] = tuple(
            error for error in (reported if isinstance(reported, list) else []) if isinstance(error, Mapping)
        )
        self.request_id = problem.get("request_id")
        super().__init__(self._text())

    def _text(self) -> str:
        text = _listed(self.detail, self.errors)
        if self.advice:
            text += f"\n{self.advice}"
        return text + f"\n[{self.code}" + (f", request {self.request_id}]" if self.request_id else "]")


class AuthenticationError(ProblemError):
    advice = "Check e-mail and password, or log in again: sy.login(...) or `pysytff login`."


class ForbiddenError(ProblemError):
    advice = "Your role has no right to this; `pysytff whoami` shows which role you have."


class NotFoundError(ProblemError):
    advice = "It does not exist, or you may not see it."


class InvalidRequestError(ProblemError):
    """The request is malformed; nothing was recorded."""


class InvalidModelError(InvalidRequestError):
    """The node does not accept the model document."""


class ConflictError(ProblemError):
    """The state of the thing does not permit this."""


class IdempotencyError(ProblemError):
    advice = "The same idempotency key was used for another request: leave idempotency_key out to get a new one."


class ThrottledError(ProblemError):
    """Too many attempts. ``retry_after_s`` says when to come back."""

    @property
    def retry_after_s(self) -> float | None:
        seconds = self.problem.get("retry_after_s")
        return float(seconds) if isinstance(seconds, int | float) else None


class UnavailableError(ProblemError):
    advice = "Nothing was decided or charged by this answer. Try again later; if it lasts, tell the node's operator."


class RequestRefusedError(ProblemError):
    """Policy or budget refused the request. ``decision`` has the reasons; the refusal itself is recorded."""

    def __init__(self, problem: Mapping[str, Any], status: int, decision: Decision | None) -> None:
        self.decision = decision
        super().__init__(problem, status)

    def _text(self) -> str:
        if self.decision is None:
            return super()._text()
        lines = ["The node refused this request:", *(f"  - {reason}" for reason in self.decision.reasons)]
        if self.decision.clamps or self.decision.effective:
            lines.append("What would be allowed instead:")
            lines.extend(f"  - {clamp}" for clamp in self.decision.clamps)
            if not self.decision.clamps:
                lines.append(f"  - {dict(self.decision.effective or {})}")
            lines.append("Send on_exceed='clamp' to accept such a change, or send these values yourself.")
        lines.append(f"[{self.code}, decision {self.decision.id}]")
        return "\n".join(lines)


_BY_CODE: Mapping[str, type[ProblemError]] = {
    "unauthenticated": AuthenticationError,
    "forbidden": ForbiddenError,
    "not_found": NotFoundError,
    "invalid_request": InvalidRequestError,
    "invalid_model": InvalidModelError,
    "conflict": ConflictError,
    "idempotency_key_reused": IdempotencyError,
    "throttled": ThrottledError,
    "contention": UnavailableError,
    "storage_unavailable": UnavailableError,
    "ledger_closed": UnavailableError,
    "policy_engine_error": UnavailableError,
    "policy_engine_unreachable": UnavailableError,
    "policy_engine_timeout": UnavailableError,
    "policy_revision_mismatch": UnavailableError,
    "policy_result_invalid": UnavailableError,
}
_BY_STATUS: Mapping[int, type[ProblemError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: ThrottledError,
}


def problem_error(problem: Mapping[str, Any], status: int) -> ProblemError:
    """The exception for a problem document; by ``code``, else by status, so new codes still get a useful class."""
    by_status = _BY_STATUS.get(status, UnavailableError if status >= 500 else ProblemError)
    return _BY_CODE.get(str(problem.get("code")), by_status)(problem, status)


# --- warnings ---


class ClampedWarning(UserWarning):
    """The run was approved with stricter parameters than asked for. ``decision`` has them all."""

    def __init__(self, decision: Decision) -> None:
        lines = ["The request was approved with changes:", *(f"  - {clamp}" for clamp in decision.clamps)]
        super().__init__("\n".join([*lines, "Send on_exceed='refuse' to be refused instead."]))
        self.decision = decision


class PolicyWarning(UserWarning):
    """A policy approved the request and has something to say about it."""


def _listed(headline: str, problems: Sequence[Mapping[str, str]]) -> str:
    lines = [headline]
    for problem in problems:
        hint = f" ({problem['hint']})" if problem.get("hint") else ""
        lines.append(f"  - {problem.get('path', '')}: {problem.get('message', '')}{hint}")
    return "\n".join(lines)
