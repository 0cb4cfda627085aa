"""Signed notes, checkpoints and cosignatures: the vectors of Go's implementation, and strict reading."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.ledger import notes
from governance.ledger.notes import COSIGNATURE, Checkpoint, Note, NoteError, Signature, SignerKey, VerifierKey

# The key and the note of the tests of golang.org/x/mod/sumdb/note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    GO_TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of c2sp.org/tlog-witness and c2sp.org/tlog-checkpoint.
SPEC_CHECKPOINT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SPEC_LINE = (
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8="
)

LOG = SignerKey("pysytff.local/log", notes.ED25519, Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
WITNESS = SignerKey("witness.example/w1", COSIGNATURE, Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
CHECKPOINT = Checkpoint("pysytff.local/log", 7, bytes(range(32)))
AT = 1_679_315_147


def signed(checkpoint: Checkpoint = CHECKPOINT) -> Note:
    text = checkpoint.text()
    return Note(text, (LOG.sign(text), WITNESS.sign(text, AT)))


# --- keys ------------------------------------------------------------------------------------------------------------


def test_gos_keys_are_read_and_written_alike() -> None:
    assert GO_KEY == VerifierKey.parse(GO_KEY).encode()
    assert GO_SIGNER == SignerKey.parse(GO_SIGNER).encode()
    assert VerifierKey.parse(GO_KEY) == SignerKey.parse(GO_SIGNER).verifier


def test_every_mangling_of_a_verifier_key_is_refused() -> None:
    for start in range(len(GO_KEY) + 1):
        for end in range(start + 1, len(GO_KEY) + 1):
            if (start, end) != (0, len(GO_KEY)):
                with pytest.raises(NoteError):
                    VerifierKey.parse(GO_KEY[start:end])
    for at in range(len(GO_KEY)):
        with pytest.raises(NoteError):
            VerifierKey.parse(GO_KEY[:at] + chr(ord(GO_KEY[at]) + 1) + GO_KEY[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # one byte too many, right id
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # another algorithm, right id
    ],
)
def test_keys_of_another_length_or_algorithm_are_refused(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x01b"])
def test_names_that_could_not_be_read_again_are_refused(name: str) -> None:
    with pytest.raises(NoteError, match="name"):
        SignerKey.generate(name)


def test_no_error_quotes_a_signing_key() -> None:
    for text in (GO_SIGNER[:-4], GO_SIGNER.replace("c74f20a3", "c74f20a4"), GO_SIGNER + "="):
        with pytest.raises(NoteError) as caught:
            SignerKey.parse(text)
        assert "AYEKFALV" not in str(caught.value)
    assert "AYEKFALV" not in repr(SignerKey.parse(GO_SIGNER))


def test_a_witnesss_key_has_another_id_than_a_logs_of_the_same_bytes() -> None:
    public = LOG.verifier.public
    assert VerifierKey("a", notes.ED25519, public).key_id != VerifierKey("a", COSIGNATURE, public).key_id


# --- notes -----------------------------------------------------------------------------------------------------------


def test_gos_note_verifies_and_is_signed_again_byte_for_byte() -> None:
    note = Note.parse(GO_NOTE)
    assert GO_TEXT == note.text
    assert [GO_KEY] == [one.key.encode() for one in note.verify([VerifierKey.parse(GO_KEY)])]
    assert GO_NOTE == Note(GO_TEXT, (SignerKey.parse(GO_SIGNER).sign(GO_TEXT),)).encode()


def test_a_text_may_hold_empty_lines() -> None:
    text = "one\n\n\ntwo\n"
    note = Note(text, (LOG.sign(text),))
    assert note == Note.parse(note.encode())


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "\n",
        GO_TEXT,
        GO_TEXT + "\n",
        GO_NOTE[:-1],
        GO_NOTE + "\n",
        GO_NOTE.replace("\n\n", "\n"),
        GO_NOTE.replace("— ", "- "),
        GO_NOTE.replace("— ", "—"),
        GO_NOTE.replace("— P", "—  P"),
        GO_NOTE.replace("nAM=", "nAM"),
        GO_NOTE.replace("nAM=", "nAN="),  # the same bytes, written in another way
        GO_NOTE.replace("nAM=", "nAM= "),
        GO_NOTE.replace("nAM=\n", "nAM=\r\n"),
        GO_NOTE.replace("answer", "ans\twer"),
        GO_NOTE + "— x eDA=\n",
        GO_NOTE + "text\n",
        "x" * notes.MAX_NOTE_BYTES + GO_NOTE,
        GO_NOTE + "— x abcdabcd\n" * notes.MAX_SIGNATURES,
    ],
)
def test_what_is_not_exactly_a_note_is_refused(damaged: str) -> None:
    with pytest.raises(NoteError):
        Note.parse(damaged)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(NoteError, match="UTF-8"):
        Note.parse(GO_NOTE.encode() + b"\xff\n")


def test_sixteen_signatures_are_read() -> None:
    lines = "".join(SignerKey.generate(f"key{number}").sign(GO_TEXT).encode() for number in range(15))
    assert 16 == len(Note.parse(GO_NOTE + lines).signatures)


# --- verifying -------------------------------------------------------------------------------------------------------


def test_signatures_of_unknown_keys_are_ignored() -> None:
    stranger = SignerKey.generate(LOG.name)  # the same name, another key
    note = signed().with_signatures([stranger.sign(CHECKPOINT.text())])
    assert [LOG.verifier] == [one.key for one in note.verify([LOG.verifier])]


def test_a_note_without_a_trusted_signature_is_refused() -> None:
    with pytest.raises(NoteError, match=r"no trusted key; it names pysytff.local/log"):
        signed().verify([SignerKey.generate(LOG.name).verifier])
    with pytest.raises(NoteError, match="no trusted key"):
        signed().verify([])


def test_one_bad_signature_of_a_trusted_key_refuses_the_note() -> None:
    good, other = signed(), Checkpoint(CHECKPOINT.origin, 8, CHECKPOINT.root)
    note = Note(good.text, (good.signatures[0], WITNESS.sign(other.text(), AT)))
    assert [LOG.verifier] == [one.key for one in note.verify([LOG.verifier])]
    with pytest.raises(NoteError, match="does not verify"):
        note.verify([LOG.verifier, WITNESS.verifier])


def test_a_key_that_signed_twice_counts_once() -> None:
    text = CHECKPOINT.text()
    assert 1 == len(Note(text, (LOG.sign(text), LOG.sign(text))).verify([LOG.verifier]))


def test_a_newer_signature_of_a_key_takes_the_older_ones_place() -> None:
    newer = WITNESS.sign(CHECKPOINT.text(), AT + 1)
    assert (signed().signatures[0], newer) == signed().with_signatures([newer]).signatures


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_byte_passes(position: int, change: int) -> None:
    data = bytearray(signed().encode().encode())
    data[position % len(data)] ^= change
    assert verifying(bytes(data)) < 2  # unreadable, of an unknown key, or bad


def verifying(data: bytes) -> int:
    """How many of the two trusted keys signed it."""
    try:
        return len(Note.parse(data).verify([LOG.verifier, WITNESS.verifier]))
    except NoteError:
        return 0


# --- cosignatures ----------------------------------------------------------------------------------------------------


def test_a_cosignature_is_the_spec_s_message_under_the_spec_s_key_id() -> None:
    line = WITNESS.sign(CHECKPOINT.text(), AT)
    assert AT.to_bytes(8, "big") == line.blob[:8]
    message = f"cosignature/v1\ntime {AT}\n{CHECKPOINT.text()}".encode()
    Ed25519PublicKey.from_public_bytes(WITNESS.verifier.public).verify(line.blob[8:], message)
    assert [(LOG.verifier, None), (WITNESS.verifier, AT)] == [
        (one.key, one.at) for one in signed().verify([WITNESS.verifier, LOG.verifier])
    ]


def test_a_cosignature_of_another_time_does_not_verify() -> None:
    line = WITNESS.sign(CHECKPOINT.text(), AT)
    later = Signature(line.name, line.key_id, (AT + 1).to_bytes(8, "big") + line.blob[8:])
    with pytest.raises(NoteError, match="does not verify"):
        Note(CHECKPOINT.text(), (later,)).verify([WITNESS.verifier])


def test_a_witness_cosigns_checkpoints_only() -> None:
    with pytest.raises(NoteError, match="checkpoint"):
        WITNESS.sign(GO_TEXT, AT)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_the_specs_example_is_read() -> None:
    note = Note.parse(SPEC_CHECKPOINT + "\n" + SPEC_LINE + "\n")
    root = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    assert Checkpoint("example.com/behind-the-sofa", 20852163, root) == Checkpoint.parse_text(note.text)
    assert SPEC_CHECKPOINT == Checkpoint.parse_text(note.text).text()


def test_extension_lines_are_read_over() -> None:
    assert Checkpoint.parse_text(SPEC_CHECKPOINT) == Checkpoint.parse_text(SPEC_CHECKPOINT + "more\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        SPEC_CHECKPOINT[:-1],
        SPEC_CHECKPOINT + "\n",
        SPEC_CHECKPOINT + "more",
        SPEC_CHECKPOINT.replace("example.com/behind-the-sofa", ""),
        SPEC_CHECKPOINT.replace("20852163", "020852163"),
        SPEC_CHECKPOINT.replace("20852163", "+20852163"),
        SPEC_CHECKPOINT.replace("20852163", "-1"),
        SPEC_CHECKPOINT.replace("20852163", " 1"),
        SPEC_CHECKPOINT.replace("20852163", "1_0"),
        SPEC_CHECKPOINT.replace("20852163", "٣"),
        SPEC_CHECKPOINT.replace("20852163", "1" * 30),
        SPEC_CHECKPOINT.replace("CsUY", ""),
        SPEC_CHECKPOINT.replace("q2I=", "q2J="),
        SPEC_CHECKPOINT.replace("q2I=", "q2I"),
    ],
)
def test_what_is_not_exactly_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        Checkpoint.parse_text(text)


@pytest.mark.parametrize("checkpoint", [Checkpoint("a\nb", 1, bytes(32)), Checkpoint("", 1, bytes(32))])
def test_what_could_not_be_read_again_is_not_written(checkpoint: Checkpoint) -> None:
    with pytest.raises(NoteError):
        checkpoint.text()


def test_a_checkpoint_of_another_log_is_refused() -> None:
    found, verified = notes.verify_checkpoint(signed(), [LOG.verifier], CHECKPOINT.origin)
    assert (CHECKPOINT, LOG.verifier) == (found, verified[0].key)
    with pytest.raises(NoteError, match="not of"):
        notes.verify_checkpoint(signed(), [LOG.verifier], "pysytff.local/other")


def test_sizes_and_hashes_are_read_as_they_are_written() -> None:
    assert 20 == notes.parse_size("20")
    assert bytes(32) == notes.parse_hash(notes.encode_hash(bytes(32)))
    with pytest.raises(NoteError):
        notes.parse_size("020")
    with pytest.raises(NoteError):
        notes.parse_hash(notes.encode_hash(bytes(31)))
