"""'Did you mean …': the nearest known name for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause to append to a message: the nearest name, or all of them where none is near."""
    names = list(known)
    near = difflib.get_close_matches(str(word)[:64].lower(), names, n=1, cutoff=0.55)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(sorted(names)) or 'none'}"
