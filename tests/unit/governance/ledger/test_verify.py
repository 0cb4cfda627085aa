"""An export that was tampered with: each way is detected and named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.ledger.chain import leaf_hash
from governance.ledger.merkle import Frontier
from governance.ledger.notes import Checkpoint, Note, SignerKey
from governance.ledger.verify import Known, Report, verify
from governance.ledger.verify_export import lines
from governance.ledger.verify_signatures import read
from tests.unit.governance.ledger.made_ledger import (
    FOREIGN_KEY,
    LOG_KEY,
    NEXT_KEY,
    ORIGIN,
    WITNESS,
    Made,
    codes,
    every_end,
    export,
    frontier,
    places,
    signed,
    verified,
)

BODIES = every_end().bodies()
SIGNED = signed(BODIES, LOG_KEY, WITNESS)
WITNESSES: dict[str, Any] = {"witness_keys": (WITNESS.verifier,)}


def earlier(bodies: list[bytes], *checkpoints: Any, previous: list[bytes]) -> Report:
    known = Known(checkpoints=checkpoints or (signed(bodies),), log_key=LOG_KEY.verifier)
    return verify(export(bodies), Known(**_fields(known), earlier_export=export(previous)))


def _fields(known: Known) -> dict[str, Any]:
    return {"checkpoints": known.checkpoints, "log_key": known.log_key}


def test_a_whole_ledger_with_every_kind_of_end_is_verified() -> None:
    report = verified(BODIES, SIGNED, **WITNESSES)

    assert {} == codes(report)
    assert (len(BODIES), frontier(BODIES).root().hex()) == (report.entries, report.root)
    assert (LOG_KEY.verifier.encode(), True) == (report.anchor, report.is_pinned)
    assert [((LOG_KEY.verifier.encode(),), ((WITNESS.name, 1_800_000_000),))] == [
        (one.signed_by, one.cosigned) for one in report.checkpoints
    ]


def test_the_report_says_what_each_population_has_spent() -> None:
    (population,) = verified(BODIES, SIGNED).populations
    (quota,) = population.quotas

    assert ("pop_1", 8.0, 1e-5, "ADD_OR_REMOVE_ONE") == (
        population.id,
        population.epsilon,
        population.delta,
        population.relation,
    )
    assert (7, 1, 2) == (population.decisions, population.refusals, population.publications)
    assert {"published": 2, "released": 1, "quarantined": 1, "resolved": 1, "running": 1} == population.runs
    assert 0 < population.spent_epsilon < population.committed_epsilon < 8.0
    assert ("project", "prj_1", 4.0) == (quota.scope, quota.scope_id, quota.epsilon)


# --- bytes and order, under the true checkpoint ---


@pytest.mark.parametrize("index", range(len(BODIES)))
def test_a_flipped_bit_in_any_entry_is_found(index: int) -> None:
    body = BODIES[index]
    for at in range(0, len(body), max(len(body) // 12, 1)):
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert "root_mismatch" in codes(verified([*BODIES[:index], changed, *BODIES[index + 1 :]], SIGNED))


@given(st.integers(0, len(BODIES) - 1), st.data())
def test_any_other_byte_anywhere_is_found(index: int, data: st.DataObject) -> None:
    body = BODIES[index]
    at = data.draw(st.integers(0, len(body) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[at]))
    changed = body[:at] + bytes([value]) + body[at + 1 :]
    found = codes(verified([*BODIES[:index], changed, *BODIES[index + 1 :]], SIGNED))
    assert {"root_mismatch", "missing_entry"} & set(found)  # a newline makes two entries of one, neither of them whole


def test_a_changed_entry_lies_between_two_checkpoints() -> None:
    changed = [*BODIES[:12], BODIES[12].replace(b'"rounds":3', b'"rounds":2'), *BODIES[13:]]
    sizes = (8, 16, 32)
    notes = [signed(BODIES[:size], name=f"at {size}") for size in sizes]
    report = verified(changed, *notes)
    assert [
        "the first 16 entries do not hash to the root in at 16: one of 8 to 15 was changed",
        "the first 32 entries do not hash to the root in at 32: one of 8 to 31 was changed",
    ] == [one.message for one in report.findings.kept if one.code == "root_mismatch"]


def test_a_changed_entry_is_named_where_its_leaf_hash_is_known() -> None:
    changed = [*BODIES[:12], BODIES[12].replace(b'"rounds":3', b'"rounds":2'), *BODIES[13:]]
    leaves = [leaf_hash(body) for body in BODIES]
    assert [12] == places(verified(changed, SIGNED, leaf_hashes=leaves), "changed_entry")
    assert {} == codes(verified(BODIES, SIGNED, leaf_hashes=leaves))
    assert [31] == places(verified(BODIES[:31], SIGNED, leaf_hashes=leaves), "missing_entry")[-1:]


@pytest.mark.parametrize("index", range(len(BODIES)))
def test_an_entry_that_is_left_out_is_named(index: int) -> None:
    report = verified([*BODIES[:index], *BODIES[index + 1 :]], SIGNED)
    assert index in places(report, "missing_entry")


@pytest.mark.parametrize("index", range(len(BODIES)))
def test_an_entry_that_comes_twice_is_named(index: int) -> None:
    report = verified([*BODIES[: index + 1], *BODIES[index:]], SIGNED)
    assert [index] == places(report, "repeated_entry")
    assert [len(BODIES)] == places(report, "unsigned_entry")


@pytest.mark.parametrize("index", range(len(BODIES) - 1))
def test_entries_that_change_places_are_named(index: int) -> None:
    swapped = [*BODIES[:index], BODIES[index + 1], BODIES[index], *BODIES[index + 2 :]]
    report = verified(swapped, SIGNED)
    assert [index] == places(report, "reordered_entry")
    assert [] == places(report, "missing_entry")
    assert "root_mismatch" in codes(report)


@pytest.mark.parametrize("length", range(len(BODIES)))
def test_an_end_that_is_cut_off_is_named(length: int) -> None:
    assert length in places(verified(BODIES[:length], SIGNED), "missing_entry")


def test_an_entry_of_which_the_end_is_cut_off_is_named() -> None:
    whole = b"".join(body + b"\n" for body in BODIES)
    report = verify(io.BytesIO(whole[:-10]), Known(checkpoints=(SIGNED,), log_key=LOG_KEY.verifier))
    assert {"malformed_entry", "root_mismatch"} == set(codes(report))
    no_newline = verify(io.BytesIO(whole[:-1]), Known(checkpoints=(SIGNED,), log_key=LOG_KEY.verifier))
    assert {} == codes(no_newline)


def test_a_forged_entry_at_the_end_is_named() -> None:
    forged = every_end()
    forged.quota(epsilon=8.0)
    assert [len(BODIES)] == places(verified(forged.bodies(), SIGNED), "unsigned_entry")


# --- everything hashed anew, by somebody without the log's key ---


def test_a_ledger_that_is_signed_with_another_key_is_named() -> None:
    assert {"unknown_key"} == set(codes(verified(BODIES, signed(BODIES, FOREIGN_KEY))))


def test_a_ledger_that_enrols_another_key_from_the_start_is_named_by_the_pinned_key() -> None:
    foreign = every_end()
    foreign.rows[0].facts["verifier_key"] = FOREIGN_KEY.verifier.encode()
    bodies = foreign.bodies()
    assert {"unknown_key"} == set(codes(verified(bodies, signed(bodies, FOREIGN_KEY))))


def test_without_a_pinned_key_the_ledgers_own_is_taken_and_it_says_so() -> None:
    foreign = every_end()
    foreign.rows[0].facts["verifier_key"] = FOREIGN_KEY.verifier.encode()
    bodies = foreign.bodies()
    report = verified(bodies, signed(bodies, FOREIGN_KEY), log_key=None)
    assert ({}, False) == (codes(report), report.is_pinned)


def test_a_rotation_that_the_old_key_did_not_sign_is_named() -> None:
    taken = every_end()
    place = taken.key(FOREIGN_KEY)
    bodies = taken.bodies()
    assert [place] == places(verified(bodies, signed(bodies, FOREIGN_KEY)), "unproved_rotation")


def test_a_rotation_that_both_keys_signed_is_followed_from_then_on() -> None:
    made = every_end()
    made.key(NEXT_KEY)
    rotation = signed(made.bodies(), NEXT_KEY, LOG_KEY, name="rotation")
    made.whole_run("run_7")
    bodies = made.bodies()
    newest = signed(bodies, NEXT_KEY, name="newest")

    assert {} == codes(verified(bodies, newest, rotation))
    assert {"unproved_rotation"} == set(codes(verified(bodies, newest)))
    assert {} == codes(verified(bodies, newest, log_key=NEXT_KEY.verifier))
    assert {"unknown_key"} <= set(codes(verified(bodies, signed(bodies, LOG_KEY), rotation)))


def test_a_rotation_checkpoint_of_another_tree_proves_nothing() -> None:
    made = every_end()
    place = made.key(NEXT_KEY)
    made.rows[7].facts["rounds"] = 4
    other = every_end()
    other.rows[4].facts["epsilon"] = 3.0
    other.key(NEXT_KEY)
    rotation = signed(other.bodies(), NEXT_KEY, LOG_KEY, name="rotation")
    bodies = [*made.bodies()]
    report = verified(bodies, rotation, signed(bodies, NEXT_KEY, name="newest"))
    assert [place] == places(report, "unproved_rotation")
    assert "root_mismatch" in codes(report)


def test_a_signature_that_was_changed_is_named() -> None:
    text = SIGNED.note.encode()
    start = text.index("\n\n") + 2
    at = text.index(" ", start + 3) + 20
    other = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
    report = verified(BODIES, read("checkpoint", "checkpoint", other.encode()))
    assert {"bad_signature"} == set(codes(report))


def test_a_checkpoint_of_another_log_is_named() -> None:
    tree = frontier(BODIES)
    text = Checkpoint("other.example.org", tree.size, tree.root()).text()
    note = Note(text, (LOG_KEY.sign(text),))
    assert {"bad_checkpoint": 1} == codes(verified(BODIES, read("c", "checkpoint", note.encode().encode())))


def test_a_ledger_without_a_key_is_verified_against_the_pinned_one() -> None:
    made = every_end()
    del made.rows[0]
    bodies = made.bodies()
    assert {} == codes(verified(bodies))
    assert {"unknown_key"} == set(codes(verified(bodies, log_key=None)))


# --- witnesses, and what the auditor kept ---


def test_a_checkpoint_without_the_witness_is_named() -> None:
    assert {"witness_missing"} == set(codes(verified(BODIES, signed(BODIES), **WITNESSES)))


def test_a_witness_of_another_key_under_the_same_name_is_no_witness() -> None:
    other = SignerKey.generate(WITNESS.name, WITNESS.kind)
    assert {"witness_missing"} == set(codes(verified(BODIES, signed(BODIES, LOG_KEY, other), **WITNESSES)))


def test_a_rollback_to_an_old_state_with_its_old_checkpoint_is_found_by_the_newer_one() -> None:
    kept = signed(BODIES, LOG_KEY, WITNESS, name="kept", kind="earlier")
    old = BODIES[:20]
    report = verified(old, signed(old, LOG_KEY, WITNESS), kept, **WITNESSES)
    assert [20] == places(report, "rolled_back")
    assert "witness_conflict" in codes(report)


def test_a_rollback_is_found_by_an_earlier_export() -> None:
    assert {"rolled_back": 1} == codes(earlier(BODIES[:20], previous=BODIES))


def test_a_fork_that_the_log_signed_is_found_by_the_checkpoint_of_the_other_side() -> None:
    kept = signed(BODIES[:20], LOG_KEY, WITNESS, name="kept", kind="earlier")
    other = every_end()
    other.rows[12].facts |= {"rounds": 2, "rounds_debited": 2}
    other.rows[13].facts |= {"rounds_released": 8, "rounds_debited": 2}
    bodies = other.bodies()

    assert {"fork", "witness_conflict"} == set(
        codes(verified(bodies, signed(bodies, LOG_KEY, WITNESS), kept, **WITNESSES))
    )
    assert {"fork"} == set(codes(verified(bodies, signed(bodies), kept)))


def test_a_fork_is_found_by_an_earlier_export_with_its_first_entry() -> None:
    other = Made(every_end().rows[:14])
    other.whole_run("run_9")
    assert [14] == places(earlier(other.bodies(), previous=BODIES[:18]), "fork")


def test_a_rewritten_entry_is_named_by_an_earlier_export() -> None:
    other = every_end()
    other.rows[4].facts["epsilon"] = 8.0
    report = earlier(other.bodies(), previous=BODIES[:20])
    assert ([4], {"changed_entry": 1}) == (places(report, "changed_entry"), codes(report))


def test_a_longer_ledger_continues_an_earlier_export_and_checkpoint() -> None:
    made = every_end()
    made.whole_run("run_7")
    bodies = made.bodies()
    kept = signed(BODIES, name="kept", kind="earlier")
    known = Known(checkpoints=(signed(bodies), kept), log_key=LOG_KEY.verifier, earlier_export=export(BODIES))
    assert {} == codes(verify(export(bodies), known))


# --- by the log itself: everything is hashed and signed anew, so the state machine has to find it ---


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m: m.rows.pop(8), "publication_without_debits"),
        (lambda m: m.rows.pop(7), "debit_gap"),
        (lambda m: m.published("run_1"), "published_twice"),
        (lambda m: m.rows.insert(8, m.rows[7]), "debited_twice"),
        (lambda m: m.rows[13].facts.update(rounds_released=8), "freed_debited_round"),
        (lambda m: m.opened(epsilon=100.0), "illegal_transition"),
        (lambda m: m.rows[4].facts.update(epsilon=80.0), "illegal_transition"),
        (lambda m: m.rows[4].facts.update(epsilon=0.7), "over_admitted"),
        (lambda m: m.rows[5].facts["charge"].update(units_per_round=["1"] * 185), "under_charged"),
    ],
)
def test_what_the_log_itself_rewrites_is_found_by_the_state_machine(
    change: Callable[[Made], object], code: str
) -> None:
    bodies = every_end().changed(change).bodies()
    found = codes(verified(bodies, signed(bodies)))
    assert code in found
    assert not {"root_mismatch", "bad_signature", "missing_entry"} & set(found)


def test_a_smaller_cap_than_was_spent_is_found() -> None:
    def inflate(made: Made) -> None:
        made.rows[2].facts["budget"]["epsilon"] = 1.0

    bodies = every_end().changed(inflate).bodies()
    assert "over_admitted" in codes(verified(bodies))


# --- files that nobody should have made ---


def test_garbage_is_findings_and_ends() -> None:
    for content in (b"", b"\n\n\n", b"\x00" * 1000, b"{}\n" * 50, b"[" * 10_000, json.dumps({"a": 1}).encode()):
        report = verify(io.BytesIO(content), Known(checkpoints=(SIGNED,), log_key=LOG_KEY.verifier))
        assert not report.is_clean


def test_a_line_without_an_end_is_read_piece_by_piece() -> None:
    content = BODIES[0] + b"\n" + b"x" * (9 * 2**20) + b"\n" + BODIES[1] + b"\n"
    found = list(lines(io.BytesIO(content)))
    assert [BODIES[0], BODIES[1]] == [found[0], found[2]]
    assert len(found[1]) < 5 * 2**20
    assert "malformed_entry" in codes(verify(io.BytesIO(content), Known()))


def test_the_tree_is_that_of_the_log() -> None:
    empty = verify(io.BytesIO(b""), Known())
    assert (0, Frontier.empty().root().hex()) == (empty.entries, empty.root)
    assert ORIGIN == SIGNED.checkpoint.origin
