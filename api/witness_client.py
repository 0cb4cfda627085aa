"""Asks witnesses for their signature under a checkpoint (c2sp.org/tlog-witness), as the log.

Invariants
- A witness that does not answer as the protocol says costs at most ``TIMEOUT_S``, and is left alone for a while.
- What a witness answers is believed only if its key verifies it.
- A witness that has seen more, or something else, than we hold is a ``WitnessConflictError``: not a matter of trying
  again.

This module does not: decide what follows from a conflict (``checkpointer.py``), or keep anything on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from api.errors import NodeError
from governance.ledger import notes
from governance.ledger.notes import COSIGNATURE, Checkpoint, Note, NoteError, Signature, VerifierKey
from governance.log_keeper import cosigned_by

TIMEOUT_S = 5.0
LONGEST_PAUSE_S = 30.0
SIZE_TYPE = "text/x.tlog.size"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LONGEST_ANSWER = 64 * 1024


class WitnessError(Exception):
    """The witness did not cosign, and trying again may help."""


class WitnessConflictError(Exception):
    """``reason``: ``witness_is_ahead`` or ``witness_disagrees``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    key: VerifierKey
    url: str


def configured(setting: str, file: Path) -> tuple[WitnessAddress, ...]:
    """The witnesses of the setting (``vkey URL, vkey URL``) or else of the file (one on each line).

    Raises ``NodeError``.
    """
    if setting.strip():
        return _parsed(setting.split(","), "PYSYTFF_WITNESSES")
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    except (OSError, UnicodeError) as error:
        raise NodeError(f"{file} cannot be read") from error
    return _parsed((line for line in lines if not line.lstrip().startswith("#")), str(file))


def _parsed(pairs: Iterable[str], where: str) -> tuple[WitnessAddress, ...]:
    found: list[WitnessAddress] = []
    for pair in pairs:
        if not pair.strip():
            continue
        key, _, url = pair.strip().partition(" ")
        try:
            one = WitnessAddress(VerifierKey.parse(key), _url(url.strip()))
        except ValueError as error:
            raise NodeError(f"{where}: a witness is given as its verifier key, a space and its URL; {error}") from error
        if one.key.kind != COSIGNATURE:
            raise NodeError(f"{where}: {one.key.encode()} is a log's key, not a witness's")
        if one.key in [other.key for other in found]:
            raise NodeError(f"{where}: {one.key.name} is named twice")
        found.append(one)
    return tuple(found)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not an http:// or https:// address")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError(f"{text!r} is not on this machine: use https://")
    return text.rstrip("/")


class WitnessClient:
    """One witness. ``proof_from``: the consistency proof from an older size to the checkpoint's."""

    def __init__(self, address: WitnessAddress) -> None:
        self.key = address.key
        self._url = address.url
        # No proxy of the environment: a witness is reached as it was configured.
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._known_size = 0
        self._pause_s = 0.0
        self._not_before = 0.0
        self.agreed = False  # it has cosigned for this process

    def close(self) -> None:
        self._http.close()

    def should_be_asked(self, note: Note, now: float) -> bool:
        """Once by every process, for its cosignature may come from a backup; then where its cosignature is missing."""
        return now >= self._not_before and not (self.agreed and cosigned_by(note, self.key) is not None)

    def ask(self, note: Note, proof_from: Callable[[int], list[bytes]], now: float) -> Signature:
        """Its cosignature. ``now``: monotonic seconds. Raises ``WitnessError``, ``WitnessConflictError``."""
        try:
            signature = self._ask(note, proof_from)
        except WitnessError:
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or 1.0)
            self._not_before = now + self._pause_s
            raise
        self._pause_s, self.agreed = 0.0, True
        return signature

    def _ask(self, note: Note, proof_from: Callable[[int], list[bytes]]) -> Signature:
        checkpoint = Checkpoint.parse_text(note.text)
        old = min(self._known_size, checkpoint.size)
        for _ in range(2):
            answer = self._post(old, proof_from(old), note)
            if answer.status_code == 200:
                self._known_size = checkpoint.size
                return self._cosignature(note, answer.content)
            if answer.status_code == 422:
                raise WitnessConflictError(
                    "witness_disagrees", f"{self.key.name} knows another history of the first {old} entries"
                )
            if answer.status_code != 409:
                raise WitnessError(f"{self.key.name} answered {answer.status_code}")
            theirs = self._size(answer)
            if theirs > checkpoint.size:
                raise WitnessConflictError(
                    "witness_is_ahead", f"{self.key.name} cosigned {theirs} entries, the log has {checkpoint.size}"
                )
            if theirs == old:
                raise WitnessConflictError(
                    "witness_disagrees", f"{self.key.name} cosigned another root of {theirs} entries"
                )
            old = theirs
        raise WitnessError(f"{self.key.name} changed its mind about what it cosigned last")

    def _post(self, old: int, proof: list[bytes], note: Note) -> httpx.Response:
        lines = [f"old {old}", *(notes.encode_hash(one) for one in proof), "", note.encode()]
        try:
            answer = self._http.post(f"{self._url}/add-checkpoint", content="\n".join(lines).encode())
        except httpx.HTTPError as error:
            raise WitnessError(f"{self.key.name} does not answer: {type(error).__name__}") from error
        if len(answer.content) > _LONGEST_ANSWER:
            raise WitnessError(f"{self.key.name} answered too much")
        return answer

    def _size(self, answer: httpx.Response) -> int:
        if answer.headers.get("content-type", "").partition(";")[0].strip() != SIZE_TYPE:
            raise WitnessError(f"{self.key.name} answered 409 without the size that it knows")
        try:
            return notes.parse_size(answer.text.removesuffix("\n"))
        except NoteError as error:
            raise WitnessError(f"{self.key.name} answered 409 without the size that it knows") from error

    def _cosignature(self, note: Note, answer: bytes) -> Signature:
        try:
            return Note(note.text, notes.parse_signatures(answer)).verify([self.key])[0].signature
        except NoteError as error:
            raise WitnessError(f"{self.key.name} answered with something else than its cosignature: {error}") from error
