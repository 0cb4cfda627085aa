"""Settings of a node: one frozen object, read once from the environment, then passed in.

Invariants
- ``Settings`` never changes after it was made, and nothing else in the service reads the environment.
- Paths are absolute, so a child process that starts elsewhere means the same files.
- Anything unfit is a ``SettingsError`` that names the variable; there is no silent fallback.

This module does not: create files or folders (``api/node.py`` does), or hold secrets (files under ``secrets_dir`` do).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.errors import SettingsError

PREFIX = "PYSYTFF_"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")  # as a Host header writes them


def _in_data_dir(name: str) -> Callable[[dict[str, Any]], Path]:
    return lambda known: Path(known.get("data_dir", "")) / name


class Settings(BaseSettings):
    """Every field is the variable ``PYSYTFF_<NAME>``, except ``DATABASE_URL``, whose name is a common convention."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, populate_by_name=True
    )

    data_dir: Path = Field(default=Path("pysytff-data"), validate_default=True, description="everything the node keeps")
    host: str = Field(default="127.0.0.1", description="address the API listens on")
    port: int = Field(default=8081, ge=0, le=65535, description="port the API listens on; 0: any free one")
    database_url: str = Field(
        default_factory=lambda known: f"sqlite:///{known.get('data_dir', '')}/node.sqlite3",
        validation_alias="DATABASE_URL",
        description="sqlite:///FILE or postgresql://…",
        repr=False,  # it may hold a password
    )
    data_root: Path = Field(default_factory=_in_data_dir("data"), description="laid-out datasets; the runner reads it")
    scratch_dir: Path = Field(default_factory=_in_data_dir("scratch"), description="the runner's working space")
    runner_credential_file: Path = Field(
        default_factory=_in_data_dir("secrets/runner-credential"), description="the runner's credential (0600)"
    )
    ledger_dir: Path = Field(
        default_factory=_in_data_dir("ledger"), description="the log's checkpoint, and its mirror of every entry"
    )
    log_origin: str = Field(default="", description="the log's name, for a new log; unset: a random one")
    witnesses: str = Field(
        default="", description="who cosigns checkpoints: 'vkey URL', separated by commas; unset: LEDGER_DIR/witnesses"
    )
    opa_url: str | None = Field(default=None, description="a policy engine run elsewhere; unset: a managed child")
    opa_token: SecretStr | None = Field(
        default=None, description="the token that the policy engine at OPA_URL asks for"
    )
    opa_path: Path | None = Field(default=None, description="the opa binary of the managed child")
    opa_timeout_s: Annotated[float, Field(gt=0, le=30)] = 1.0
    api_url: str | None = Field(default=None, description="where a runner reaches the API; unset: the address above")
    allowed_hosts: str = Field(
        default="", description="names that a Host header may carry beside loopback, separated by commas; unset: HOST"
    )
    secure_cookies: bool = Field(default=False, description="people reach the service over HTTPS (through a proxy)")
    trusted_proxies: str = Field(
        default="", description="addresses whose X-Forwarded-For is believed, separated by commas"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("data_dir", "data_root", "scratch_dir", "ledger_dir", "opa_path", "runner_credential_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else Path(os.path.abspath(value.expanduser()))

    @field_validator("log_origin")
    @classmethod
    def _origin(cls, value: str) -> str:
        if "+" in value or any(one.isspace() or one < " " for one in value):
            raise ValueError("names a log: no spaces and no plus sign, such as example.org/ledger")
        return value

    @field_validator("opa_url", "api_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an http:// or https:// address without query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _opa_token_with_url(self) -> Self:
        if (self.opa_url is None) != (self.opa_token is None):
            raise ValueError(f"{PREFIX}OPA_URL and {PREFIX}OPA_TOKEN are set together or not at all")
        return self

    @property
    def results_dir(self) -> Path:
        return self.data_dir / "results"

    @property
    def bundle_dir(self) -> Path:
        return self.data_dir / "bundle"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def secrets_dir(self) -> Path:
        return self.data_dir / "secrets"

    @property
    def token_key_file(self) -> Path:
        return self.secrets_dir / "token-signing-key"

    @property
    def log_key_file(self) -> Path:
        return self.secrets_dir / "log-signing-key"

    @property
    def opa_token_file(self) -> Path:
        return self.secrets_dir / "opa-token"

    @property
    def node_file(self) -> Path:
        """Its presence says that ``init`` finished."""
        return self.data_dir / "node.json"

    @property
    def own_url(self) -> str:
        """Where processes on this machine reach the API."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def runner_url(self) -> str:
        """Where a runner on a host of its own reaches the API."""
        return self.api_url or self.own_url

    @property
    def host_names(self) -> tuple[str, ...]:
        """What a Host header may say. A wildcard address names no host, so whoever listens there lists the names."""
        named = tuple(name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip())
        listening = f"[{self.host}]" if ":" in self.host else self.host.lower()
        return tuple(dict.fromkeys((*LOOPBACK_NAMES, *(named or (listening,)))))

    @property
    def on_loopback(self) -> bool:
        return self.host in LOOPBACK

    def environment(self) -> dict[str, str]:
        """The variables that make a child process read the same settings."""
        values: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or value == "":
                continue
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            values["DATABASE_URL" if name == "database_url" else PREFIX + name.upper()] = text
        return values


def load(**overrides: object) -> Settings:
    """Reads the environment; ``overrides`` (a command's options) win. Raises ``SettingsError``."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks each one
    except ValidationError as error:
        raise SettingsError("\n".join(_problems(error))) from error


def _problems(error: ValidationError) -> list[str]:
    found: list[str] = []
    for problem in error.errors():
        if problem["type"] == "default_factory_not_called":
            continue  # a consequence of another problem in the list
        name = str(problem["loc"][0]).upper().removeprefix(PREFIX) if problem["loc"] else ""
        variable = f"{name if name in ('', 'DATABASE_URL') else PREFIX + name}: " if name else ""
        found.append(variable + problem["msg"].removeprefix("Value error, "))
    return found
