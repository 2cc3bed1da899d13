"""Private files, file locks and durable renames."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

from .signals import removed_on_signal

__all__ = [
    "FileLock",
    "beside",
    "exclusive_lock",
    "lock_descriptor",
    "private_opener",
    "replace_private",
    "sync_directory",
]


def private_opener(path: str, flags: int) -> int:
    """Open a file that only its owner can read: the `opener` of `open()`. A symbolic link is refused (`OSError`)."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a working file of `path`: its name with one more suffix, in the same directory."""
    return path.with_name(f"{path.name}.{suffix}")


def sync_directory(path: Path) -> None:
    """Make the renames in a directory durable, where the system can (Windows cannot open directories)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_private(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably with a private one: after a crash, it has the old or the new content.

    Raises:
        OSError: the directory cannot be written, or its disk is full. The old file is unchanged.
    """
    fresh = beside(path, "new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    try:
        with open(fresh, "xb", opener=private_opener) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    sync_directory(path.parent)


def lock_descriptor(descriptor: int) -> bool:
    """Lock an open file exclusively without waiting. The system releases the lock when the process ends.

    Returns:
        False if another process holds the lock. Always true on systems without `fcntl` (Windows), which have no lock.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def exclusive_lock(file: Path, wait: float) -> Generator[None]:
    """Hold an exclusive lock on a private file, which is created if it does not exist.

    SQLite's file lock works wherever Python's `sqlite3` does, and is released when the process dies.

    Args:
        file: the lock file.
        wait: seconds to wait for the lock.

    Raises:
        TimeoutError: another process (or thread) holds it.
        OSError: the file cannot be opened or locked.
    """
    import sqlite3

    connection: sqlite3.Connection | None = None
    problem: OSError | None = None
    try:
        descriptor = private_opener(str(file), os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_mode & 0o077:
                os.fchmod(descriptor, 0o600)  # another user's read lock would block every writer
        finally:
            os.close(descriptor)
        try:
            connection = sqlite3.connect(file, timeout=wait, isolation_level=None)
            connection.execute("PRAGMA journal_mode = MEMORY")  # leaves no journal file behind after a kill
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            held = error.sqlite_errorname in ("SQLITE_BUSY", "SQLITE_LOCKED")
            problem = TimeoutError() if held else OSError(0, error.sqlite_errorname)
        if problem is not None:
            raise problem
        yield
    finally:
        if connection is not None:
            connection.close()


class FileLock:
    """An exclusive lock on a name, held through a lock file that exists as long as the lock. A signal removes it, too.

    Args:
        path: the lock file. A killed process leaves it behind; it then locks nothing.

    Attributes:
        abandoned: the lock file already existed, so an earlier holder did not release it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.abandoned = False
        self._descriptor: int | None = None
        self._registered = contextlib.ExitStack()

    def acquire(self) -> bool:
        """Take the lock without waiting.

        Returns:
            False if another process holds it.

        Raises:
            OSError: the lock file cannot be created.
        """
        while True:
            self.abandoned = self.path.exists()
            descriptor = private_opener(str(self.path), os.O_RDWR | os.O_CREAT)
            if not lock_descriptor(descriptor):
                os.close(descriptor)
                return False
            # The previous holder may have deleted the file between the two steps; a deleted file locks nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self.path.lstat()):
                    self._descriptor = descriptor
                    self._registered.enter_context(removed_on_signal(self.path))
                    return True
            os.close(descriptor)

    def release(self) -> None:
        """Remove the lock file and release the lock. Does nothing if the lock is not held."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self._registered.close()
        finally:
            os.close(descriptor)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
