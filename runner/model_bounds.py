"""How large and deep a decoded document may be. Standard library only.

Invariants
- The walk does not recurse and ends after ``MAX_DOCUMENT_BYTES`` steps, whatever it is given: deep, huge or cyclic.
- What passes consists of JSON values only, and is at most ``MAX_DOCUMENT_BYTES`` as compact JSON (escapes not counted).

This module does not: know what a model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.model_fields import Report, quote

MAX_DOCUMENT_BYTES = 64 * 1024
MAX_DEPTH = 8


def is_bounded(document: Mapping[Any, Any], report: Report) -> bool:
    """Walks without recursion and counts, so a deep, huge or cyclic object ends here and costs little."""
    size = 0
    waiting: list[tuple[object, int]] = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        size += 2
        if isinstance(value, str):
            # "surrogatepass" keeps the count total: a lone surrogate is refused later, with its path.
            size += len(value) if len(value) > MAX_DOCUMENT_BYTES else len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                report.add("$", "has a key that is not a string", "JSON keys are strings")
                return False
            waiting.extend((item, depth + 1) for pair in value.items() for item in pair)
        elif isinstance(value, list | tuple):
            waiting.extend((item, depth + 1) for item in value)
        elif isinstance(value, int):
            size += value.bit_length() // 4  # never str(value): that raises for huge integers
        elif value is None or isinstance(value, float):
            size += len(repr(value))
        else:
            report.add("$", f"holds a {quote(type(value).__name__)}", "only JSON values are allowed")
            return False
        if depth > MAX_DEPTH:
            report.add("$", f"is nested more than {MAX_DEPTH} deep", "a model is a flat list of layers")
            return False
        if size + len(waiting) > MAX_DOCUMENT_BYTES:
            report.add("$", f"is larger than {MAX_DOCUMENT_BYTES // 1024} KiB", "a model is a short list of layers")
            return False
    return True
