"""The bytes of entries and of budget vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.ledger import chain, vectors

AT = "2026-01-02T00:00:00.000000Z"
AMOUNTS = st.lists(st.integers(0, 2**127 - 1), max_size=40)


def test_an_entrys_bytes_are_canonical_json_with_its_index_in_them() -> None:
    body = chain.entry_body(3, "debit", AT, {"run_id": "run_1"}, {"rounds": 5})
    expected = (
        b'{"at":"2026-01-02T00:00:00.000000Z","facts":{"rounds":5},"index":3,"kind":"debit",'
        b'"subjects":{"run_id":"run_1"},"v":1}'
    )
    assert expected == body


def test_the_leaf_hash_is_that_of_rfc_6962() -> None:
    assert hashlib.sha256(b"\x00abc").digest() == chain.leaf_hash(b"abc")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        chain.entry_body(0, "gift", AT, {}, {})


@pytest.mark.parametrize("at", ["2026-01-02T00:00:00Z", "2026-01-02T00:00:00.000000+01:00", "2026-01-02", ""])
def test_a_time_of_another_form_is_refused(at: str) -> None:
    with pytest.raises(ValueError, match="time"):
        chain.entry_body(0, "debit", at, {}, {})


@given(AMOUNTS)
def test_vectors_survive_their_bytes(amounts: list[int]) -> None:
    assert tuple(amounts) == vectors.decode(vectors.encode(amounts))


@pytest.mark.parametrize("amount", [-1, 2**127, 2**200])
def test_amounts_beyond_127_bits_are_refused(amount: int) -> None:
    with pytest.raises(OverflowError):
        vectors.encode([amount])


def test_a_damaged_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="damaged"):
        vectors.decode(b"\x00" * 17)
