"""Scheduled refresh of the served store, in a separate process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypedDict

from .._utils.units import parse_duration
from .._utils.validation import check_number
from ..errors import ConfigurationError, ProfileEnrichError
from ..store.collection_specs import MAX_SHRINK, CollectionSpec
from ..store.files.manifest import read_manifest
from ..store.inputs.source_config import spec_to_table
from ..store.writes.refresh_from_sources import check_vanished
from ..store.writes.refresh_status import (
    LastRefresh,
    is_refreshing,
    note_refresh,
    read_last_refresh,
    withdraw_refresh,
)

__all__ = ["RefreshSchedule", "RefreshStatus", "seconds_of"]

_log = logging.getLogger("profile_enrich.server.scheduled_refresh")

_BUSY_PAUSE = 30.0
"""Seconds until the next check while the store is being built manually."""
_OTHERS_PAUSE = 2.0
"""Seconds until the next check while another worker or host is refreshing."""
_END = 5.0
"""Seconds that a refresh has to end after the server stops."""


class RefreshStatus(TypedDict):
    """The state of scheduled refreshing, as JSON data. Times are ISO 8601 in UTC."""

    every: float
    """Seconds between two refreshes."""
    running: bool
    """Whether this process is refreshing now."""
    last_started_at: str | None
    """The start of the last refresh by any process."""
    last_succeeded_at: str | None
    """When the data were last refreshed or built."""
    age: float | None
    """Seconds since then."""
    last_error: str | None
    """The error of the last refresh; `None` for success."""
    failures: int
    """The number of failures since the last success."""
    next_at: str | None
    """The next check by this process; `None` if it is not started, or refreshing now."""


def seconds_of(text: str) -> float:
    """Parse a duration such as `90s`, `15m`, `2h`, `1d` or `900` to seconds.

    Raises:
        ConfigurationError: it has another form, or is shorter than a second.
    """
    seconds = parse_duration(text)
    if not 1 <= seconds <= 366 * 86400:
        raise ConfigurationError("the time between two refreshes is written like 90s, 15m, 2h or 1d")
    return seconds


class RefreshSchedule:
    """Refresh a store at an interval, in a separate process, while it is served.

    Every worker and host can have a schedule for the same store: one of them refreshes, and the others wait for the
    next interval. Readers pick up the new generation automatically. If a refresh fails, the old data are still served,
    and the failure is logged once until the next success (logger `profile_enrich.server.scheduled_refresh`).

    Args:
        path: the store's directory.
        specs: the sources; by default those that `profile-enrich index build` saved in the store, read at each refresh.
        every: seconds between the starts of two refreshes.
        jitter: the random part of the interval, as a share of `every`, so that servers do not read the source at the
            same time.
        changed_only: write and announce only differences; see `refresh_store`.
        vanished: with `changed_only`, what to do with records that the sources no longer have.
        on_duplicate: as in `build_store`.
        max_shrink: the share of its records that a collection may lose, from 0 to 1; 0.2 by default. A refresh that
            would lose more fails.

    Raises:
        ConfigurationError: a source can be read only once, or a number is out of range.
        StoreError: the store does not exist.
    """

    def __init__(
        self,
        path: Path | str,
        specs: Sequence[CollectionSpec] | None = None,
        *,
        every: float,
        jitter: float = 0.1,
        changed_only: bool = False,
        vanished: Literal["keep", "delete"] = "keep",
        on_duplicate: Literal["last", "fail"] = "last",
        max_shrink: float = MAX_SHRINK,
    ) -> None:
        check_number("every", every, positive=True, most=366 * 86_400)
        check_number("jitter", jitter, most=1, unit="parts of `every`")
        check_vanished(vanished, changed_only, specs or ())
        self._path = Path(path)
        read_manifest(self._path)
        self._order: dict[str, Any] = {
            "path": str(self._path.absolute()),
            "collections": None
            if specs is None
            else {spec.name: spec_to_table(spec, keep_password=True) for spec in specs},
            "changed_only": changed_only,
            "vanished": vanished,
            "on_duplicate": on_duplicate,
            "max_shrink": max_shrink,
        }
        self._every = float(every)
        self._jitter = jitter
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self._next: datetime | None = None

    def start(self) -> None:
        """Start the schedule. A second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="profile-enrich-refresh", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the schedule and a running refresh. The old data are still served. This can block for seconds."""
        self._stopping.set()
        self._wake.set()
        with self._lock:
            child = self._child
        if child is not None:
            _end(child)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def change(self, every: float) -> None:
        """Change the interval.

        Args:
            every: in seconds.
        """
        self._every = float(every)
        self._wake.set()

    def status(self) -> RefreshStatus:
        """Return the state of refreshing, including refreshes by other processes."""
        last = read_last_refresh(self._path)
        fresh = _fresh_at(self._path, last)
        running = self._child is not None
        return {
            "every": self._every,
            "running": running,
            "last_started_at": None if last is None else _iso(last.started_at),
            "last_succeeded_at": None if fresh is None else _iso(fresh),
            "age": None if fresh is None else max((datetime.now(UTC) - fresh).total_seconds(), 0.0),
            "last_error": None if last is None else last.error,
            "failures": 0 if last is None else last.failures,
            "next_at": None if running or self._next is None else _iso(self._next),
        }

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._wake.wait(self._until_due()):  # stopping, or another interval
                self._wake.clear()
                continue
            if is_refreshing(self._path):  # checking here is cheaper than starting a process
                self._stopping.wait(self._in(min(_OTHERS_PAUSE, self._every)))
                continue
            self._next = None
            outcome, before = "", read_last_refresh(self._path)
            try:
                outcome = self._refresh(before)
            except OSError as error:
                _log.warning("the store cannot be refreshed: %s; trying again", error.strerror)
            if outcome == "busy" and (is_refreshing(self._path) or read_last_refresh(self._path) != before):
                continue  # another worker was first
            if outcome in ("busy", ""):  # there is no saved outcome to count from
                self._stopping.wait(self._in(min(_BUSY_PAUSE, self._every)))

    def _until_due(self) -> float:
        """Return the seconds until the next refresh: `every` after the start of the last refresh or build."""
        last = read_last_refresh(self._path)
        begun = last.started_at if last is not None else _fresh_at(self._path, None)
        now = datetime.now(UTC)
        span = self._every * (1 + random.uniform(-self._jitter, self._jitter))  # noqa: S311  # spreads load, no secret
        passed = 0.0 if begun is None else (now - begun).total_seconds()
        return self._in(min(max(span - passed, 0.0), span))  # even if another host's clock is ahead

    def _in(self, seconds: float) -> float:
        self._next = datetime.now(UTC) + timedelta(seconds=seconds)
        return seconds

    def _refresh(self, before: LastRefresh | None) -> str:
        began = datetime.now(UTC)
        seen = datetime.min.replace(tzinfo=UTC) if before is None else before.started_at
        order = {**self._order, "since": seen.isoformat()}
        with self._lock:
            if self._stopping.is_set():
                return "stopped"
            self._child = child = subprocess.Popen(
                [sys.executable, "-m", "profile_enrich.store.writes.refresh_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a traceback could quote a record
                text=True,
                start_new_session=True,  # the server handles Ctrl-C at the terminal
            )
        try:
            answer = _ask(child, order)
        finally:
            _end(child)
            with self._lock:
                self._child = None
        if self._stopping.is_set():
            if not is_refreshing(self._path):
                with contextlib.suppress(OSError):
                    withdraw_refresh(self._path)
            return "stopped"
        if answer is None:
            error = f"the refreshing process ended with code {child.returncode}"
            answer = {"outcome": "failed", "error": error, "failures": note_refresh(self._path, began, error).failures}
        self._say(answer, before)
        return str(answer["outcome"])

    def _say(self, answer: dict[str, Any], before: LastRefresh | None) -> None:
        failed_before = before is not None and before.error is not None
        if answer["outcome"] == "failed":
            if not failed_before or (before is not None and before.error != answer["error"]):
                _log.warning("the refresh failed, and the old data are still served: %s", answer["error"])
        elif answer["outcome"] == "done" and failed_before:
            _log.warning("the store is refreshed again")


def _ask(child: subprocess.Popen[str], order: dict[str, Any]) -> dict[str, Any] | None:
    """Return the child's outcome; `None` if it ended without one."""
    assert child.stdin is not None  # noqa: S101  # they are pipes
    assert child.stdout is not None  # noqa: S101  # as above
    with contextlib.suppress(OSError, ValueError):
        child.stdin.write(json.dumps(order) + "\n")
        child.stdin.flush()
        return dict(json.loads(child.stdout.readline()))
    return None


def _end(child: subprocess.Popen[str]) -> None:
    """End the child and its children, if it is still running."""
    for kill in (False, True):
        if child.poll() is None:
            with contextlib.suppress(OSError):
                _signal(child, kill)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_END)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.close()


def _signal(child: subprocess.Popen[str], kill: bool) -> None:
    if sys.platform == "win32":
        child.terminate()
    else:
        os.killpg(child.pid, signal.SIGKILL if kill else signal.SIGTERM)


def _fresh_at(path: Path, last: LastRefresh | None) -> datetime | None:
    """When the data were last refreshed or built."""
    known = [last.succeeded_at] if last is not None and last.succeeded_at is not None else []
    with contextlib.suppress(ProfileEnrichError):
        known += [item.updated_at for item in read_manifest(path).collections.values()]
    return max(known, default=None)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
