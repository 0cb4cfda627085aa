"""The allow-list of builtins, derived from a list as OPA prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from governance.policy.capabilities import ALLOWED, derive, render


def listing(**flags: Any) -> dict[str, Any]:
    declaration = {"type": "function", "args": [{"type": "number", "name": "x", "description": "a number"}]}
    allowed = [{"name": name, "decl": declaration, "description": "…"} for name in sorted(ALLOWED)]
    allowed[0].update(flags)
    other = [{"name": "http.send", "decl": declaration, "nondeterministic": True}]
    return {"builtins": allowed + other, "features": ["rego_v1", "keywords_in_refs", "rego_v2"]}


def test_only_what_is_on_the_list_is_kept() -> None:
    derived = derive(listing())
    assert ALLOWED == {builtin["name"] for builtin in derived["builtins"]}
    assert ["keywords_in_refs", "rego_v1"] == derived["features"]
    assert [] == derived["allow_net"]


def test_prose_is_left_out() -> None:
    assert {"type": "function", "args": [{"type": "number"}]} == derive(listing())["builtins"][0]["decl"]


@pytest.mark.parametrize("flag", ["nondeterministic", "deprecated"])
def test_a_builtin_that_became_unsafe_is_refused(flag: str) -> None:
    with pytest.raises(ValueError, match="not deterministic, or deprecated"):
        derive(listing(**{flag: True}))


def test_a_builtin_that_opa_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no builtin named"):
        derive({"builtins": []})


def test_the_rendering_is_json_with_a_line_for_each_builtin() -> None:
    derived = derive(listing())
    assert derived == json.loads(render(derived))
    assert len(ALLOWED) == render(derived).count('"name"')
