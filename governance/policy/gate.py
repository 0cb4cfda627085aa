"""Checks an owner's policy before it may be put in force: what OPA's server does not enforce is enforced here.

In order: (1) the text: its size, and nothing in it that a reader can't see; (2) OPA parses it; (3) its shape: package,
imports, references, the names and kinds of its rules, nesting; (4) ``opa check --strict`` with the input's schema and
the allowed builtins; (5) it answers the schema's example with a well-formed decision.

Invariants
- Every finding carries line and column, where OPA gives them, and a hint.
- A rule is one of the contract's, or a helper whose name begins with an underscore: a misspelt ``deny`` would
  otherwise be a rule that nobody asks, and silently permit.
- ``deny``, ``warn``, ``review`` and ``obligations`` are sets (``contains``), which OPA always defines; a complete rule
  of that name could be undefined and go unnoticed.

This module does not: run the owner's tests with coverage, or compare with the policy in force.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from governance.errors import InvalidRequestError, PolicyResultError
from governance.policy.answer import RULES, read
from governance.policy.bundles import POLICY_ID, owner_key, stage
from governance.policy.locate import find_opa
from governance.policy.tool import Ran, run_opa
from governance.policy.wire import is_plain_text, parse_answer

MAX_SOURCE_BYTES = 64 * 1024
MAX_COMPREHENSION_DEPTH = 4  # compile time is exponential in it: a dozen take seconds
SETS = frozenset({"deny", "warn", "review", "obligations"})
_COMPREHENSIONS = frozenset({"arraycomprehension", "setcomprehension", "objectcomprehension"})
_CHECK_TIMEOUT_S = 10.0

Problem = dict[str, str]


def check(policy_id: str, source: str, *, organisation_dir: Path, opa: Path | None = None) -> None:
    """Raises ``InvalidRequestError`` whose ``problems`` give path ("rego:line:column"), message and hint."""
    binary = opa or find_opa()
    _stop(policy_id, _text_problems(policy_id, source))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        stage(organisation_dir, {policy_id: source}, directory)
        file = f"owners/{policy_id}.rego"
        ran = run_opa(binary, ["parse", "--format", "json", "--json-include", "locations", file], directory=directory)
        _stop(policy_id, _opa_problems(ran))
        _stop(policy_id, list(_shape_problems(policy_id, json.loads(ran.output))))
        _stop(policy_id, _opa_problems(_strict_check(binary, organisation_dir, directory, file)))
        _stop(policy_id, _trial_problems(binary, organisation_dir, directory, policy_id))


def _stop(policy_id: str, problems: list[Problem]) -> None:
    if problems:
        raise InvalidRequestError(f"The policy {policy_id!r} can't be put in force.", problems, policy_id=policy_id)


# --- (1) the text


def _text_problems(policy_id: str, source: str) -> list[Problem]:
    if not POLICY_ID.fullmatch(policy_id):
        return [_problem("policy_id", "is no policy id", "a letter, then letters, digits and underscores: at most 40")]
    if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
        return [_problem("rego", f"is larger than {MAX_SOURCE_BYTES} bytes", "make it shorter")]
    return [
        _problem(
            f"rego:{row}", "holds characters that can't be seen", "remove them: only line breaks and tabs are accepted"
        )
        for row, line in enumerate(source.split("\n"), start=1)
        if not is_plain_text(line.replace("\t", "").removesuffix("\r"))
    ]


# --- (2), (4) what OPA says


def _strict_check(opa: Path, organisation_dir: Path, directory: Path, file: str) -> Ran:
    # The schema as a file: given a folder, OPA looks at annotations only and silently checks nothing.
    schema, capabilities = (str((organisation_dir / n).resolve()) for n in ("input.schema.json", "capabilities.json"))
    return run_opa(
        opa,
        ["check", "--strict", "--format", "json", "--schema", schema, "--capabilities", capabilities, file],
        directory=directory,
        timeout_s=_CHECK_TIMEOUT_S,
    )


def _opa_problems(ran: Ran) -> list[Problem]:
    if ran.succeeded:
        return []
    if ran.exhausted:
        return [_problem("rego", "takes too long or too much memory to compile", "nest less, and use fewer rules")]
    for text in (ran.errors, ran.output):  # `parse` and `check` differ in where they report
        try:
            errors = json.loads(text)["errors"]
            return [_problem(_place(error), str(error["message"]), _hint(error)) for error in errors]
        except (ValueError, KeyError, TypeError):
            continue
    return [_problem("rego", (ran.errors or ran.output).strip()[:500] or "OPA refuses it", "see `opa check --strict`")]


def _place(error: dict[str, Any]) -> str:
    location = error.get("location") or {}
    return f"rego:{location['row']}:{location.get('col', 1)}" if "row" in location else "rego"


def _hint(error: dict[str, Any]) -> str:
    message = str(error["message"])
    if message.startswith("undefined function"):
        return "policies may call only what policies/capabilities.json lists"
    details = error.get("details")
    if isinstance(details, dict) and isinstance(details.get("oneOf"), list) and details["oneOf"]:
        return f"one of: {', '.join(str(name) for name in details['oneOf'])}"
    return "see https://www.openpolicyagent.org/docs/policy-language"


# --- (3) the shape


def _shape_problems(policy_id: str, module: dict[str, Any]) -> Iterator[Problem]:
    own = ["data", "owners", policy_id]
    if [part["value"] for part in module["package"]["path"]] != own:
        yield _problem(_where(module["package"]), "is another package", f"start with: package owners.{policy_id}")
    for imported in module.get("imports", []):
        path = [part["value"] for part in imported["path"]["value"]]
        if path != ["rego", "v1"]:
            yield _problem(_where(imported), f"imports {'.'.join(map(str, path))}", "a policy imports rego.v1 alone")
    rules = module.get("rules", [])
    names = {_name(rule) for rule in rules}
    for missing in sorted({"allow", "deny", "limits"} - names):
        yield _problem("rego", f"has no rule {missing}", "a policy has allow, deny and limits")
    if "allow" in names and not any(_is_default_false(rule) for rule in rules):
        yield _problem("rego", "allow has no default", "add: default allow := false")
    for rule in rules:
        yield from _rule_problems(rule)
        yield from _term_problems(rule, own, 0)


def _rule_problems(rule: dict[str, Any]) -> Iterator[Problem]:
    name, head = _name(rule), rule["head"]
    if name not in RULES:
        if not name.startswith("_"):
            yield _problem(
                _where(rule),
                f"{name} is no rule of the contract",
                f"one of {', '.join(sorted(RULES))}; helpers: _{name}",
            )
        return
    plain = len(head["ref"]) == 1 and "args" not in head
    if name in SETS and not (plain and "key" in head and "value" not in head):
        yield _problem(_where(rule), f"{name} is no set", f"write: {name} contains {{…}} if {{…}}")
    if name not in SETS and not (plain and "key" not in head):
        yield _problem(_where(rule), f"{name} is not one complete value", f"write: {name} := …")


def _term_problems(node: Any, own: list[str], depth: int) -> Iterator[Problem]:
    """References out of the package, and comprehensions in comprehensions in comprehensions."""
    if isinstance(node, list):
        for member in node:
            yield from _term_problems(member, own, depth)
        return
    if not isinstance(node, dict):
        return
    kind, value = node.get("type"), node.get("value")
    if kind == "ref" and isinstance(value, list) and value[0].get("value") == "data":
        if [part.get("value") for part in value[:3]] != own or any(part.get("type") != "string" for part in value[1:3]):
            yield _problem(_where(node), "refers to data outside its package", "a policy sees the input and itself")
        value = value[1:]
    elif kind == "var" and value == "data":
        yield _problem(_where(node), "refers to all data", "a policy sees the input and itself")
    if kind in _COMPREHENSIONS:
        depth += 1
        if depth == MAX_COMPREHENSION_DEPTH + 1:
            yield _problem(_where(node), "nests comprehensions too deeply", f"at most {MAX_COMPREHENSION_DEPTH}")
    for key, member in node.items():
        yield from _term_problems(value if key == "value" else member, own, depth)


def _name(rule: dict[str, Any]) -> str:
    return str(rule["head"]["ref"][0]["value"])


def _is_default_false(rule: dict[str, Any]) -> bool:
    return bool(rule.get("default")) and _name(rule) == "allow" and rule["head"]["value"].get("value") is False


# --- (5) a trial


def _trial_problems(opa: Path, organisation_dir: Path, directory: Path, policy_id: str) -> list[Problem]:
    """What it answers to the schema's example, asked as the service asks: by the gate."""
    example = json.loads((organisation_dir / "input.schema.json").read_text("utf-8"))["examples"][0]
    example["dataset"]["policy"] = policy_id
    trial = directory / "trial.json"
    trial.write_text(json.dumps(example), "utf-8")
    ran = run_opa(
        opa,
        [
            "eval",
            "--bundle",
            ".",
            "--input",
            str(trial),
            "--strict-builtin-errors",
            "--format",
            "json",
            "data.pysytff.gate",
        ],
        directory=directory,
        timeout_s=_CHECK_TIMEOUT_S,
    )
    if ran.exhausted:
        return [_problem("rego", "takes too long or too much memory to evaluate", "compute less")]
    try:
        if not ran.succeeded:
            return _opa_problems(ran)
        answer = parse_answer(ran.output.encode())["result"][0]["expressions"][0]["value"]
        read(answer["owner"], owner_key(policy_id))
    except PolicyResultError as error:
        return [_problem("rego", error.detail, "docs/adr/0001-one-policy-engine.md has the table of rules")]
    return []


def _where(node: dict[str, Any]) -> str:
    location = node.get("location") or {}
    return f"rego:{location['row']}:{location['col']}" if location else "rego"


def _problem(path: str, message: str, hint: str) -> Problem:
    return {"path": path, "message": message, "hint": hint}
