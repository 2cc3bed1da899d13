"""Private files, file locks and durable renames."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

from .signals import is_ending, on_signal

__all__ = [
    "FileLock",
    "OpenDirectory",
    "beside",
    "exclusive_lock",
    "lock_descriptor",
    "make_directory",
    "private_opener",
    "replace_private",
]


_BY_DESCRIPTOR = {os.open, os.rename, os.stat, os.unlink} <= os.supports_dir_fd
"""Whether the system finds files by their directory's descriptor (Windows does not)."""


def private_opener(path: str, flags: int) -> int:
    """Open a file that only its owner can read: the `opener` of `open()`. A symbolic link is refused (`OSError`)."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def make_directory(path: Path) -> None:
    """Make a directory that only its owner can read, and its missing parents. It may exist already.

    Raises:
        OSError: it cannot be made, or a signal that is ending the process has removed its parent.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        if is_ending():  # checked after the parent is missed: it is removed after the signal is noted
            raise
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a working file of `path`: its name with one more suffix, in the same directory."""
    return path.with_name(f"{path.name}.{suffix}")


class OpenDirectory:
    """A directory that is held open: its files are found in it even after something else took its path, e.g. a link.

    Where that is not possible (on Windows, or in a directory that may not be listed), files are found by their path.

    Args:
        path: the directory.

    Raises:
        OSError: it cannot be opened. Other methods name the file in their errors, also with a path of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        if _BY_DESCRIPTOR:
            with contextlib.suppress(PermissionError):
                self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    @contextlib.contextmanager
    def _locating(self, *names: str) -> Generator[list[str]]:
        paths = [str(self._path / name) for name in names]
        try:
            yield paths if self._descriptor is None else list(names)
        except OSError as error:
            error.filename = paths[0]
            raise

    def opener(self, name: str, flags: int) -> int:
        """Open a file that only its owner can read: the `opener` of `open()`. A symbolic link is refused."""
        with self._locating(name) as (place,):
            return os.open(place, flags | getattr(os, "O_NOFOLLOW", 0), 0o600, dir_fd=self._descriptor)

    def stat(self, name: str) -> os.stat_result:
        """Return the facts of a file or of a symbolic link."""
        with self._locating(name) as (place,):
            return os.stat(place, dir_fd=self._descriptor, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        """Return whether there is a file, or a symbolic link, of this name."""
        with contextlib.suppress(FileNotFoundError):
            return bool(self.stat(name))
        return False

    def rename(self, name: str, new: str) -> None:
        """Rename a file, and replace one that has the new name."""
        with self._locating(name, new) as (place, new_place):
            os.replace(place, new_place, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        """Remove a file if it exists."""
        with contextlib.suppress(FileNotFoundError), self._locating(name) as (place,):
            os.unlink(place, dir_fd=self._descriptor)

    def removed_on_signal(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Remove a file if a signal ends the process inside the `with` block."""
        return on_signal(lambda _: self.unlink(name))

    def replace_private(self, name: str, content: bytes) -> None:
        """Replace a file as the function `replace_private` does. A signal leaves no unfinished file, either."""
        fresh = f"{name}.new"
        self.unlink(fresh)
        with self.removed_on_signal(fresh):
            try:
                with open(fresh, "xb", opener=self.opener) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                self.rename(fresh, name)
            except BaseException:
                with contextlib.suppress(OSError):
                    self.unlink(fresh)
                raise
        self.sync()

    def sync(self) -> None:
        """Make the renames in the directory durable, where the system can."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the directory."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def replace_private(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably with a private one: after a crash, it has the old or the new content.

    Raises:
        OSError: the directory cannot be written, or its disk is full. The old file is unchanged.
    """
    with contextlib.closing(OpenDirectory(path.parent)) as directory:
        directory.replace_private(path.name, content)


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
        directory: the lock file's directory, open until the release.

    Raises:
        OSError: the directory cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = OpenDirectory(path.parent)
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
        name = self.path.name
        while True:
            self.abandoned = self.directory.exists(name)
            descriptor = self.directory.opener(name, os.O_RDWR | os.O_CREAT)
            if not lock_descriptor(descriptor):
                os.close(descriptor)
                return False
            # The previous holder may have deleted the file between the two steps; a deleted file locks nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self.directory.stat(name)):
                    self._descriptor = descriptor
                    self._registered.enter_context(self.directory.removed_on_signal(name))
                    return True
            os.close(descriptor)

    def release(self) -> None:
        """Remove the lock file and release the lock, if it is held. The lock cannot be taken again."""
        descriptor, self._descriptor = self._descriptor, None
        try:
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    self.directory.unlink(self.path.name)
                self._registered.close()
        finally:
            self.directory.close()
            if descriptor is not None:
                os.close(descriptor)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
