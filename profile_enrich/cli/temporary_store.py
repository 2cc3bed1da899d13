"""A store for as long as the command runs. It holds personal data, so that nothing of it may stay behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import FrameType

__all__ = ["temporary_store"]

_PREFIX = "profile-enrich-"
_LOCK = "running"


@contextlib.contextmanager
def temporary_store() -> Generator[Path]:
    """A path for a store, in a directory that only its owner can read, and that is removed at the end.

    It is removed after SIGTERM and SIGHUP too. What a `kill -9` left behind, the next run removes: a running command
    holds a lock in its directory.
    """
    _remove_abandoned()
    parent = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
    try:
        with _locked(parent), _ending_on_signals():
            yield parent / "profiles.store"
    finally:
        shutil.rmtree(parent, ignore_errors=True)


@contextlib.contextmanager
def _ending_on_signals() -> Generator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # Not those that the caller set up otherwise: `nohup` ignores SIGHUP, for example.
    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    changed = [number for number in wanted if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _locked(directory: Path) -> Generator[None]:
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock could be had. The system gives it up when the process ends, however it ends."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned() -> None:
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Somebody else's, not ours, or being made at this moment: then it cannot be opened, and is left alone.
        with contextlib.suppress(OSError):
            descriptor = os.open(directory / _LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                abandoned = os.fstat(descriptor).st_uid == os.getuid() and _lock(descriptor)
            finally:
                os.close(descriptor)
            if abandoned:
                shutil.rmtree(directory, ignore_errors=True)
