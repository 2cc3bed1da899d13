"""Audit log: which key requested which record, when, and with which status. One JSON line per record.

```json
{"at":"2030-01-31T12:00:00.123Z","key":"partner","kind":"census.record","method":"GET",
 "entity":"Users","record":"9f86…","status":200}
```

`record` is a keyed hash: it is the same for every API key, and ids cannot be guessed without the store's secret.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Literal

from .._utils.output_paths import OutputPath, check_output_paths
from ..errors import ConfigurationError
from .http.messages import Request

__all__ = ["AuditLog", "hash_id"]

_log = logging.getLogger("profile_enrich.server")

_WAITING = 20_000
"""The largest number of queued lines. Further lines are counted and dropped, so that a full disk blocks no response."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})  # a client can send any other text


def hash_id(secret: bytes, record_id: str) -> str:
    """Return the hash of a record id in the audit log, to find the lines about one person.

    Args:
        secret: the store's secret, `LocalStore.secret`. Refreshes keep it.
        record_id: the record's key.

    Returns:
        32 hexadecimal digits.
    """
    salt = hmac.digest(secret, b"audit\0", "sha256")
    return hmac.digest(salt, record_id.encode(errors="surrogatepass"), "sha256")[:16].hex()


class _PrivateFile(WatchedFileHandler):
    """A file with mode 0600 that is reopened after a log rotator has moved it."""

    _torn = False
    """Whether the last line in the file is incomplete."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def write_line(self, line: str) -> None:
        self.reopenIfNeeded()
        if self.stream is None:  # it was closed
            self.stream = self._open()
        # Unbuffered, so that a line that did not fit on a full disk is not written again with the next one.
        data = f"{line}\n".encode()
        written = os.write(self.stream.fileno(), b"\n" + data if self._torn else data)
        self._torn = written < len(data) + self._torn
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class AuditLog:
    """Write the audit log in a separate thread, so that no request waits for the disk.

    Several processes can append to one file, because each line is one write. A file that was moved (logrotate's
    `create`) is reopened at the next line, without a signal.

    If the disk is slower than the requests, up to 20,000 lines are queued. The next written line counts the lines that
    were dropped or failed (`"dropped": n`).

    Args:
        target: the path of a file, created with mode 0600; or a `logging.Handler`, which gets one log record per line.
        ids: `"hashed"` (see `hash_id`), `"none"`, or `"clear"`. A file with clear ids holds personal data.
        clock: seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: `ids` has another value, or the target cannot be a log file.
        OSError: the file cannot be opened for writing.
    """

    def __init__(
        self,
        target: Path | str | logging.Handler,
        *,
        ids: Literal["hashed", "none", "clear"] = "hashed",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if ids not in ("hashed", "none", "clear"):
            raise ConfigurationError('ids of an audit log is "hashed", "none" or "clear"')
        if not isinstance(target, logging.Handler):
            check_output_paths([OutputPath(Path(target), "the audit log", kind="log")])
        self._ids = ids
        self._clock = clock
        self._handler = target if isinstance(target, logging.Handler) else _PrivateFile(target, encoding="utf-8")
        self._owns = self._handler is not target
        self._queue: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._failing = False

    def record(
        self,
        *,
        secret: bytes,
        key: str | None,
        kind: str,
        method: str = "GET",
        entity: str | None = None,
        record_id: str | None = None,
        status: int,
        profiles: int | None = None,
    ) -> None:
        """Write one answer. It never waits for the disk, and never raises because of it.

        Args:
            secret: the store's secret.
            key: the id of the API key; `None` if it is unknown.
            kind: the kind of request, e.g. `"census.record"`.
            method: the HTTP method.
            entity: the requested collection, if the key may read it.
            record_id: the requested record; `None` for lists.
            status: the status of the response.
            profiles: the number of profiles on a page; `None` for other requests.
        """
        shown: str | None = None
        if record_id is not None and self._ids != "none":
            shown = record_id if self._ids == "clear" else hash_id(secret, record_id)
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts: dict[str, object] = {
            "at": moment,
            "key": key,
            "kind": kind,
            "method": method if method in _METHODS else "other",
            "entity": entity,
            "record": shown,
            "status": status,
        }
        if profiles is not None:
            facts["profiles"] = profiles
        if self._thread is None or self._process != os.getpid():
            self._start()
        try:
            self._queue.put_nowait(json.dumps(facts, separators=(",", ":")))
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def note(self, secret: bytes, kind: str, request: Request, status: int) -> None:
        """Write one response: a line for each requested record, or a single line if there is none.

        Args:
            secret: the store's secret.
            kind: the kind of request, e.g. `"census.record"`.
            request: the request with its audit context.
            status: the status of the response; in a batch, each record has its own.
        """
        noted = request.noted
        none: list[tuple[str | None, int | None]] = [(None, None)]
        for record_id, own in noted.records or none:
            self.record(
                secret=secret,
                key=noted.key,
                kind=kind,
                method=request.method,
                entity=noted.entity,
                record_id=record_id,
                status=own or status,
                profiles=noted.profiles,
            )

    def close(self, timeout: float = 5.0) -> None:
        """Write the queued lines, for at most `timeout` seconds, and close the file. The next use opens it again.

        Args:
            timeout: in seconds.
        """
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and self._process == os.getpid():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout)  # the end
                thread.join(timeout)
        if self._dropped:
            _log.error("%d lines of the audit log were lost", self._dropped)
        if self._owns:
            self._handler.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._process == os.getpid():
                return
            if self._process != os.getpid():  # forked: the parent writes the queued lines
                self._queue = queue.Queue(_WAITING)
                self._process = os.getpid()
            self._thread = threading.Thread(
                target=self._write, args=(self._queue,), name="profile_enrich audit", daemon=True
            )
            self._thread.start()

    def _write(self, lines: queue.Queue[str | None]) -> None:
        while (line := lines.get()) is not None:
            failure = ""
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                line = f'{line[:-1]},"dropped":{dropped}}}'
            try:
                # A stream handler's `emit` would print errors together with the line.
                self._handler.acquire()
                try:
                    self._emit(line)
                finally:
                    self._handler.release()
            except Exception as error:  # noqa: BLE001  # the user's handler; the next line may succeed
                failure = type(error).__name__
            if failure:
                with self._lock:
                    self._dropped += dropped + 1
            if failure and not self._failing:
                _log.error("the audit log cannot be written (%s); its lines are lost until it can", failure)
            self._failing = bool(failure)

    def _emit(self, line: str) -> None:
        handler = self._handler
        if isinstance(handler, _PrivateFile):
            handler.write_line(line)
        else:
            handler.emit(logging.LogRecord("profile_enrich.server.audit", logging.INFO, "", 0, line, None, None))
