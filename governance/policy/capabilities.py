"""What a policy may call: OPA's builtins that are deterministic, terminate, and stay within the size of their input.

``policies/capabilities.json`` is ``derive`` of the pinned OPA's own list; a test holds the two together, so a newer OPA
adds nothing by itself. To write it anew: ``python -m governance.policy.capabilities > policies/capabilities.json``.

Invariants
- An allow-list. No network, clock, randomness, runtime, cryptography, parsing of code, printing (an input would reach a
  log), shifting or ranges (a few characters of policy that fill the memory).

This module does not: enforce it. OPA's server doesn't either, so ``gate`` does before a policy is put in force.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from governance.policy.locate import find_opa
from governance.policy.tool import run_opa

_GROUPS = {
    "assignment, comparison, arithmetic, sets, membership, named test cases": (
        "assign eq equal neq gt gte lt lte plus minus mul div rem abs ceil floor round and or intersection union "
        "internal.member_2 internal.member_3 internal.test_case"
    ),
    "aggregates and collections": (
        "count sum max min sort array.concat array.flatten array.reverse array.slice json.filter json.patch "
        "json.remove object.filter object.get object.keys object.remove object.subset object.union object.union_n"
    ),
    "text; regular expressions are RE2, linear in the text": (
        "concat contains endswith format_int glob.match glob.quote_meta indexof indexof_n lower regex.find_n "
        "regex.is_valid regex.match regex.replace regex.split replace split sprintf startswith "
        "strings.any_prefix_match strings.any_suffix_match strings.count strings.replace_n strings.reverse substring "
        "trim trim_left trim_prefix trim_right trim_space trim_suffix upper"
    ),
    "types": "is_array is_boolean is_null is_number is_object is_set is_string to_number type_name",
    "arithmetic on the times that the input gives": (
        "time.add_date time.clock time.date time.diff time.parse_duration_ns time.parse_rfc3339_ns time.weekday"
    ),
}
ALLOWED = frozenset(name for names in _GROUPS.values() for name in names.split())
_FEATURES = ("keywords_in_refs", "rego_v1")


def derive(current: Mapping[str, Any]) -> dict[str, Any]:
    """``current``: what ``opa capabilities --current`` prints. Raises ``ValueError`` where a name is not OPA's."""
    builtins = [builtin for builtin in current["builtins"] if builtin["name"] in ALLOWED]
    if missing := ALLOWED - {builtin["name"] for builtin in builtins}:
        raise ValueError(f"OPA has no builtin named {', '.join(sorted(missing))}")
    if unsafe := [b["name"] for b in builtins if b.get("nondeterministic") or b.get("deprecated")]:
        raise ValueError(f"not deterministic, or deprecated: {', '.join(unsafe)}")
    return {
        "builtins": [_signature(builtin) for builtin in builtins],
        "features": [feature for feature in _FEATURES if feature in current.get("features", [])],
        "allow_net": [],
    }


def _signature(builtin: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: builtin[key] for key in ("name", "infix") if key in builtin}
    return kept | {"decl": _without_prose(builtin["decl"])}


def _without_prose(declaration: Any) -> Any:
    """A declaration's types alone. Within one, ``name`` and ``description`` are for people."""
    if isinstance(declaration, list):
        return [_without_prose(member) for member in declaration]
    if isinstance(declaration, dict):
        return {
            key: _without_prose(member) for key, member in declaration.items() if key not in ("name", "description")
        }
    return declaration


def render(capabilities: Mapping[str, Any]) -> str:
    """One line per builtin, so that a change shows as one line."""
    builtins = ",\n".join(f"  {json.dumps(builtin)}" for builtin in capabilities["builtins"])
    rest = {key: value for key, value in capabilities.items() if key != "builtins"}
    return f'{{\n "builtins": [\n{builtins}\n ],\n{json.dumps(rest, indent=1)[2:]}\n'


def current(opa: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        answer = run_opa(opa, ["capabilities", "--current"], directory=Path(directory))
    parsed: dict[str, Any] = json.loads(answer.output)
    return parsed


if __name__ == "__main__":
    sys.stdout.write(render(derive(current(find_opa()))))
