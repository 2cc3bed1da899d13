"""State shared by the workers of one server: counters, the rate buckets of the API keys, and the workers' slots."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import struct
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Self

from .._utils.fork import reset_after_fork
from .._utils.temporary_directory import temporary_directory

__all__ = ["BucketTable", "SharedState"]

_SLOTS = 4096
_SLOT = struct.Struct("=8sd")


class BucketTable:
    """A fixed-size table of token buckets. Each is one number, the time at which it is full again (GCRA).

    Args:
        file: an open file shared by the processes and locked during each access; the system releases the lock of a dead
            process. `None` keeps the table in this process.
    """

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._file = file
        size = _SLOTS * _SLOT.size
        if file is None:
            self._table: mmap.mmap | bytearray = bytearray(size)
        else:
            file.truncate(size)
            self._table = mmap.mmap(file.fileno(), size)

    def take(self, name: str, cost: int, *, size: int, seconds: float, now: float) -> tuple[bool, float]:
        """Take tokens from a bucket that holds `size` and refills in `seconds`.

        Args:
            name: the name of the bucket.
            cost: the number of tokens.
            size: the capacity of the bucket.
            seconds: how long an empty bucket takes to refill.
            now: the reading of a monotonic clock shared by all processes.

        Returns:
            Whether there were enough tokens, and the remaining level.
        """
        tag = hashlib.blake2b(name.encode(), digest_size=8).digest()
        with self._locked():
            place, full_at = self._find(tag, now)
            # After a change of the rate, limit the debt to what the new rate allows.
            level = size - min(max(0.0, full_at - now), seconds) * size / seconds
            # A tolerance of a thousandth, so that rounding errors do not reject the last request.
            if level + 0.001 < cost:
                return False, level
            level = max(0.0, level - cost)
            _SLOT.pack_into(self._table, place, tag, now + (size - level) * seconds / size)
            return True, level

    def _find(self, tag: bytes, now: float) -> tuple[int, float]:
        """Return the bucket's offset and value; a new bucket replaces one that is full again."""
        start = int.from_bytes(tag, "big") % _SLOTS
        free: int | None = None
        for step in range(_SLOTS):
            place = (start + step) % _SLOTS * _SLOT.size
            found, full_at = _SLOT.unpack_from(self._table, place)
            if found == tag:
                return place, full_at
            if free is None and full_at <= now:
                free = place
            if full_at == 0.0:  # unused: the tag cannot occur after it
                break
        # The table is full, so this key shares a bucket: it gets less than its rate, never more.
        return (
            (start * _SLOT.size, _SLOT.unpack_from(self._table, start * _SLOT.size)[1]) if free is None else (free, 0.0)
        )

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        if self._file is None:
            yield
            return
        import fcntl  # only workers share a file, and they need fork

        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


class Places:
    """A bounded number of slots for each name, e.g. for the open streams of an API key.

    A slot is one locked byte of a file: the system frees those of a process that dies.

    Args:
        file: an open file that the processes share; `None` keeps the slots in this process.
    """

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._file = file
        self._taken: set[int] = set()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the parent's slots, whose locks are not inherited."""
        self._taken = set()

    def take(self, name: str, count: int) -> int | None:
        """Take one of `count` slots; `None` when all are taken, here or in another process.

        Returns:
            The slot, for `free`.
        """
        first = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=5).digest(), "big") << 20
        for place in range(first, first + min(count, 1 << 20)):
            if place not in self._taken and self._lock(place):
                self._taken.add(place)
                return place
        return None

    def free(self, place: int) -> None:
        """Release a slot."""
        self._taken.discard(place)
        if self._file is not None:
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def _lock(self, place: int) -> bool:
        if self._file is not None:
            import fcntl  # only workers share a file, and they need fork

            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                return True
            return False
        return True


class SharedState:
    """State of one server, shared by its workers.

    Attributes:
        directory: the directory of the workers' counters; `None` for a single process.
        buckets: the rate buckets.
        streams: the slots of each key's streams.
    """

    def __init__(
        self, directory: Path | None = None, buckets: BucketTable | None = None, streams: Places | None = None
    ) -> None:
        self.directory = directory
        self.buckets = buckets or BucketTable()
        self.streams = streams or Places()

    @classmethod
    @contextlib.contextmanager
    def create(cls, *, several: bool) -> Generator[Self]:
        """Create the state before forking the workers, and remove it at the end.

        Args:
            several: whether several processes use it.
        """
        if not several:
            yield cls()
            return
        with (
            temporary_directory() as directory,
            tempfile.TemporaryFile() as buckets,  # without a name, so that no file remains
            tempfile.TemporaryFile() as streams,
        ):
            yield cls(directory, BucketTable(buckets), Places(streams))
