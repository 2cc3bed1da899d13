"""The audit log: which key asked for which record, when, and the answer's status. One JSON line a record.

```json
{"at":"2030-01-31T12:00:00.123Z","key":"partner","kind":"census.record","method":"GET",
 "entity":"Users","record":"9f86…","status":200}
```

`record` is a keyed hash: one person has the same one whoever asks, and nobody can try ids without the store's secret.
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

from ..errors import ConfigurationError
from .http.messages import Request

__all__ = ["AuditLog", "hash_id"]

_log = logging.getLogger("profile_enrich.server")

_WAITING = 20_000
"""The most lines that wait for the disk; more are counted and dropped, so that a full disk stops no answer."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})  # others are a stranger's text


def hash_id(secret: bytes, record_id: str) -> str:
    """What stands for a record in the audit log: to find the lines about one person.

    Args:
        secret: of the store, `LocalStore.secret`. It stays the same over refreshes.
        record_id: the record's key.

    Returns:
        32 hexadecimal digits.
    """
    salt = hmac.digest(secret, b"audit\0", "sha256")
    return hmac.digest(salt, record_id.encode(errors="surrogatepass"), "sha256")[:16].hex()


class _PrivateFile(WatchedFileHandler):
    """A file of its owner alone, opened anew when a log rotator has moved it."""

    _torn = False
    """Whether the last line in the file is incomplete."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def write_line(self, line: str) -> None:
        self.reopenIfNeeded()
        if self.stream is None:  # it was closed
            self.stream = self._open()
        # Past the stream's buffer: what a full disk refuses must not be written once more with the next line.
        data = f"{line}\n".encode()
        written = os.write(self.stream.fileno(), b"\n" + data if self._torn else data)
        self._torn = written < len(data) + self._torn
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class AuditLog:
    """Writes the audit log from a thread of its own: no request waits for the disk.

    Several processes may write to one file: each line is one write at its end. A file that was moved away (logrotate's
    `create`) is opened anew at the next line; no signal is needed.

    When the disk is slower than the requests, at most 20,000 lines wait. Of lines that found no place, and of those
    that could not be written, the next line that is written holds the number (`"dropped": n`).

    Args:
        target: a file, which is made with the rights 0600; or any `logging.Handler`, which gets a record a line.
        ids: `"hashed"` (see `hash_id`), `"none"`, or `"clear"`: then the file holds personal data, and is to be kept
            like the profiles themselves.
        clock: seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: `ids` is something else.
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
    ) -> None:
        """Write one answer. It never waits for the disk, and never raises because of it.

        Args:
            secret: of the store.
            key: the id of the key that asked; `None` when it was none that is known.
            kind: of request, e.g. `"census.record"`.
            method: of HTTP.
            entity: the collection that was named, if the key may read it.
            record_id: whose record was asked for; `None` for lists.
            status: of the answer.
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
        if self._thread is None or self._process != os.getpid():
            self._start()
        try:
            self._queue.put_nowait(json.dumps(facts, separators=(",", ":")))
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def note(self, secret: bytes, kind: str, request: Request, status: int) -> None:
        """Note one answer: a line for each record that was asked for, one line when it was none.

        Args:
            secret: of the store.
            kind: of request, e.g. `"census.record"`.
            request: with what was noted of it.
            status: of the answer; in a batch each record has its own.
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
            if self._process != os.getpid():  # forked: what waits is the parent's to write
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
                # Not `Handler.emit` of a stream: that prints failures, and the line with them.
                self._handler.acquire()
                try:
                    self._emit(line)
                finally:
                    self._handler.release()
            except Exception as error:  # noqa: BLE001  # a foreign handler; the next line may go well again
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
