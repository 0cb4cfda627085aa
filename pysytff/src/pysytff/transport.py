"""HTTP to one node: addresses, tokens, retries and problems.

Invariants
- Off loopback only HTTPS is spoken, redirects are never followed, and no proxy sees loopback traffic.
- A request is repeated only where repeating cannot do harm: reads, previews, and submissions with an idempotency key.
- Every failure leaves as an error of ``pysytff.errors``; nothing of httpx leaves this module but responses.

This module does not: know what the node's resources mean.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import httpx

from pysytff._version import __version__
from pysytff.errors import (
    AuthenticationError,
    InsecureTransportError,
    NotLoggedInError,
    UnexpectedAnswerError,
    UnreachableError,
    problem_error,
)
from pysytff.tokens import Tokens

DEFAULT_PORT = 8081
_LAST_PORT = 65_535
RETRY_DELAYS_S = (0.2, 0.5, 1.0, 2.0, 4.0)
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_GATEWAY = frozenset({502, 503, 504})


class TokenKeeper(Protocol):
    """``tokens.MemoryTokens`` and ``tokens.FileTokens``."""

    def read(self) -> Tokens: ...
    def write(self, tokens: Tokens | None) -> None: ...
    def exclusive(self) -> Any: ...


def base_url(url: str | None, host: str, port: int | None) -> str:
    """The node's address. Raises ``InsecureTransportError`` for plain HTTP to anything but this machine."""
    if url is None:
        name = f"[{host}]" if ":" in host else host
        url = f"{'http' if is_loopback(host) else 'https'}://{name}:{DEFAULT_PORT if port is None else port}"
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"{url!r} is no address; write it as https://node.example:8081") from error
    known = (
        parsed.scheme in ("http", "https") and parsed.host and (parsed.port is None or 0 < parsed.port <= _LAST_PORT)
    )
    if not known or parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError(f"{url!r} is no address of a node; write it as https://node.example:8081")
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise InsecureTransportError(url)
    return str(parsed).rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether traffic to ``host`` cannot leave this machine. Names other than localhost are not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Transport:
    """Requests to one node, authorised by ``keeper``'s tokens once it is set."""

    def __init__(self, url: str, *, retry_delays_s: Sequence[float] | None = None) -> None:
        self.url = base_url(url, "", None)
        self.keeper: TokenKeeper | None = None
        self._retry_delays_s = tuple(RETRY_DELAYS_S if retry_delays_s is None else retry_delays_s)
        self._client = httpx.Client(
            base_url=self.url,
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=not is_loopback(httpx.URL(self.url).host),
            headers={"User-Agent": f"pysytff/{__version__}"},
        )

    def close(self) -> None:
        self._client.close()

    # --- logging in and out ---

    def log_in(self, email: str, password: str) -> Tokens:
        form = {"grant_type": "password", "username": email, "password": password}
        return self._tokens(form)

    def log_out(self) -> None:
        """Ends the session here and, if the node can be reached, there."""
        try:
            self.request("POST", "/v1/auth/logout")
        finally:
            if self.keeper is not None:
                self.keeper.write(None)

    def _tokens(self, form: Mapping[str, str]) -> Tokens:
        answer = self._send("POST", "/v1/auth/token", retry=False, data=form)
        try:
            return Tokens.from_answer(self.json(answer))
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswerError(f"{self.url} did not answer with tokens: is it a PySyTFF node?") from error

    def _authorisation(self, rejected: Tokens | None = None) -> tuple[Tokens, dict[str, str]]:
        """A usable access token; refreshes one that has ended or that the node has ``rejected``."""
        if self.keeper is None:
            raise NotLoggedInError("Log in first: sy.login(...).")
        tokens = self.keeper.read()
        if tokens.stale or tokens == rejected:
            with self.keeper.exclusive():
                tokens = self.keeper.read()  # another thread or process may have refreshed meanwhile
                if tokens.stale or tokens == rejected:
                    tokens = self._refreshed(tokens)
                    self.keeper.write(tokens)
        return tokens, {"Authorization": f"Bearer {tokens.access}"}

    def _refreshed(self, tokens: Tokens) -> Tokens:
        try:
            return self._tokens({"grant_type": "refresh_token", "refresh_token": tokens.refresh})
        except AuthenticationError as error:
            raise NotLoggedInError("The session has ended: log in again (sy.login or `pysytff login`).") from error

    # --- requests ---

    def get(self, path: str, **params: object) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self.json(self.request("GET", path, retry=True, params=given))

    def items(
        self, path: str, *, limit: int | None = None, page_size: int | None = None, **params: object
    ) -> Iterator[Any]:
        """The first ``limit`` items of a listing (None: all), fetched page by page."""
        cursor: object = None
        seen = 0
        while True:
            page = self.get(path, cursor=cursor, limit=page_size, **params)
            listed = page.get("items") if isinstance(page, dict) else None
            if not isinstance(listed, list):
                raise UnexpectedAnswerError(f"{self.url}{path} did not answer with a list")
            for item in listed:
                if seen == limit:
                    return
                seen += 1
                yield item
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def request(
        self, method: str, path: str, *, retry: bool = False, headers: Mapping[str, str] | None = None, **content: Any
    ) -> httpx.Response:
        """An authorised request. Raises ``ProblemError``, ``UnreachableError``, ``NotLoggedInError``."""
        tokens, authorisation = self._authorisation()
        try:
            return self._send(method, path, retry=retry, headers={**(headers or {}), **authorisation}, **content)
        except AuthenticationError:
            _, authorisation = self._authorisation(rejected=tokens)
            return self._send(method, path, retry=retry, headers={**(headers or {}), **authorisation}, **content)

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str], silence_s: float) -> Iterator[Iterator[str]]:
        """Lines of a long answer. ``UnreachableError`` if it breaks off or nothing comes for ``silence_s`` seconds."""
        tokens, authorisation = self._authorisation()
        for attempt in (1, 2):
            timeout = httpx.Timeout(silence_s, connect=10.0)
            try:
                sent = {**headers, **authorisation}
                with self._client.stream("GET", path, headers=sent, timeout=timeout) as response:
                    if response.status_code == httpx.codes.UNAUTHORIZED and attempt == 1:
                        _, authorisation = self._authorisation(rejected=tokens)
                        continue
                    if not response.is_success:
                        response.read()
                        self._raise_problem(response)
                    yield response.iter_lines()
                    return
            except httpx.TransportError as error:
                raise UnreachableError(self.url, _cause(error)) from error

    def download(
        self,
        path: str,
        begin: Callable[[Mapping[str, str]], None],
        take: Callable[[bytes], None],
        **params: Any,
    ) -> None:
        """A long answer, part by part: ``begin`` gets its headers (names in lower case), ``take`` each part.

        Raises ``UnreachableError`` if it breaks off, ``ProblemError``.
        """
        given = {name: value for name, value in params.items() if value is not None}
        tokens, authorisation = self._authorisation()
        for attempt in (1, 2):
            try:
                with self._client.stream("GET", path, params=given, headers=authorisation) as response:
                    if response.status_code == httpx.codes.UNAUTHORIZED and attempt == 1:
                        _, authorisation = self._authorisation(rejected=tokens)
                        continue
                    if not response.is_success:
                        response.read()
                        self._raise_problem(response)
                    begin(dict(response.headers))
                    for part in response.iter_bytes():
                        take(part)
                    return
            except httpx.TransportError as error:
                raise UnreachableError(self.url, _cause(error)) from error

    def json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise UnexpectedAnswerError(f"{self.url} did not answer in JSON: is it a PySyTFF node?") from error

    def _send(self, method: str, path: str, *, retry: bool, **content: Any) -> httpx.Response:
        delays = iter(self._retry_delays_s if retry else ())
        while True:
            delay = next(delays, None)
            try:
                response = self._client.request(method, path, **content)
            except httpx.TransportError as error:
                if delay is None:
                    raise UnreachableError(self.url, _cause(error)) from error
            else:
                # A gateway in front of the node answers without a problem document; the node itself never does.
                gateway = response.status_code in _GATEWAY and _problem(response) is None
                if not gateway or delay is None:
                    if not response.is_success:
                        self._raise_problem(response)
                    return response
            time.sleep(delay)

    def _raise_problem(self, response: httpx.Response) -> None:
        if response.is_redirect:
            target = response.headers.get("location", "elsewhere")
            raise UnexpectedAnswerError(f"{self.url} sends us to {target}; if you trust that address, log in there.")
        fallback = {"detail": f"{self.url} answered with status {response.status_code} and no explanation."}
        raise problem_error(_problem(response) or fallback, response.status_code)


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    if "json" not in response.headers.get("content-type", ""):
        return None
    try:
        problem = json.loads(response.content)
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and ("code" in problem or "detail" in problem) else None


def _cause(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    return str(error) or type(error).__name__
