"""Outcome of the last refresh of a store, saved in its directory for all processes and hosts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..._utils.files import replace_private
from ...errors import StoreBusy, StoreError
from ..files.manifest import lock_file

__all__ = [
    "LastRefresh",
    "begin_refresh",
    "is_refreshing",
    "note_refresh",
    "read_last_refresh",
    "refreshing_alone",
    "withdraw_refresh",
]

FILE = "REFRESHED"

KILLED = "it was killed, or the machine stopped, before it ended"


@dataclass(frozen=True, slots=True)
class LastRefresh:
    """The last refresh, done or failed.

    Args:
        started_at: when it began, UTC.
        finished_at: the end, UTC.
        succeeded_at: the end of the last successful one, UTC; `None` if there is none.
        error: why it failed, without values; `None` for success.
        failures: the number of failures since the last success.
    """

    started_at: datetime
    finished_at: datetime
    succeeded_at: datetime | None = None
    error: str | None = None
    failures: int = 0


def read_last_refresh(path: Path | str) -> LastRefresh | None:
    """Return the last refresh of the store in this directory; `None` if there is none or the file is unreadable.

    One that began, did not end, and is not running any more was killed: it counts as failed.
    """
    last, begun = _read(Path(path))
    if begun is None or not _can_be_locked(Path(path)):
        return last
    return _failed(last, begun, begun, KILLED)


def begin_refresh(path: Path, started_at: datetime) -> None:
    """Note that a refresh begins, so that one that is killed leaves a trace. The caller is `refreshing_alone`.

    Raises:
        OSError: the file cannot be written.
    """
    last, begun = _read(path)
    _write(path, last if begun is None else _failed(last, begun, begun, KILLED), started_at)


def withdraw_refresh(path: Path) -> None:
    """Take back what `begin_refresh` noted: the refresh could not begin, or was stopped on purpose."""
    last, begun = _read(path)
    if last is not None:
        _write(path, last, None)
    elif begun is not None:
        (path / FILE).unlink(missing_ok=True)


def note_refresh(path: Path | str, started_at: datetime, error: str | None) -> LastRefresh:
    """Save the outcome of a refresh that has just ended.

    Args:
        path: the store's directory.
        started_at: when it began, UTC.
        error: why it failed, without values; `None` for success.

    Raises:
        OSError: the file cannot be written.
    """
    before, _ = _read(Path(path))
    now = datetime.now(UTC)
    last = LastRefresh(started_at, now, now) if error is None else _failed(before, started_at, now, error)
    _write(Path(path), last, None)
    return last


@contextlib.contextmanager
def refreshing_alone(path: Path) -> Generator[None]:
    """Hold the right to refresh this store, which the system frees when the process dies.

    Another lock than the store's own: between seeing that nobody has refreshed and beginning to build, nobody may.

    Raises:
        StoreBusy: another process has it.
        StoreError: it cannot be had at all.
    """
    with _lock(path, 0.25):  # longer than a look
        yield


def is_refreshing(path: Path | str) -> bool:
    """Whether some process is refreshing this store at the moment."""
    try:
        with _lock(Path(path), 0):
            return False
    except StoreBusy:
        return True
    except StoreError:  # the refresh itself will report it
        return False


def _can_be_locked(path: Path) -> bool:
    """Whether surely no process is refreshing: a reader without the right to lock cannot tell."""
    try:
        with _lock(path, 0):
            return True
    except StoreError:
        return False


def _lock(path: Path, wait: float) -> contextlib.AbstractContextManager[None]:
    busy = f"another process is refreshing the store in {path}; wait for it to end"
    return lock_file(path / "REFRESHING", wait, busy)


def _failed(before: LastRefresh | None, started_at: datetime, finished_at: datetime, error: str) -> LastRefresh:
    succeeded = None if before is None else before.succeeded_at
    return LastRefresh(started_at, finished_at, succeeded, error, 1 if before is None else before.failures + 1)


def _read(path: Path) -> tuple[LastRefresh | None, datetime | None]:
    """Return the note of the last refresh that ended, and when a later one began."""
    try:
        content: dict[str, Any] = json.loads((path / FILE).read_bytes())
        last, begun, succeeded = None, content.get("begun_at"), content.get("succeeded_at")
        if content.get("started_at") is not None:
            last = LastRefresh(
                started_at=_time(content["started_at"]),
                finished_at=_time(content["finished_at"]),
                succeeded_at=None if succeeded is None else _time(succeeded),
                error=None if content["error"] is None else str(content["error"]),
                failures=int(content["failures"]),
            )
        return last, None if begun is None else _time(begun)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a note: without it, the next one is written
        return None, None


def _write(path: Path, last: LastRefresh | None, begun_at: datetime | None) -> None:
    content = ({} if last is None else asdict(last)) | ({} if begun_at is None else {"begun_at": begun_at})
    replace_private(path / FILE, json.dumps(content, default=datetime.isoformat).encode())


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
