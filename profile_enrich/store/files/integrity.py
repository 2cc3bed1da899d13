"""Integrity of data files: each is compared with the digest in the manifest."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ..._utils.log_once import LogOnce
from ...errors import StoreError

__all__ = ["FileIntegrity", "Scrubber", "digest_of", "file_signature", "require_intact"]

_log = logging.getLogger("profile_enrich.store")

_CHUNK = 1 << 20

Signature = tuple[int, int, int]


def file_signature(path: Path | str) -> Signature | None:
    """Return a value that differs after every write to a file, at the cost of one `stat`; `None` if it is gone."""
    try:
        facts = os.stat(path)  # noqa: PTH116  # before every 404
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino, facts.st_size


def digest_of(path: Path, *, rate: float = 0, stop: threading.Event | None = None) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Args:
        path: the file.
        rate: bytes per second; 0, the default, for no limit.
        stop: ends the reading; the result is then empty.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if stop is not None and stop.wait(len(chunk) / rate if rate else 0):
                return ""
    return digest.hexdigest()


def require_intact(path: Path, sha256: str) -> None:
    """Check a data file before it is copied or merged, which would give the damage a right digest.

    Raises:
        StoreError: it is damaged.
        OSError: it cannot be read.
    """
    if digest_of(path) != sha256:
        raise StoreError(f"the data file {path} is damaged; restore it, or build its collection again")


class FileIntegrity:
    """Whether a data file is as it was written. Threads share it.

    A file is trusted when the store is opened. A write to it shows in its signature; other damage shows in its digest.

    Args:
        path: the data file.
        sha256: its digest in the manifest.

    Attributes:
        judged: the signature of the file that was last judged.
        intact: the judgement.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        self._path = path
        self._sha256 = sha256
        self.judged = file_signature(path)
        self.intact = True

    def changed(self) -> bool:
        """Return whether the file must be judged again. A deleted one need not be: who has it open has all of it."""
        return file_signature(self._path) not in (None, self.judged)

    def verify(self, *, rate: float = 0, stop: threading.Event | None = None) -> bool:
        """Compare the file with its digest; return whether the judgement changed, and log it if the file is damaged.

        Args:
            rate: bytes per second; 0, the default, for no limit.
            stop: ends the reading, without a judgement.
        """
        before = file_signature(self._path)
        try:
            found = digest_of(self._path, rate=rate, stop=stop)
        except FileNotFoundError:
            return False  # a build has just replaced it
        except OSError:
            found = "unreadable"
        if not found or file_signature(self._path) != before:  # being written just now
            return False
        old = (self.judged, self.intact)
        self.judged, self.intact = before, found == self._sha256
        if not self.intact and _REPORTED.first(str(self._path), str(before)):
            _log.error(
                "the data file %s is damaged (its digest does not match): what is found in it passes a checksum, all"
                " else fails; restore the file, or build its collection again",
                self._path,
            )
        return (self.judged, self.intact) != old


_REPORTED = LogOnce()


class Scrubber:
    """Verify all data files of a store again and again, in a thread.

    Args:
        verify: verifies them once; `LocalStore.verify`.
        rate: the bytes per second that it reads.
        pause: seconds between two rounds.
    """

    def __init__(self, verify: Callable[[float, threading.Event], object], *, rate: float, pause: float) -> None:
        self._verify = verify
        self._rate = rate
        self._pause = pause
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; once."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="profile_enrich-scrubber", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None

    def _run(self) -> None:
        while not self._stop.is_set():
            self._verify(self._rate, self._stop)
            self._stop.wait(self._pause)
