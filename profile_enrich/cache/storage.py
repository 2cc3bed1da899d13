"""Entries, and the shelf that they stand on: a cachetools cache that can be swept a few entries at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, cast

from cachetools import Cache

from ..errors import ProfileEnrichError
from ..profile import Profile, Reason, Record
from ..sources.freshness import Validators

__all__ = ["NEVER", "CacheStorage", "Entry", "SecondChanceCache"]

NEVER = -1
"""The stamp before all stamps."""

MOST_CHANCES = 64
"""Entries that get a second chance before one is evicted all the same, so that no eviction takes long."""

K = TypeVar("K", bound=Hashable)


class Entry:
    """One cached answer.

    Args:
        record: what the source returned; `None` for a negative or failed answer.
        reason: why there is no record.
        error: the failure, where an error TTL was asked for.
        soft: until when it is fresh, on the cache's timer.
        hard: until when it may be served stale while a refresh runs.
        drop: when it is thrown away; between `hard` and `drop` it only stands in for a source that fails.
        tags: names under which it can be invalidated together with others.
        validators: for a conditional request.
    """

    __slots__ = ("drop", "error", "hard", "reason", "record", "retry_at", "seat", "size", "soft", "stamp", "tags",
                 "used", "validators", "view")  # fmt: skip

    def __init__(
        self,
        record: Record | None,
        *,
        soft: float,
        hard: float,
        drop: float,
        reason: Reason | None = None,
        error: ProfileEnrichError | None = None,
        tags: frozenset[str] = frozenset(),
        validators: Validators | None = None,
    ) -> None:
        self.record = record
        self.reason = reason
        self.error = error
        self.soft = soft
        self.hard = hard
        self.drop = drop
        self.tags = tags
        self.validators = validators
        self.retry_at = 0.0
        """No refresh before this time: the last one failed."""
        self.stamp = NEVER
        """The stamp of the load that brought it."""
        self.size = 200 if record is None else record.size
        """Roughly the bytes of memory that it takes."""
        self.view: Profile | None = None
        """The answer to all who ask while it is fresh."""
        self.seat: object = None
        """Its place in the list that sweeping walks along."""
        self.used = False
        """Whether it was read since it was last considered for eviction."""

    def __repr__(self) -> str:
        return f"<Entry {'negative' if self.record is None else 'known'}, {self.size} bytes>"


_plain_get: Callable[[Any, Any], Entry] = cast(Any, Cache).__getitem__
"""Reads from any cachetools cache without counting it as a use, which the subclasses' own `__getitem__` does."""


class SecondChanceCache(Cache[K, Entry]):
    """Evicts what was not used lately: an LRU in effect, whose reads need no lock.

    A use only marks the entry. Eviction goes through the entries in the order in which they came; a marked one loses
    its mark and goes to the end of the queue (F. J. Corbato, "A Paging Experiment with the Multics System", 1968).

    Args:
        maxsize: the sum of all sizes, at most.
        getsizeof: the size of an entry; 1 by default.
    """

    def __init__(self, maxsize: float, getsizeof: Callable[[Entry], float] | None = None) -> None:
        super().__init__(maxsize, getsizeof)
        self._order: OrderedDict[K, None] = OrderedDict()
        self.lock_free_index: dict[K, Entry] = {}
        """Entries that any thread may read without a lock; they leave it when they leave the cache."""

    def __getitem__(self, key: K) -> Entry:
        entry = super().__getitem__(key)
        entry.used = True
        return entry

    def __setitem__(self, key: K, entry: Entry) -> None:
        self.lock_free_index.pop(key, None)
        super().__setitem__(key, entry)
        self._order[key] = None
        self._order.move_to_end(key)

    def __delitem__(self, key: K) -> None:
        self.lock_free_index.pop(key, None)
        super().__delitem__(key)
        del self._order[key]

    def clear(self) -> None:
        """Removes everything."""
        self.lock_free_index.clear()
        super().clear()
        self._order.clear()

    def popitem(self) -> tuple[K, Entry]:
        """Removes and returns a key that was not used lately, with its entry.

        Raises:
            KeyError: the cache is empty.
        """
        for _ in range(min(MOST_CHANCES, len(self._order))):
            oldest = next(iter(self._order))
            entry = _plain_get(self, oldest)
            if not entry.used:
                break
            entry.used = False
            self._order.move_to_end(oldest)
        if not self._order:
            raise KeyError("the cache is empty")
        oldest = next(iter(self._order))
        return oldest, self.pop(oldest)


class CacheStorage(Generic[K]):
    """A cachetools cache, and a list of seats through which expired entries are found a few at a time."""

    __slots__ = ("_cursor", "_seats", "max_entries", "store")

    def __init__(self, store: Cache[K, Entry], max_entries: int) -> None:
        self.store = store
        self.max_entries = max_entries
        self._seats: list[list[K]] = []
        self._cursor = 0

    def glance(self, key: K) -> Entry | None:
        """The entry, without counting this as a use of it."""
        try:
            return _plain_get(self.store, key)
        except KeyError:
            return None

    def put(self, key: K, entry: Entry) -> bool:
        """Store an entry. Returns whether it was kept."""
        older = self.glance(key)
        if older is None:
            while len(self.store) >= self.max_entries:
                self.store.popitem()
        try:
            self.store[key] = entry
        except ValueError:  # larger than the whole cache
            self.remove(key)
            return False
        if older is None:
            seat = [key]
            entry.seat = seat
            self._seats.append(seat)
        else:
            entry.seat = older.seat
        return True

    def offer(self, key: K, entry: Entry) -> None:
        """Lets an entry that was put be read without a lock, where the cache has a place for that."""
        if isinstance(self.store, SecondChanceCache):
            self.store.lock_free_index[key] = entry

    def withdraw(self, key: K) -> None:
        """From now on the entry is read with the lock held only."""
        if isinstance(self.store, SecondChanceCache):
            self.store.lock_free_index.pop(key, None)

    def remove(self, key: K) -> bool:
        """Remove an entry. Returns whether there was one."""
        return self.store.pop(key, None) is not None

    def clear(self) -> None:
        """Remove all entries."""
        self.store.clear()
        self._seats.clear()
        self._cursor = 0

    def sweep(self, now: float, limit: int) -> int:
        """Looks at up to `limit` seats, drops what has expired, and returns how many entries that were."""
        dropped = 0
        seats = self._seats
        for _ in range(min(limit, len(seats))):
            if self._cursor >= len(seats):
                self._cursor = 0
            seat = seats[self._cursor]
            entry = self.glance(seat[0])
            if entry is not None and entry.seat is seat:
                if entry.drop > now:
                    self._cursor += 1
                    continue
                self.remove(seat[0])
                dropped += 1
            # The seat of an entry that is gone: the last one takes its place.
            last = seats.pop()
            if last is not seat:
                seats[self._cursor] = last
        return dropped

    @property
    def seats(self) -> int:
        """The number of slots in use."""
        return len(self._seats)
