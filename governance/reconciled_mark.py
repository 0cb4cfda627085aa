"""When the ledger was last reconciled, kept beside the log: a runner's report from before came with a backup.

This module does not: know the database.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from governance.errors import StorageError
from governance.log_files import write_whole
from governance.model import timestamp

MARK = "reconciled-at"


def read(folder: Path) -> datetime | None:
    """None if it never was. Raises ``StorageError``."""
    try:
        return datetime.fromisoformat((folder / MARK).read_text().strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"{folder / MARK} cannot be read; restore the log's folder from its backup") from error


def write(folder: Path, at: datetime) -> None:
    """Raises ``StorageError``."""
    try:
        write_whole(folder / MARK, f"{timestamp(at)}\n".encode())
    except OSError as error:
        raise StorageError(f"{folder / MARK} cannot be written") from error
