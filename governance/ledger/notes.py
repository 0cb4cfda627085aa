"""Signed notes and checkpoints: what the log and its witnesses sign, as bytes. Formats of C2SP (c2sp.org).

signed-note: a text, an empty line, signature lines. tlog-checkpoint: a note whose text is origin, size and root.
tlog-cosignature v1: a witness's signature over a checkpoint and the time at which it was given.

Invariants
- There is one way to write each note: other spellings of a number, of base64 or of a line are refused.
- A signature of a key that is not trusted is ignored, and one that names a trusted key but does not verify refuses the
  whole note. A note without a signature that verifies is refused.
- Ed25519 only. What is signed as a note and what is cosigned differ in their first line, so neither passes for the
  other.
- What is read is bounded: ``MAX_NOTE_BYTES``, ``MAX_SIGNATURES``.

This module does not: read files or keep keys, know the ledger's tree, or decide which key is in force.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = 0x01  # signs a note's text
COSIGNATURE = 0x04  # signs a checkpoint with a time
KINDS = (ED25519, COSIGNATURE)
MAX_NOTE_BYTES = 256 * 1024
MAX_SIGNATURES = 64
HASH_BYTES = 32
_DASH = "\u2014 "
_PRIVATE = "PRIVATE+KEY+"
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


class NoteError(ValueError):
    """The text is no key, note or checkpoint, or is not signed as it should be; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name that it signs under. Two keys are the same only if all three parts are."""

    name: str
    kind: int  # ED25519 | COSIGNATURE
    public: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.kind not in KINDS:
            raise NoteError(f"signatures of type {self.kind} are not known here; Ed25519 is 1, a witness's is 4")
        if len(self.public) != 32:
            raise NoteError(f"an Ed25519 public key has 32 bytes, not {len(self.public)}")

    @property
    def key_id(self) -> bytes:
        """Four bytes: they tell keys of one name apart, and prove nothing."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def encode(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_encode64(bytes([self.kind]) + self.public)}"

    @staticmethod
    def parse(text: str) -> VerifierKey:
        """Reads ``name+id+key``. Raises ``NoteError``."""
        name, key_id, key = _split_key(text, "verifier key")
        found = VerifierKey(name, key[0], key[1:])
        if found.key_id.hex() != key_id:
            raise NoteError(f"the verifier key of {name} does not belong to its id {key_id}: it was changed or cut")
        return found

    def check(self, text: str, signature: bytes) -> int | None:
        """The time of a cosignature in seconds since 1970, None for a signature. Raises ``NoteError`` if it is bad."""
        moment, message = None, text.encode()
        if self.kind == COSIGNATURE:
            moment = int.from_bytes(signature[:8], "big")
            signature, message = signature[8:], _cosigned(text, moment)
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise NoteError(f"the signature of {self.name} ({self.key_id.hex()}) does not verify") from error
        return moment


@dataclass(frozen=True, slots=True, repr=False)
class SignerKey:
    """A private key. Its text form is a secret; it is written nowhere else."""

    name: str
    kind: int
    private: Ed25519PrivateKey

    @staticmethod
    def generate(name: str, kind: int = ED25519) -> SignerKey:
        _check_name(name)
        return SignerKey(name, kind, Ed25519PrivateKey.generate())

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self.kind, self.private.public_key().public_bytes_raw())

    def encode(self) -> str:
        seed = bytes([self.kind]) + self.private.private_bytes_raw()
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{_encode64(seed)}"

    @staticmethod
    def parse(text: str) -> SignerKey:
        """Reads ``PRIVATE+KEY+name+id+seed``. Raises ``NoteError``, which never quotes the key."""
        if not text.startswith(_PRIVATE):
            raise NoteError("this is no signing key: one starts with PRIVATE+KEY+")
        name, key_id, key = _split_key(text.removeprefix(_PRIVATE), "signing key")
        if len(key) != 33:
            raise NoteError(f"the signing key of {name} has {len(key) - 1} bytes instead of 32")
        found = SignerKey(name, key[0], Ed25519PrivateKey.from_private_bytes(key[1:]))
        if found.verifier.key_id.hex() != key_id:
            raise NoteError(f"the signing key of {name} does not belong to its id {key_id}: it was changed or cut")
        return found

    def sign(self, text: str, at: int = 0) -> Signature:
        """Signs a note's text, or, with a witness's key, a checkpoint's text at this time (seconds since 1970)."""
        if self.kind == COSIGNATURE:
            Checkpoint.parse_text(text)
            blob = at.to_bytes(8, "big") + self.private.sign(_cosigned(text, at))
        else:
            blob = self.private.sign(text.encode())
        return Signature(self.name, self.verifier.key_id, blob)


