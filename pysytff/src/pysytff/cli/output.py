"""How the command line shows answers and errors, and with which status it ends.

Invariants
- With --json, stdout holds one JSON document and nothing else; errors go to stderr, as JSON too.
- The status says what happened: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not logged in, 5 still running,
  130 Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import pydantic
import rich.console
import typer

from pysytff.display import Table
from pysytff.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotLoggedInError,
    ParameterError,
    ProblemError,
    PysytffError,
    RequestRefusedError,
    RunLeftRunning,
    RunNotFinishedError,
    RunTimeoutError,
    UnknownNameError,
    UnsupportedModelError,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]

_STATUS: Sequence[tuple[type[BaseException], int]] = (
    (RequestRefusedError, 3),
    (NotLoggedInError, 4),
    (AuthenticationError, 4),
    (RunTimeoutError, 5),
    (RunNotFinishedError, 5),
    (ParameterError, 2),
    (UnsupportedModelError, 2),
    (InvalidRequestError, 2),
    (UnknownNameError, 2),
    (RunLeftRunning, 130),
)


def show(answer: Any, *, as_json: bool) -> None:
    """Prints a value that has a table, or any JSON value."""
    if as_json:
        print(json.dumps(plain(answer), ensure_ascii=False, indent=2))
    elif isinstance(answer, str):
        print(answer)
    else:
        rich.console.Console().print(answer)


def plain(value: Any) -> Any:
    if isinstance(value, pydantic.BaseModel):
        return json.loads(value.model_dump_json())  # infinities become null, as the node writes them
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (str, int, float)) or value is None:
        return value
    return [plain(item) for item in value]


def pairs(title: str, values: Mapping[str, Any]) -> Table:
    return Table(title, ("field", "value"), list(values.items()))


@contextmanager
def errors_explained(*, as_json: bool) -> Iterator[None]:
    """Ends the program with the error's text and status; anything unforeseen keeps its traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except BrokenPipeError:
            # Whoever read our output has enough. Python would complain again when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (PysytffError, RunLeftRunning, ValueError, OSError) as error:
            print(_as_json(error) if as_json else f"Error: {error}", file=sys.stderr)
            raise typer.Exit(next((status for kind, status in _STATUS if isinstance(error, kind)), 1)) from None


def _as_json(error: BaseException) -> str:
    document: dict[str, Any] = {"code": getattr(error, "code", "error"), "detail": str(error)}
    if isinstance(error, ProblemError):
        document = dict(error.problem) | {"code": error.code, "status": error.status, "detail": error.detail}
    elif isinstance(error, (ParameterError, UnsupportedModelError)):
        document["errors"] = [dict(problem) for problem in error.problems]
    if hasattr(error, "run_id"):
        document["run_id"] = error.run_id
    return json.dumps({"error": document}, ensure_ascii=False)


def _show_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)
