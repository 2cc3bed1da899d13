"""A directory for as long as the process needs it. It holds personal data, so nothing of it may stay behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from .files import lock_descriptor, private_opener
from .signals import removed_on_signal

__all__ = ["temporary_directory"]

_PREFIX = "profile-enrich-"
_LOCK = "running"


@contextlib.contextmanager
def temporary_directory() -> Generator[Path]:
    """Yield a directory that only its owner can read, and remove it at the end.

    It is removed by the signals that `ending_on_signals` handles, too. What a `kill -9` left behind, the next call
    removes, in any process of the same user: as long as a directory is used, a lock is held in it.

    Raises:
        OSError: the system refuses to make it.
    """
    _remove_abandoned()
    directory = Path(tempfile.gettempdir(), _PREFIX + secrets.token_hex(8))
    with removed_on_signal(directory):  # before it is there: a signal may arrive right after it
        directory.mkdir(0o700)
        try:
            with _locked(directory):
                yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Hold a lock that the system releases when the process ends, however it ends.

    The lock file gets its name only when it is locked, so that no other process can find it unlocked.
    """
    fresh = directory / f"{_LOCK}.new"
    descriptor = private_opener(str(fresh), os.O_RDWR | os.O_CREAT)
    try:
        lock_descriptor(descriptor)
        fresh.rename(directory / _LOCK)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned() -> None:
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Somebody else's, not ours, or being made at this moment: then it cannot be opened, and is left alone.
        with contextlib.suppress(OSError):
            descriptor = private_opener(str(directory / _LOCK), os.O_RDWR)
            try:
                abandoned = os.fstat(descriptor).st_uid == os.getuid() and lock_descriptor(descriptor)
            finally:
                os.close(descriptor)
            if abandoned:
                shutil.rmtree(directory, ignore_errors=True)