@dataclass(frozen=True, slots=True)
class Signature:
    """One line, not yet verified."""

    name: str
    key_id: bytes
    blob: bytes

    def encode(self) -> str:
        return f"{_DASH}{self.name} {_encode64(self.key_id + self.blob)}\n"

    @staticmethod
    def parse(line: str) -> Signature:
        """Reads a line without its end. Raises ``NoteError``."""
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise NoteError("a signature line must be: em dash, space, name, space, base64")
        _check_name(name)
        found = _decode64(encoded, f"the signature of {name}")
        if len(found) <= 4:
            raise NoteError(f"the signature of {name} holds nothing but a key's id")
        return Signature(name, found[:4], found[4:])


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that verifies. ``at``: seconds since 1970, for a cosignature."""

    key: VerifierKey
    at: int | None
    signature: Signature


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures. ``text`` ends with a newline. Worth nothing before ``verify``."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> str:
        return self.text + "\n" + "".join(one.encode() for one in self.signatures)

    @staticmethod
    def parse(data: bytes | str) -> Note:
        """Raises ``NoteError``."""
        text, gap, block = _decoded(data).rpartition("\n\n")
        if not gap or not text:
            raise NoteError("a note is a text, an empty line, and signature lines")
        if not block.endswith("\n"):
            raise NoteError("the note's last line is not ended: it was cut")
        return Note(text + "\n", parse_signatures(block))

    def verify(self, trusted: Iterable[VerifierKey]) -> tuple[Verified, ...]:
        """The signatures of trusted keys, in the note's order, one for each key.

        Raises ``NoteError`` if one of them is bad, or there is none.
        """
        known = {(key.name, key.key_id): key for key in trusted}
        found: dict[VerifierKey, Verified] = {}
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None:
                verified = Verified(key, key.check(self.text, signature.blob), signature)
                found.setdefault(key, verified)
        if not found:
            names = ", ".join(f"{one.name} ({one.key_id.hex()})" for one in self.signatures) or "nobody"
            raise NoteError(f"the note is signed by no trusted key; it names {names}")
        return tuple(found.values())

    def with_signatures(self, more: Sequence[Signature]) -> Note:
        """Beside those that are there; a newer one of the same key takes the older one's place."""
        newer = {(one.name, one.key_id) for one in more}
        kept = tuple(one for one in self.signatures if (one.name, one.key_id) not in newer)
        return Note(self.text, (*kept, *more))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: how many entries, and their tree's root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text of the note to sign. Raises ``NoteError`` for what cannot be one."""
        text = f"{self.origin}\n{self.size}\n{_encode64(self.root)}\n"
        if Checkpoint.parse_text(text) != self:
            raise NoteError("the checkpoint's origin, size and root cannot be written so that they are read again")
        return text

    @staticmethod
    def parse_text(text: str) -> Checkpoint:
        """Reads a note's text. Extension lines may follow and are not kept. Raises ``NoteError``."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] != "" or "" in lines[:-1]:
            raise NoteError("a checkpoint's text is an origin, a size and a root, each on a line of its own")
        origin, size, root = lines[:3]
        if not _SIZE.fullmatch(size):
            raise NoteError("a checkpoint's size is a decimal number without leading zeros")
        found = _decode64(root, "the checkpoint's root")
        if len(found) != HASH_BYTES:
            raise NoteError(f"a checkpoint's root has {HASH_BYTES} bytes, not {len(found)}")
        return Checkpoint(origin, int(size), found)


def parse_size(text: str) -> int:
    """A tree's size as the formats write it. Raises ``NoteError``."""
    if not _SIZE.fullmatch(text):
        raise NoteError("a size is a decimal number without leading zeros")
    return int(text)


def parse_hash(text: str) -> bytes:
    """A hash as the formats write it. Raises ``NoteError``."""
    found = _decode64(text, "the hash")
    if len(found) != HASH_BYTES:
        raise NoteError(f"a hash has {HASH_BYTES} bytes, not {len(found)}")
    return found


def encode_hash(value: bytes) -> str:
    return _encode64(value)


def parse_signatures(data: bytes | str) -> tuple[Signature, ...]:
    """Signature lines, each ended, as a witness answers them. Raises ``NoteError``."""
    lines = _decoded(data).split("\n")
    if lines.pop() != "" or not lines:
        raise NoteError("there are no signature lines, or the last one was cut")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"more than {MAX_SIGNATURES} signatures")
    return tuple(Signature.parse(line) for line in lines)


def verify_checkpoint(
    note: Note, trusted: Iterable[VerifierKey], origin: str | None = None
) -> tuple[Checkpoint, tuple[Verified, ...]]:
    """A checkpoint that trusted keys signed, and their signatures. Raises ``NoteError``."""
    verified = note.verify(trusted)
    checkpoint = Checkpoint.parse_text(note.text)
    if origin is not None and checkpoint.origin != origin:
        raise NoteError(f"the checkpoint is of the log {checkpoint.origin}, not of {origin}")
    return checkpoint, verified


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _decoded(data: bytes | str) -> str:
    if len(data) > MAX_NOTE_BYTES:
        raise NoteError(f"a note of more than {MAX_NOTE_BYTES} bytes is not read")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        text.encode("utf-8")
    except UnicodeError as error:
        raise NoteError("the note is not UTF-8") from error
    if any(character < " " and character != "\n" for character in text):
        raise NoteError("the note holds a control character")
    return text


def _check_name(name: str) -> None:
    if not name or "+" in name or any(one.isspace() or one < " " for one in name):
        raise NoteError(f"{name!r} cannot be a key's name: it is empty, or holds a space or a plus sign")


def _split_key(text: str, what: str) -> tuple[str, str, bytes]:
    name, _, rest = text.partition("+")
    key_id, plus, encoded = rest.partition("+")
    if not plus or not re.fullmatch("[0-9a-f]{8}", key_id):
        raise NoteError(f"this is no {what}: one is a name, an id of eight hex digits and base64, joined by plus signs")
    _check_name(name)
    key = _decode64(encoded, f"the {what} of {name}")
    if not key:
        raise NoteError(f"the {what} of {name} is empty")
    return name, key_id, key


def _encode64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _decode64(text: str, what: str) -> bytes:
    """Only what ``_encode64`` writes: one text for each value."""
    try:
        found = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise NoteError(f"{what} is not base64") from error
    if _encode64(found) != text:
        raise NoteError(f"{what} is not base64 as it is written here")
    return found
