"""The tree against the definition, the known vectors of RFC 6962's authors, and an independent implementation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pymerkle  # type: ignore[import-untyped]  # no annotations, no stubs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.ledger import merkle
from governance.ledger.merkle import EMPTY_ROOT, Frontier, Node, ProofError

LARGEST = 130
# The inputs and roots that the authors of RFC 6962 publish with their implementation.
KNOWN_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@dataclass
class Rows:
    """What the database keeps: each entry's leaf hash and the subtrees that it completes."""

    leaves: list[bytes] = field(default_factory=list)
    subtrees: list[bytes] = field(default_factory=list)
    frontier: Frontier = field(default_factory=Frontier.empty)
    fetches: int = 0

    def append(self, body: bytes) -> None:
        leaf = merkle.leaf_hash(body)
        self.frontier, completed = self.frontier.append(leaf)
        self.leaves.append(leaf)
        self.subtrees.append(b"".join(completed))

    def fetch(self, nodes: Sequence[Node]) -> Mapping[Node, bytes]:
        self.fetches += 1
        found = {}
        for node in nodes:
            index, slot = merkle.stored_at(*node)
            found[node] = self.leaves[index] if slot < 0 else merkle.split(self.subtrees[index])[slot]
        return found

    def root(self, size: int) -> bytes:
        return merkle.root_at(size, self.fetch)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return merkle.inclusion_proof(index, size, self.fetch)

    def consistency(self, old: int, new: int) -> list[bytes]:
        return merkle.consistency_proof(old, new, self.fetch)


def rows_of(bodies: Sequence[bytes]) -> Rows:
    rows = Rows()
    for body in bodies:
        rows.append(body)
    return rows


def bodies(count: int) -> list[bytes]:
    return [f'{{"index":{index}}}'.encode() for index in range(count)]


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH as RFC 6962 section 2.1 writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


ROWS = rows_of(bodies(LARGEST))
LARGE = rows_of(bodies(5000))


@pytest.fixture(scope="module")
def independent() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for body in bodies(5000):
        tree.append_entry(body)
    return tree


def random_sizes(largest: int, count: int) -> list[int]:
    return [random.Random(largest).randint(1, largest) for _ in range(count)]


# --- roots -----------------------------------------------------------------------------------------------------------


def test_the_roots_are_those_that_the_rfcs_authors_publish() -> None:
    rows = rows_of(KNOWN_LEAVES)
    assert KNOWN_ROOTS == [rows.root(size).hex() for size in range(1, 9)]


def test_the_empty_trees_root_is_the_hash_of_nothing() -> None:
    assert hashlib.sha256(b"").digest() == Frontier.empty().root() == ROWS.root(0) == EMPTY_ROOT


def test_roots_of_all_sizes_follow_the_definition() -> None:
    for size in range(LARGEST + 1):
        assert tree_hash(ROWS.leaves[:size]) == ROWS.root(size)


def test_the_frontier_has_the_root_of_what_was_appended_at_every_size() -> None:
    frontier = Frontier.empty()
    for size, leaf in enumerate(ROWS.leaves, start=1):
        frontier, _ = frontier.append(leaf)
        assert ROWS.root(size) == frontier.root()
        assert merkle.frontier_at(size, ROWS.fetch) == frontier


def test_roots_are_those_of_an_independent_implementation(independent: pymerkle.InmemoryTree) -> None:
    for size in [*range(1, LARGEST + 1), *random_sizes(5000, 40), 5000]:
        assert independent.get_state(size) == LARGE.root(size)


def test_a_frontier_survives_its_bytes() -> None:
    for size in (0, 1, 7, 64, 129):
        frontier = merkle.frontier_at(size, ROWS.fetch)
        assert frontier == Frontier.decode(size, frontier.encode())


@pytest.mark.parametrize("size", [0, 2, 8, 127, -1])
def test_a_frontier_of_another_size_is_refused(size: int) -> None:
    blob = merkle.frontier_at(5, ROWS.fetch).encode()
    with pytest.raises(ValueError, match="damaged"):
        Frontier.decode(size, blob if size != 2 else blob[:-1])


def test_cut_hashes_are_refused() -> None:
    with pytest.raises(ValueError, match="damaged"):
        merkle.split(b"\x00" * 33)


def test_nodes_lie_beside_the_leaf_that_completes_them() -> None:
    assert [(5, -1), (7, 0), (7, 1), (7, 2), (15, 2)] == [
        merkle.stored_at(level, position) for level, position in ((0, 5), (1, 3), (2, 1), (3, 0), (3, 1))
    ]


# --- proofs against the independent implementation -------------------------------------------------------------------


