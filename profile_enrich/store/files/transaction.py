"""The frame of everything that changes a store: lock, write new files, swap the manifest, clean up."""

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
    """Remove what was not finished when a signal ends the process.

    The lock is not released: what another thread has just finished must not be named in a manifest any more.
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
    """Make a new generation: all of it becomes visible at once, or nothing.

    Args:
        path: the store's directory.
        change: writes data files that the manifest does not name yet, and returns the manifest that does. When it
            returns the manifest that it was given, nothing is swapped.
        start: gives the manifest to begin with, under the lock.
        wait: seconds to wait for another writer.

    Returns:
        What `change` returned beside the manifest.

    Raises:
        StoreError: another process writes, or the system refuses to. The old data are untouched.
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
