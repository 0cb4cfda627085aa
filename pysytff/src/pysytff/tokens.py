"""The session's tokens: in memory for the SDK, in a file that only its owner can read for the command line.

Invariants
- A refresh token is used once (the node rotates it and revokes the family on reuse), so refreshing is exclusive: among
  threads by a lock, among processes by a file lock, and whoever waited rereads before refreshing.
- A token is never part of a repr, a message or a log.

This module does not: speak HTTP.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from pysytff.errors import NotLoggedInError

_LEEWAY_S = 20.0  # a token that ends within this time counts as ended: the request still has to travel


@dataclass(frozen=True)
class Tokens:
    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires_at: float  # Unix time by our own clock, from the answer's expires_in

    @staticmethod
    def from_answer(answer: Mapping[str, Any]) -> Tokens:
        expires_at = time.time() + float(answer["expires_in"])
        return Tokens(str(answer["access_token"]), str(answer["refresh_token"]), expires_at)

    @property
    def stale(self) -> bool:
        return time.time() > self.expires_at - _LEEWAY_S


class MemoryTokens:
    """Tokens of one ``Domain``; they end with the process."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens: Tokens | None = tokens
        self._lock = threading.RLock()

    def read(self) -> Tokens:
        if self._tokens is None:
            raise NotLoggedInError("You have logged out; log in again with sy.login(...).")
        return self._tokens

    def write(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._lock:
            yield


class FileTokens:
    """The command line's session: node address, e-mail and tokens in one file of mode 0600."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(platformdirs.user_state_dir("pysytff")) / "session.json"

    def read(self) -> Tokens:
        document = self._document()
        return Tokens(document["access"], document["refresh"], document["expires_at"])

    @property
    def url(self) -> str:
        return str(self._document()["url"])

    def start(self, url: str, email: str, tokens: Tokens) -> None:
        self._write({"url": url, "email": email, **vars(tokens)})

    def write(self, tokens: Tokens | None) -> None:
        if tokens is None:
            self.path.unlink(missing_ok=True)
        else:
            self._write(self._document() | vars(tokens))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Held while one process refreshes. Without ``fcntl``, two processes at once may have to log in again."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _document(self) -> dict[str, Any]:
        try:
            document = json.loads(self.path.read_text())
            return {key: document[key] for key in ("url", "email", "access", "refresh", "expires_at")}
        except FileNotFoundError:
            raise NotLoggedInError("You are not logged in: run `pysytff login`.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"The session file {self.path} cannot be read: run `pysytff login` again."
            raise NotLoggedInError(message) from error

    def _write(self, document: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600 from the start; the rename replaces the old session in one step.
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".session-")
        with os.fdopen(handle, "w") as file:
            json.dump(document, file)
        os.replace(temporary, self.path)
