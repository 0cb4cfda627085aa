from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from governance import paging
from governance.errors import InvalidRequestError


def test_a_cursor_holds_its_position() -> None:
    assert ["2026", 7] == paging.decode(paging.encode(("2026", 7)), (str, int))


@pytest.mark.parametrize("position", [7, [], ["a"], [7, "a"], ["a", True], ["a", 2**60], ["a", 1.5], ["a", None]])
def test_a_cursor_of_another_form_is_refused(position: Any) -> None:
    with pytest.raises(InvalidRequestError):
        paging.decode(base64.urlsafe_b64encode(json.dumps(position).encode()).decode(), (str, int))


@pytest.mark.parametrize("text", ["", "!", "a", "e30", "////", "W1tb" * 200])
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        paging.decode(text, (str, int))
