"""Cursors: where a page ended, as text that means nothing to its reader. Pure.

This module does not: hold anything secret. A cursor is a position, and what is read from it is checked again.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from governance.errors import InvalidRequestError

Part = str | int


def encode(position: Sequence[Part]) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(position)).encode()).decode()


def decode(cursor: str, types: Sequence[type]) -> list[Part]:
    """The position in a cursor, its parts of these types. Raises ``InvalidRequestError``."""
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _not_ours() from error
    if not isinstance(position, list) or [type(part) for part in position] != list(types):
        raise _not_ours()
    if any(isinstance(part, int) and not -(2**53) < part < 2**53 for part in position):
        raise _not_ours()
    return position


def _not_ours() -> InvalidRequestError:
    hint = "use next_cursor of the page before"
    problem = {"path": "cursor", "message": "is not a cursor", "hint": hint}
    return InvalidRequestError("the cursor is not one of ours", [problem])
