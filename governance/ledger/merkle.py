"""The Merkle tree over the ledger's entries (RFC 6962 section 2.1; RFC 9162 keeps the same tree).

The tree of n leaves splits at the largest power of two below n, and so on. Complete subtrees never change once their
last leaf is there, so each is stored once, beside the leaf that completes it (``stored_at``); every root and proof, of
every size, is computed from these.

Invariants
- It needs the standard library only.
- A leaf is hashed with the prefix 0x00 and an inner node with 0x01, so neither can pass for the other. The root of the
  empty tree is SHA-256 of nothing.
- Appending costs as many hashes as subtrees become complete: one on average, log2(n) at most.
- A proof reads O(log² n) nodes at most, in one ``fetch``.
- A verifier believes nothing that it is given: hashes of another length, more or fewer of them, an index outside the
  tree and a size that shrinks are all ``ProofError``.

This module does not: read entries, sign, or know where nodes are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Node = tuple[
    int, int
]  # (level, position): leaves are level 0; a node of level L covers 2^L leaves from position · 2^L on
Fetch = Callable[[Sequence[Node]], Mapping[Node, bytes]]


class ProofError(ValueError):
    """The proof does not show what it is said to show; the text says why."""


def leaf_hash(body: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """What must be known of a tree to append to it: the roots of its complete subtrees, the largest (leftmost) first.

    There is one for each bit that is set in ``size``.
    """

    size: int
    peaks: tuple[bytes, ...]

    @staticmethod
    def empty() -> Frontier:
        return Frontier(0, ())

    def append(self, leaf: bytes) -> tuple[Frontier, tuple[bytes, ...]]:
        """The frontier after a leaf's hash, and the hashes of the subtrees of levels 1, 2, … that it completes."""
        peaks, size, level, current = list(self.peaks), self.size, 0, leaf
        completed: list[bytes] = []
        while size >> level & 1:
            current = node_hash(peaks.pop(), current)
            completed.append(current)
            level += 1
        peaks.append(current)
        return Frontier(size + 1, tuple(peaks)), tuple(completed)

    def root(self) -> bytes:
        return _fold(self.peaks)

    def encode(self) -> bytes:
        return b"".join(self.peaks)

    @staticmethod
    def decode(size: int, blob: bytes) -> Frontier:
        """Raises ``ValueError`` unless ``blob`` holds as many hashes as a tree of ``size`` has peaks."""
        if size < 0 or len(blob) != HASH_BYTES * size.bit_count():
            raise ValueError(
                f"a frontier of {len(blob)} bytes does not belong to a tree of {size} leaves: it is damaged"
            )
        return Frontier(size, split(blob))


def split(blob: bytes) -> tuple[bytes, ...]:
    """Concatenated hashes, one by one. Raises ``ValueError`` where one is cut off."""
    if len(blob) % HASH_BYTES:
        raise ValueError(f"{len(blob)} bytes are not a whole number of hashes: they are damaged")
    return tuple(blob[at : at + HASH_BYTES] for at in range(0, len(blob), HASH_BYTES))


def stored_at(level: int, position: int) -> tuple[int, int]:
    """(index of the entry whose row holds this node, slot in the row's ``subtrees``; slot -1 is its ``leaf_hash``)."""
    return (position + 1 << level) - 1, level - 1


def root_at(size: int, fetch: Fetch) -> bytes:
    """The root of the tree's first ``size`` leaves."""
    _check_size(size)
    return _hashes([(0, size)], fetch)[0]


def frontier_at(size: int, fetch: Fetch) -> Frontier:
    _check_size(size)
    nodes = _cover(0, size)
    found = fetch(nodes) if nodes else {}
    return Frontier(size, tuple(found[node] for node in nodes))


def inclusion_proof(index: int, size: int, fetch: Fetch) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1. Raises ``ValueError`` for a leaf that is not in the tree."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    siblings: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split_point(end - start)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((start, middle))
            start = middle
    return _hashes(siblings[::-1], fetch)


def consistency_proof(old: int, new: int, fetch: Fetch) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 section 2.1.2; empty from the empty tree and to the same tree.

    Raises ``ValueError`` where ``old`` is beyond ``new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is no earlier state of one of {new}")
    if old in (0, new):
        return []
    ranges: list[tuple[int, int]] = []
    start, end, whole = 0, new, True  # whole: the old tree is a subtree here, so its root is known to the verifier
    while end != old:
        middle = start + _split_point(end - start)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, whole = middle, False
    if not whole:
        ranges.append((start, end))
    return _hashes(ranges[::-1], fetch)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises ``ProofError``."""
    _check_hashes((), {"root": root})
    if root_of_inclusion(leaf, index, size, proof) != root:
        raise ProofError(f"the inclusion proof of leaf {index} leads to another root than the tree's of {size}")


def root_of_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to. Raises ``ProofError`` for one of another length."""
    _check_hashes(proof, {"leaf hash": leaf})
    if not 0 <= index < size:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    position, last, current = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    return current


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162 section 2.1.4.2, and the cases that it leaves out: the empty tree and the same tree.

    Raises ``ProofError``.
    """
    _check_hashes(proof, {"old root": old_root, "new root": new_root})
    if not 0 <= old <= new:
        raise ProofError(f"a tree of {old} leaves is no earlier state of one of {new}")
    if old in (0, new):
        _verify_trivial(old, old_root, new, new_root, proof)
        return
    path = list(proof)
    if old & (old - 1) == 0:  # the old tree is one complete subtree, so its root is where the path starts
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is too short")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if position & 1 or position == last:
            old_found, new_found = node_hash(sibling, old_found), node_hash(sibling, new_found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    if old_found != old_root:
        raise ProofError(f"the consistency proof leads to another root of {old} leaves: the past was changed")
    if new_found != new_root:
        raise ProofError(f"the consistency proof leads to another root of {new} leaves")


def _verify_trivial(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    if proof:
        raise ProofError("the consistency proof is too long")
    if old == 0 and old_root != EMPTY_ROOT:
        raise ProofError("the root of 0 leaves is not that of the empty tree")
    if old == new and old_root != new_root:
        raise ProofError(f"there are two roots of {old} leaves: the log was forked or rewritten")


def _check_size(size: int) -> None:
    if size < 0:
        raise ValueError(f"a tree cannot have {size} leaves")


def _check_hashes(proof: Sequence[bytes], others: Mapping[str, bytes]) -> None:
    for name, value in [*others.items(), *((f"hash {number} of the proof", one) for number, one in enumerate(proof))]:
        if len(value) != HASH_BYTES:
            raise ProofError(f"{name} has {len(value)} bytes instead of {HASH_BYTES}")


def _split_point(leaves: int) -> int:
    """The largest power of two below ``leaves``."""
    return 1 << (leaves - 1).bit_length() - 1


def _cover(start: int, end: int) -> list[Node]:
    """The complete subtrees of the range, the largest first. ``start`` is a multiple of the first one's size."""
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def _hashes(ranges: Sequence[tuple[int, int]], fetch: Fetch) -> list[bytes]:
    """The tree hash of each range of leaves, all from one ``fetch``."""
    covers = [_cover(start, end) for start, end in ranges]
    wanted = [node for cover in covers for node in cover]
    found = fetch(wanted) if wanted else {}
    return [_fold([found[node] for node in cover]) for cover in covers]


def _fold(peaks: Sequence[bytes]) -> bytes:
    """The root over complete subtrees of falling size."""
    if not peaks:
        return EMPTY_ROOT
    current = peaks[-1]
    for peak in reversed(peaks[:-1]):
        current = node_hash(peak, current)
    return current
