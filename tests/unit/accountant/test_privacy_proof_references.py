"""The proof names code and tests; here is checked that they exist, so that a rename cannot leave a hypothesis without
its enforcement.

A reference is `` `path::name` ``, where ``name`` may be ``Class.method``. Identifiers in brackets right behind it must
occur in that definition: they are what the hypothesis rests on.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROOF = ROOT / "docs" / "privacy-proof.md"
TEXT = PROOF.read_text(encoding="utf-8")

REFERENCE = re.compile(r"`(?P<path>[\w/]+\.py)::(?P<name>[\w.]+)`(?:\s\((?P<rest>`\w+`(?:, `\w+`)*)\))?")
REFERENCES = sorted({(m["path"], m["name"], m["rest"] or "") for m in REFERENCE.finditer(TEXT)})
ENFORCED = [line for line in TEXT.splitlines() if re.match(r"\| H\d+ \|", line)]


@cache
def module(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def definition(path: str, name: str) -> ast.AST | None:
    """The class, function or assignment of that qualified name."""
    scope: ast.AST = module(path)
    for part in name.split("."):
        found = [node for node in getattr(scope, "body", []) if part in names_of(node)]
        if not found:
            return None
        scope = found[0]
    return scope


def names_of(statement: ast.AST) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def identifiers(node: ast.AST) -> set[str]:
    found: set[str] = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.Constant(value=str(name)):
                found.add(name)
    return found


def test_the_proof_has_references_at_all() -> None:
    assert len(REFERENCES) > 60
    assert TEXT.count(".py::") == len(REFERENCE.findall(TEXT)), "a reference is written in another form"


@pytest.mark.parametrize(("path", "name", "rest"), REFERENCES, ids=lambda value: str(value))
def test_what_the_proof_names_exists(path: str, name: str, rest: str) -> None:
    assert (ROOT / path).is_file(), f"{path} is named in docs/privacy-proof.md"
    found = definition(path, name)
    assert found is not None, f"{path} has no {name}, which docs/privacy-proof.md names"
    missing = set(re.findall(r"\w+", rest)) - identifiers(found)
    assert set() == missing, f"{path}::{name} no longer mentions what docs/privacy-proof.md says it rests on"


@pytest.mark.parametrize("row", ENFORCED, ids=lambda row: row.split("|")[1].strip())
def test_every_hypothesis_names_code_and_a_test(row: str) -> None:
    _, number, _, code, tests, _ = row.split("|")
    enforced = [m["path"] for m in REFERENCE.finditer(code)]
    tested = [(m["path"], m["name"]) for m in REFERENCE.finditer(tests)]

    assert enforced, f"{number}: no code"
    assert tested, f"{number}: no test"
    assert not any(path.startswith("tests/") for path in enforced)
    assert all(path.startswith("tests/") and name.startswith("test_") for path, name in tested)


def test_the_hypotheses_are_numbered_without_gaps_and_all_stand_in_the_theorem() -> None:
    assert [f"H{number}" for number in range(1, len(ENFORCED) + 1)] == [row.split("|")[1].strip() for row in ENFORCED]
    assumed = [row.split("|")[1].strip() for row in TEXT.splitlines() if re.match(r"\| A\d+ \|", row)]
    assert [f"A{number}" for number in range(1, len(assumed) + 1)] == assumed
    assert f"H1–H{len(ENFORCED)} and A1–A{len(assumed)} hold" in TEXT


@pytest.mark.parametrize("number", sorted(set(re.findall(r"\b[HA]\d+\b", TEXT))))
def test_every_hypothesis_that_is_used_is_stated(number: str) -> None:
    assert f"| {number} |" in TEXT
