"""How the last refresh of a store went, kept in its directory so that every process and host sees the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..._utils.files import replace_private

__all__ = ["LastRefresh", "note_refresh", "read_last_refresh"]

FILE = "REFRESHED"


@dataclass(frozen=True, slots=True)
class LastRefresh:
    """The last refresh, done or failed.

    Args:
        started_at: when it began, UTC.
        finished_at: when it ended, UTC.
        succeeded_at: when the last one that succeeded ended, UTC; `None`: none has.
        error: why this one failed, without values; `None`: it did not.
        failures: how many have failed since the last one that succeeded.
    """

    started_at: datetime
    finished_at: datetime
    succeeded_at: datetime | None = None
    error: str | None = None
    failures: int = 0


def read_last_refresh(path: Path | str) -> LastRefresh | None:
    """The last refresh of the store in this directory; `None` when there was none, or when the note is not readable."""
    try:
        content: dict[str, Any] = json.loads((Path(path) / FILE).read_bytes())
        succeeded = content["succeeded_at"]
        return LastRefresh(
            started_at=_time(content["started_at"]),
            finished_at=_time(content["finished_at"]),
            succeeded_at=None if succeeded is None else _time(succeeded),
            error=None if content["error"] is None else str(content["error"]),
            failures=int(content["failures"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # a note, not data: without it, the next one is written
        return None


def note_refresh(path: Path | str, started_at: datetime, error: str | None) -> LastRefresh:
    """Note that a refresh has ended just now.

    Args:
        path: the store.
        started_at: when it began, UTC.
        error: why it failed, without values; `None`: it succeeded.

    Raises:
        OSError: the note cannot be written.
    """
    before = read_last_refresh(path)
    now = datetime.now(UTC)
    failed = error is not None
    last = LastRefresh(
        started_at=started_at,
        finished_at=now,
        succeeded_at=(before.succeeded_at if before is not None else None) if failed else now,
        error=error,
        failures=(before.failures if before is not None else 0) + 1 if failed else 0,
    )
    replace_private(Path(path) / FILE, json.dumps(asdict(last), default=datetime.isoformat).encode())
    return last


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