def test_inclusion_proofs_are_those_of_an_independent_implementation(independent: pymerkle.InmemoryTree) -> None:
    for size in [*range(1, 40), LARGEST, *random_sizes(5000, 20)]:
        for index in sorted({0, size // 3, size // 2, size - 1}):
            theirs = independent.prove_inclusion(index + 1, size)
            proof = LARGE.inclusion(index, size)
            pymerkle.verify_inclusion(LARGE.leaves[index], LARGE.root(size), theirs)
            assert sorted(proof) == sorted(one for one in theirs.path if one != LARGE.leaves[index])
            merkle.verify_inclusion(LARGE.leaves[index], index, size, proof, independent.get_state(size))


def test_consistency_proofs_hold_for_an_independent_implementations_trees_and_its_proofs_for_ours(
    independent: pymerkle.InmemoryTree,
) -> None:
    sizes = [(old, new) for new in range(1, 40) for old in range(1, new)]
    sizes += [(random.Random(new).randint(1, new - 1), new) for new in random_sizes(4000, 40) if new > 1]
    for old, new in sizes:
        old_root, new_root = independent.get_state(old), independent.get_state(new)
        merkle.verify_consistency(old, old_root, new, new_root, LARGE.consistency(old, new))
        # Its proofs list complete subtrees one by one, where the RFC's list their sums, so the bytes differ.
        pymerkle.verify_consistency(LARGE.root(old), LARGE.root(new), independent.prove_consistency(old, new))


# --- proofs against the tree -----------------------------------------------------------------------------------------


def test_every_leaf_of_every_tree_is_proved() -> None:
    for size in range(1, LARGEST + 1):
        root = ROWS.root(size)
        for index in range(size):
            merkle.verify_inclusion(ROWS.leaves[index], index, size, ROWS.inclusion(index, size), root)


def test_every_earlier_tree_is_proved() -> None:
    roots = [ROWS.root(size) for size in range(LARGEST + 1)]
    for new in range(LARGEST + 1):
        for old in range(new + 1):
            merkle.verify_consistency(old, roots[old], new, roots[new], ROWS.consistency(old, new))


@pytest.mark.parametrize(
    "prove",
    [lambda rows: rows.inclusion(2, 4999), lambda rows: rows.consistency(4095, 4999), lambda rows: rows.root(9)],
)
def test_a_proof_reads_once(prove: Callable[[Rows], object]) -> None:
    rows = Rows(LARGE.leaves, LARGE.subtrees)
    prove(rows)
    assert 1 == rows.fetches


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (0, -1)])
def test_no_proof_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        ROWS.inclusion(index, size)
    with pytest.raises(ProofError, match="no leaf"):
        merkle.verify_inclusion(ROWS.leaves[0], index, size, [], EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(3, 2), (-1, 2), (1, 0)])
def test_no_proof_for_a_tree_that_shrinks(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="no earlier state"):
        ROWS.consistency(old, new)
    with pytest.raises(ProofError, match="no earlier state"):
        merkle.verify_consistency(old, EMPTY_ROOT, new, EMPTY_ROOT, [])


def test_two_roots_of_one_size_are_named_a_fork() -> None:
    with pytest.raises(ProofError, match="forked"):
        merkle.verify_consistency(4, ROWS.root(4), 4, ROWS.root(3), [])


def test_another_root_of_the_empty_tree_is_refused() -> None:
    with pytest.raises(ProofError, match="empty tree"):
        merkle.verify_consistency(0, ROWS.root(1), 4, ROWS.root(4), [])


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(ProofError, match="hash 0 of the proof has 31 bytes"):
        merkle.verify_inclusion(ROWS.leaves[0], 0, 2, [b"\x00" * 31], ROWS.root(2))
    with pytest.raises(ProofError, match="new root has 0 bytes"):
        merkle.verify_consistency(1, ROWS.root(1), 2, b"", [ROWS.leaves[1]])


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    inner = ROWS.leaves[0] + ROWS.leaves[1]
    with pytest.raises(ProofError, match="another root"):
        merkle.verify_inclusion(merkle.leaf_hash(inner), 0, 2, [ROWS.root(4)], ROWS.root(4))


# --- whatever is changed, the proof fails ----------------------------------------------------------------------------

SIZES = st.integers(2, 5000)


def flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8 % len(value)] ^= 1 << bit % 8
    return bytes(changed)


def changed_proofs(proof: list[bytes], data: st.DataObject) -> list[bytes]:
    """Never the same proof again."""
    ways = ["longer"] + (["flipped", "shorter", "without one"] if proof else [])
    way = data.draw(st.sampled_from(ways))
    if way == "longer":
        return [*proof, data.draw(st.binary(min_size=32, max_size=32))]
    at = data.draw(st.integers(0, len(proof) - 1))
    if way == "flipped":
        return [*proof[:at], flipped(proof[at], data.draw(st.integers(0, 255))), *proof[at + 1 :]]
    return proof[:at] if way == "shorter" else [*proof[:at], *proof[at + 1 :]]


@settings(max_examples=300, deadline=None)
@given(SIZES, st.data())
def test_a_changed_inclusion_proof_fails(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root = changed_proofs(LARGE.inclusion(index, size), data), LARGE.root(size)
    with pytest.raises(ProofError):
        merkle.verify_inclusion(LARGE.leaves[index], index, size, proof, root)


@settings(max_examples=300, deadline=None)
@given(SIZES, st.data())
def test_an_inclusion_proof_of_something_else_fails(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, leaf, root = LARGE.inclusion(index, size), LARGE.leaves[index], LARGE.root(size)
    match data.draw(st.sampled_from(["leaf", "index", "root"])):
        case "leaf":
            leaf = flipped(leaf, data.draw(st.integers(0, 255)))
        case "index":
            index = data.draw(st.integers(0, size - 1).filter(lambda other: other != index))
        case _:
            root = flipped(root, data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        merkle.verify_inclusion(leaf, index, size, proof, root)


@settings(max_examples=300, deadline=None)
@given(SIZES, st.data())
def test_a_changed_consistency_proof_fails(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    proof = changed_proofs(LARGE.consistency(old, new), data)
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, LARGE.root(old), new, LARGE.root(new), proof)


@settings(max_examples=300, deadline=None)
@given(SIZES, st.data())
def test_a_consistency_proof_between_other_trees_fails(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    proof, old_root, new_root = LARGE.consistency(old, new), LARGE.root(old), LARGE.root(new)
    if data.draw(st.booleans()):
        old_root = flipped(old_root, data.draw(st.integers(0, 255)))
    else:
        new_root = flipped(new_root, data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, old_root, new, new_root, proof)
