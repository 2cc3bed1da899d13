"""Store transactions: lock, write new files, swap the manifest, clean up."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..._utils.signals import on_signal
from ...errors import StoreError
from .manifest import Manifest, locked, new_manifest, read_manifest, remove_leftovers, write_manifest

__all__ = ["change_store"]

Result = TypeVar("Result")


_SWAP = threading.Lock()


def _abandon(path: Path) -> None:
    """Remove unfinished files when a signal ends the process.

    The lock is kept, so that no other thread can publish a manifest any more.
    """
    if _SWAP.acquire(timeout=0.5):
        manifest = new_manifest()
        with contextlib.suppress(StoreError):
            manifest = read_manifest(path)
        remove_leftovers(path, manifest)


def change_store(
    path: Path,
    change: Callable[[Manifest], tuple[Manifest, Result]],
    *,
    start: Callable[[Path], Manifest] = read_manifest,
    wait: float = 0,
) -> Result:
    """Make a new generation atomically.

    Args:
        path: the store's directory.
        change: writes new data files and returns the manifest that lists them. If it returns the manifest that it got,
            nothing is swapped.
        start: returns the current manifest; called under the lock.
        wait: seconds to wait for another writer.

    Returns:
        The second value that `change` returned.

    Raises:
        StoreError: another process is writing, or writing failed. The old data are untouched.
    """
    with locked(path, wait), on_signal(lambda _: _abandon(path)):
        old = start(path)
        remove_leftovers(path, old)
        new, problem = old, ""
        results: list[Result] = []
        try:
            new, result = change(old)
            results.append(result)
            if new is not old:
                with _SWAP:
                    write_manifest(path, new)
        except (OSError, sqlite3.Error) as error:
            problem = str(getattr(error, "strerror", None) or getattr(error, "sqlite_errorname", type(error).__name__))
            new = old
        except BaseException:
            remove_leftovers(path, old)
            raise
        remove_leftovers(path, new)
    if problem:
        raise StoreError(f"the store in {path} cannot be written: {problem}")
    return results[0]
