"""A store for as long as the command runs. It holds personal data, so nothing of it may stay behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from .._utils.files import lock_descriptor, private_opener
from .._utils.signals import ending_on_signals, removed_on_signal

__all__ = ["temporary_store"]

_PREFIX = "profile-enrich-store-"
_LOCK = "running"


@contextlib.contextmanager
def temporary_store() -> Generator[Path]:
    """Yield a path for a store, in a directory that only its owner can read, and remove it at the end.

    It is removed after SIGINT, SIGTERM and SIGHUP too. What a `kill -9` left behind, the next run removes: a running
    command holds a lock in its directory.
    """
    _remove_abandoned()
    parent = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
    try:
        with removed_on_signal(parent), ending_on_signals(), _locked(parent):
            yield parent / "profiles.store"
    finally:
        shutil.rmtree(parent, ignore_errors=True)


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
