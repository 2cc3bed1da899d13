"""Private temporary directories that are removed even after a crash."""

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

    The signals that `ending_on_signals` handles remove it, too. The next call in any process of the same user removes
    directories left by a `kill -9`, detected by their released locks.

    Raises:
        OSError: the directory cannot be created.
    """
    _remove_abandoned()
    directory = Path(tempfile.gettempdir(), _PREFIX + secrets.token_hex(8))
    with removed_on_signal(directory):  # registered before its creation, because a signal may arrive right after
        directory.mkdir(0o700)
        try:
            with _locked(directory):
                yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Hold a lock that the system releases at the end of the process.

    The lock file is renamed to its final name after locking, so no other process can find it unlocked.
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
        # A directory of another user, or one that is being created, cannot be opened and is skipped.
        with contextlib.suppress(OSError):
            descriptor = private_opener(str(directory / _LOCK), os.O_RDWR)
            try:
                abandoned = os.fstat(descriptor).st_uid == os.getuid() and lock_descriptor(descriptor)
            finally:
                os.close(descriptor)
            if abandoned:
                shutil.rmtree(directory, ignore_errors=True)
