"""A witness's decisions, request by request, as c2sp.org/tlog-witness has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from api import witness_state
from api.witness_state import SIZE_TYPE, Witness, WitnessStateError
from governance.ledger import merkle, notes
from governance.ledger.merkle import Frontier, Node
from governance.ledger.notes import Checkpoint, Note, SignerKey

ORIGIN = "pysytff.local/log"
LOG = SignerKey.generate(ORIGIN)
AT = 1_679_315_147
WITNESS_KEY = "witness.example/w1+df1c0a35+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU"


class Log:
    """A tree and its checkpoints."""

    def __init__(self, say: str = "entry") -> None:
        self.leaves = [merkle.leaf_hash(f"{say} {number}".encode()) for number in range(40)]

    def note(self, size: int, key: SignerKey = LOG, origin: str = ORIGIN) -> Note:
        frontier = Frontier.empty()
        for leaf in self.leaves[:size]:
            frontier, _ = frontier.append(leaf)
        text = Checkpoint(origin, size, frontier.root()).text()
        return Note(text, (key.sign(text),))

    def proof(self, old: int, new: int) -> list[bytes]:
        return merkle.consistency_proof(old, new, self._fetch)

    def _fetch(self, nodes: Sequence[Node]) -> Mapping[Node, bytes]:
        found = {}
        for level, position in nodes:
            frontier = Frontier.empty()
            for leaf in self.leaves[position << level : (position + 1) << level]:
                frontier, _ = frontier.append(leaf)
            found[level, position] = frontier.root()
        return found

    def request(self, old: int, new: int, *, note: Note | None = None, proof: Sequence[bytes] | None = None) -> bytes:
        hashes = self.proof(old, new) if proof is None else proof
        lines = [f"old {old}", *(notes.encode_hash(one) for one in hashes), "", (note or self.note(new)).encode()]
        return "\n".join(lines).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    witness_state.init(tmp_path / "witness", "witness.example/w1")
    witness_state.trust(tmp_path / "witness", LOG.verifier.encode())
    return tmp_path / "witness"


@pytest.fixture
def witness(folder: Path) -> Iterator[Witness]:
    made = Witness(folder, clock=lambda: AT + 0.9)
    yield made
    made.close()


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_first_checkpoint_is_cosigned_at_this_second(witness: Witness, log: Log) -> None:
    answer = witness.add_checkpoint(log.request(0, 5))
    assert 200 == answer.status
    note = log.note(5).with_signatures(notes.parse_signatures(answer.text))
    assert [(witness.key, AT)] == [(one.key, one.at) for one in note.verify([witness.key])]


def test_a_checkpoint_that_continues_the_last_is_cosigned(witness: Witness, log: Log) -> None:
    for old, new in ((0, 5), (5, 5), (5, 6), (6, 39)):
        assert 200 == witness.add_checkpoint(log.request(old, new)).status


def test_what_was_cosigned_outlives_the_process(folder: Path, log: Log) -> None:
    first = Witness(folder)
    first.add_checkpoint(log.request(0, 5))
    first.close()
    second = Witness(folder)
    answer = second.add_checkpoint(log.request(0, 6))
    second.close()
    assert (409, "5\n", SIZE_TYPE) == (answer.status, answer.text, answer.media_type)


def test_nothing_is_cosigned_that_is_not_on_disk(
    witness: Witness, log: Log, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(witness_state, "write_whole", full)
        with pytest.raises(OSError, match="no space"):
            witness.add_checkpoint(log.request(0, 5))
    assert 0 == witness_state.last_cosigned(folder, ORIGIN).size


def test_an_unknown_log_is_not_found(witness: Witness, log: Log) -> None:
    note = log.note(5, SignerKey.generate("else"), "else")
    assert 404 == witness.add_checkpoint(log.request(0, 5, note=note)).status


def test_a_key_of_another_log_does_not_sign_for_this_one(witness: Witness, log: Log, folder: Path) -> None:
    other = SignerKey.generate("else")
    witness_state.trust(folder, other.verifier.encode())
    assert 403 == witness.add_checkpoint(log.request(0, 5, note=log.note(5, other))).status


def test_a_checkpoint_that_no_trusted_key_signed_is_forbidden(witness: Witness, log: Log) -> None:
    assert 403 == witness.add_checkpoint(log.request(0, 5, note=log.note(5, SignerKey.generate(ORIGIN)))).status


def test_a_bad_signature_is_forbidden(witness: Witness, log: Log) -> None:
    forged = Note(log.note(5).text, log.note(6).signatures)
    assert 403 == witness.add_checkpoint(log.request(0, 5, note=forged)).status


def test_a_smaller_checkpoint_is_a_conflict(witness: Witness, log: Log, folder: Path) -> None:
    witness.add_checkpoint(log.request(0, 9))
    answer = witness.add_checkpoint(log.request(0, 5))
    assert (409, "9\n", SIZE_TYPE) == (answer.status, answer.text, answer.media_type)
    assert 9 == witness_state.last_cosigned(folder, ORIGIN).size


def test_an_old_size_beyond_the_checkpoints_is_malformed(witness: Witness, log: Log) -> None:
    witness.add_checkpoint(log.request(0, 9))
    assert 400 == witness.add_checkpoint(log.request(9, 5, proof=[])).status


def test_another_root_of_the_same_size_is_a_conflict_and_kept_as_evidence(
    witness: Witness, log: Log, folder: Path
) -> None:
    witness.add_checkpoint(log.request(0, 9))
    forked = Log("else").request(9, 9)
    answer = witness.add_checkpoint(forked)
    assert (409, "9\n") == (answer.status, answer.text)
    assert [forked] == [file.read_bytes() for file in (folder / "evidence").iterdir()]


def kept(folder: Path, where: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((folder / where).glob("*"))]


def test_a_fork_that_cannot_be_proved_becomes_evidence_when_its_size_is_cosigned(
    witness: Witness, log: Log, folder: Path
) -> None:
    witness.add_checkpoint(log.request(0, 9))
    forked = Log("else").request(9, 12)
    assert 422 == witness.add_checkpoint(forked).status
    assert ([forked], []) == (kept(folder, "unproven"), kept(folder, "evidence"))
    assert 200 == witness.add_checkpoint(log.request(9, 12)).status
    assert ([], [forked]) == (kept(folder, "unproven"), kept(folder, "evidence"))


def test_wrong_proofs_of_a_stranger_crowd_no_evidence_out(witness: Witness, log: Log, folder: Path) -> None:
    witness.add_checkpoint(log.request(0, 9))
    for number in range(120):
        wrong = log.request(9, 12, proof=[number.to_bytes(32, "big")])
        assert 422 == witness.add_checkpoint(wrong).status
    assert 1 == len(kept(folder, "unproven"))
    forked = Log("else").request(9, 9)
    assert 409 == witness.add_checkpoint(forked).status
    assert 200 == witness.add_checkpoint(log.request(9, 12)).status
    assert ([], [forked]) == (kept(folder, "unproven"), kept(folder, "evidence"))


def test_a_proof_with_a_hash_too_many_is_refused(witness: Witness, log: Log) -> None:
    assert 422 == witness.add_checkpoint(log.request(0, 5, proof=[bytes(32)])).status


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("old 0", "old 00"),
        lambda text: text.replace("old 0", "old -1"),
        lambda text: text.replace("old 0", "old  0"),
        lambda text: text.replace("old 0", "new 0"),
        lambda text: text.replace("old 0\n", ""),
        lambda text: text.replace("old 0\n", "old 0\r\n"),
        lambda text: text.replace("old 0\n", "old 0\nAAAA\n"),
        lambda text: text.replace("old 0\n", "old 0\n" + notes.encode_hash(bytes(32)) + "\n" * 1 + "é\n"),
        lambda text: text.replace("old 0\n", "old 0\n" + (notes.encode_hash(bytes(32)) + "\n") * 64),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text[:-1],
        lambda text: "",
    ],
)
def test_a_malformed_request_is_refused(witness: Witness, log: Log, change: object, folder: Path) -> None:
    assert callable(change)
    assert 400 == witness.add_checkpoint(change(log.request(0, 5).decode()).encode()).status
    assert 0 == witness_state.last_cosigned(folder, ORIGIN).size


def test_a_rotated_log_is_cosigned_once_its_new_key_is_trusted(witness: Witness, log: Log, folder: Path) -> None:
    newer = SignerKey.generate(ORIGIN)
    assert 403 == witness.add_checkpoint(log.request(0, 5, note=log.note(5, newer))).status
    witness_state.trust(folder, newer.verifier.encode())
    assert 200 == witness.add_checkpoint(log.request(0, 5, note=log.note(5, newer))).status


@pytest.mark.parametrize("trusted_in_time", [True, False])
def test_a_key_that_was_rotated_out_moves_nothing_once_the_newer_one_is_trusted(
    witness: Witness, log: Log, folder: Path, trusted_in_time: bool
) -> None:
    newer = SignerKey.generate(ORIGIN)
    witness.add_checkpoint(log.request(0, 5))
    if trusted_in_time:
        witness_state.trust(folder, newer.verifier.encode())
    both = log.note(6, newer).with_signatures(log.note(6).signatures)
    assert 200 == witness.add_checkpoint(log.request(5, 6, note=both)).status
    if not trusted_in_time:
        witness_state.trust(folder, newer.verifier.encode())
    assert 403 == witness.add_checkpoint(log.request(6, 7)).status
    assert 200 == witness.add_checkpoint(log.request(6, 7, note=log.note(7, newer))).status
    assert 403 == witness.add_checkpoint(log.request(7, 8)).status


def test_a_damaged_record_ends_the_service(witness: Witness, log: Log, folder: Path) -> None:
    witness.add_checkpoint(log.request(0, 5))
    (record,) = (folder / "cosigned").iterdir()
    record.write_bytes(b"")
    with pytest.raises(WitnessStateError, match="must not go on"):
        witness.add_checkpoint(log.request(0, 6))


def test_one_process_at_a_time(witness: Witness, folder: Path) -> None:
    with pytest.raises(WitnessStateError, match="runs from"):
        Witness(folder)
    assert witness.key == witness_state.show(folder)[0]


def test_a_witness_is_made_once(folder: Path) -> None:
    before = witness_state.show(folder)[0]
    with pytest.raises(WitnessStateError, match="already"):
        witness_state.init(folder, "witness.example/w2")
    assert before == witness_state.show(folder)[0]


def test_what_was_cosigned_is_shown(witness: Witness, log: Log, folder: Path) -> None:
    witness.add_checkpoint(log.request(0, 5))
    assert [(LOG.verifier, 5)] == [(key, checkpoint.size) for key, checkpoint in witness_state.show(folder)[1]]


def test_no_witness_without_a_folder_or_with_a_key_that_others_may_read(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(WitnessStateError, match="init"):
        Witness(tmp_path / "nothing")
    (folder / "witness-key").chmod(0o644)
    with pytest.raises(WitnessStateError, match="chmod 600"):
        Witness(folder)


@pytest.mark.parametrize("text", ["x", WITNESS_KEY])
def test_what_is_no_logs_key_is_not_trusted(folder: Path, text: str) -> None:
    with pytest.raises(WitnessStateError, match="log's"):
        witness_state.trust(folder, text)
    assert 1 == len(witness_state.show(folder)[1])
