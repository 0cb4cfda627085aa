"""The upload check, by the real OPA: what it catches, where, and that a sound policy passes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from governance.errors import InvalidRequestError
from governance.policy import gate
from governance.policy.locate import POLICIES_DIR

SOUND = """package owners.mine

import rego.v1

default allow := false

allow if input.requester.role == "researcher"

deny contains {"code": "long", "message": "Too long."} if input.request.rounds > 500

limits := {"max_rounds": 100}
"""


def findings(source: str, opa: Path, policy_id: str = "mine") -> list[Mapping[str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        gate.check(policy_id, source, organisation_dir=POLICIES_DIR, opa=opa)
    return list(caught.value.problems)


def finding(added: str, opa: Path) -> Mapping[str, str]:
    """The one finding about SOUND with a line added, which is line 12."""
    (found,) = findings(f"{SOUND}{added}\n", opa)
    return found


@pytest.mark.parametrize("policy_id", ["digits", "standard"])
def test_the_demonstrations_policies_pass(opa: Path, policy_id: str) -> None:
    source = (POLICIES_DIR / "demo" / f"{policy_id}.rego").read_text()
    gate.check(policy_id, source, organisation_dir=POLICIES_DIR, opa=opa)


def test_a_sound_policy_passes(opa: Path) -> None:
    gate.check("mine", SOUND, organisation_dir=POLICIES_DIR, opa=opa)


def test_a_misspelt_field_is_found_with_the_names_that_would_do(opa: Path) -> None:
    found = finding("_x := input.request.ronds", opa)
    assert ("rego:12:7", "undefined ref: input.request.ronds") == (found["path"], found["message"])
    assert "rounds" in found["hint"].split(": ")[1].split(", ")


@pytest.mark.parametrize(
    "path", ["input.reqest", "input.budget.population.remaining_epsilon", "input.request.model.layer"]
)
def test_a_field_that_does_not_exist_is_found_at_any_depth(opa: Path, path: str) -> None:
    assert f"undefined ref: {path}" == finding(f"_x := {path}", opa)["message"]


@pytest.mark.parametrize(
    "call",
    [
        'http.send({"method": "get", "url": "http://127.0.0.1"})',
        'net.lookup_ip_addr("localhost")',
        'net.cidr_expand("10.0.0.0/8")',
        "opa.runtime()",
        "time.now_ns()",
        'rand.intn("x", 9)',
        'uuid.rfc4122("x")',
        'io.jwt.decode("a.b.c")',
        'crypto.sha256("x")',
        "numbers.range(1, 1000000000)",
        "bits.lsh(1, 1000000000)",
        'json.match_schema(input, "x")',
        'rego.parse_module("x", "package x")',
        "providers.aws.sign_req({}, {}, 1)",
        "graph.reachable_paths({}, {})",
        'strings.render_template("{{.}}", {})',
        'trace("x")',
        'print("x")',
    ],
)
def test_a_builtin_that_is_not_allowed_is_found(opa: Path, call: str) -> None:
    found = findings(f"{SOUND}_x if {call}\n", opa)
    name = call.split("(")[0]  # OPA calls print by an inner name
    assert {f"undefined function {name}", f"undefined function internal.{name}"} & {one["message"] for one in found}
    assert all(one["path"].startswith("rego:12:") for one in found)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("dney contains 1", "dney is no rule of the contract"),
        ("helper := 1", "helper is no rule of the contract"),
        ('warn := {{"code": "a", "message": "b"}}', "warn is no set"),
        ("review := set()", "review is no set"),
        ("obligations[x] := 1 if some x in [1]", "obligations is no set"),
        ("limits.max_batch_size := 3", "limits is not one complete value"),
        ("clamp_order contains 1", "clamp_order is not one complete value"),
        ("clamp_order(x) := x", "clamp_order is not one complete value"),
        ("_x := data.organisation.admission.limits", "refers to data outside its package"),
        ("_x := data.owners.digits.allow", "refers to data outside its package"),
        ("_x := data.owners[input.purpose]", "refers to data outside its package"),
        ('_x := data["system"]', "refers to data outside its package"),
        ("_x := data", "refers to data outside its package"),
        ("_x := [y | y := data.system.authz.allow]", "refers to data outside its package"),
        ("_x(a) := b if b := data.organisation[a]", "refers to data outside its package"),
        ("_x := [a | a := [b | b := [c | c := [d | d := [e | e := 1]]]]]", "nests comprehensions too deeply"),
        ("_x := {a | a := {b: 1 | b := [c | c := {d | d := {e | e := 1}}]}}", "nests comprehensions too deeply"),
    ],
)
def test_a_shape_outside_the_contract_is_found(opa: Path, added: str, message: str) -> None:
    found = finding(added, opa)
    assert message == found["message"]
    assert found["path"].startswith("rego:12:")


def test_data_with_its_own_package_is_permitted(opa: Path) -> None:
    gate.check("mine", f"{SOUND}\n_x := data.owners.mine.limits\n", organisation_dir=POLICIES_DIR, opa=opa)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("package owners.mine", "package owners.other", "is another package"),
        ("package owners.mine", "package organisation.admission", "is another package"),
        ("package owners.mine", "package owners.mine.sub", "is another package"),
        ("import rego.v1", "import data.organisation.admission", "imports data.organisation.admission"),
        ("import rego.v1", "import data.system.authz as a", "imports data.system.authz"),
        ("default allow := false", "default allow := true", "allow has no default"),
        ("default allow := false", "", "allow has no default"),
        ('limits := {"max_rounds": 100}', "", "has no rule limits"),
    ],
)
def test_a_policy_without_its_frame_is_found(opa: Path, old: str, new: str, message: str) -> None:
    assert message in [found["message"] for found in findings(SOUND.replace(old, new), opa)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{"max_rounds": 100}', '{"max_round": 100}', "unknown limits: max_round"),
        ('{"max_rounds": 100}', '{"max_rounds": "100"}', "not a finite number"),
        ('{"max_rounds": 100}', '{"max_rounds": 100} if input.request.rounds < 0', "undefined: limits"),
        ('allow if input.requester.role == "researcher"', "allow := 1", "allow in the policy"),
        ("input.request.rounds > 500", "input.request.rounds > 0 }\nwarn contains 1 if { true", "warn in the policy"),
        (
            '"max_rounds": 100}',
            '"max_rounds": 100} if time.parse_rfc3339_ns(input.purpose) > 0',
            "time.parse_rfc3339_ns",
        ),
    ],
)
def test_an_answer_outside_the_contract_is_found_by_a_trial(opa: Path, old: str, new: str, message: str) -> None:
    source = SOUND.replace("if input.request.rounds > 500", "if { input.request.rounds > 500 }").replace(old, new)
    assert message in findings(source, opa)[0]["message"]


def test_a_syntax_error_has_its_place(opa: Path) -> None:
    assert "rego:12:1" == finding("}{", opa)["path"]


def test_a_strict_finding_has_its_place(opa: Path) -> None:
    found = finding("_x if { unused := 1 }", opa)
    assert ("rego:12:9", "assigned var unused unused") == (found["path"], found["message"])


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\u202e", "\u2028", "\x85"], ids=ascii)
def test_characters_that_a_reader_cannot_see_are_found(opa: Path, character: str) -> None:
    assert "rego:12" == finding(f"# harmless{character}", opa)["path"]


def test_a_policy_that_is_too_large_is_refused_unread(opa: Path) -> None:
    (found,) = findings(SOUND + "# " + "x" * 65536, opa)
    assert "is larger than 65536 bytes" == found["message"]


@pytest.mark.parametrize("policy_id", ["", "Mine", "a-b", "../x", "1a", "a" * 41, "data.x"])
def test_an_id_that_is_no_package_name_is_refused(opa: Path, policy_id: str) -> None:
    assert "policy_id" == findings(SOUND, opa, policy_id)[0]["path"]


def test_a_policy_that_exhausts_memory_or_time_is_stopped(opa: Path) -> None:
    doubling = "\n".join(f"_x{i} := array.concat(_x{i - 1}, _x{i - 1})" for i in range(1, 40))
    source = SOUND.replace('{"max_rounds": 100}', '{"max_rounds": count(_x39)}') + f"\n_x0 := [1]\n{doubling}\n"
    (found,) = findings(source, opa)
    assert "takes too long or too much memory to evaluate" == found["message"]
