"""Cache entries and their storage: a cachetools cache that can be swept incrementally."""

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
"""A stamp earlier than all others."""

MOST_CHANCES = 64
"""The largest number of entries that an eviction skips, which bounds its duration."""

K = TypeVar("K", bound=Hashable)


class Entry:
    """One cache entry.

    Args:
        record: the record from the source; `None` for a negative entry or a failure.
        reason: why there is no record.
        error: the failure, if `error_ttl` is set.
        fresh_until: the end of freshness, on the cache's timer.
        stale_until: the end of stale-while-revalidate.
        evict_at: the time of removal; between `stale_until` and `evict_at` it is served only while the source fails.
        tags: names under which it can be invalidated together with others.
        validators: for a conditional request.
    """

    __slots__ = ("error", "evict_at", "fresh_until", "loaded_at", "reason", "record", "refresh_at", "retry_at", "size",
                 "slot", "stale_until", "stamp", "tags", "used", "validators", "view")  # fmt: skip

    def __init__(
        self,
        record: Record | None,
        *,
        fresh_until: float,
        stale_until: float,
        evict_at: float,
        reason: Reason | None = None,
        error: ProfileEnrichError | None = None,
        tags: frozenset[str] = frozenset(),
        validators: Validators | None = None,
    ) -> None:
        self.record = record
        self.reason = reason
        self.error = error
        self.fresh_until = fresh_until
        self.stale_until = stale_until
        self.evict_at = evict_at
        self.tags = tags
        self.validators = validators
        self.refresh_at = fresh_until
        """When a lookup starts a refresh; before `fresh_until` for an eager one."""
        self.retry_at = 0.0
        """The earliest time of the next refresh, after one that failed."""
        self.stamp = NEVER
        """The stamp of its load."""
        self.size = 200 if record is None else record.size
        """Its approximate memory, in bytes."""
        self.view: Profile | None = None
        """The profile to return while the entry is fresh."""
        self.loaded_at = 0.0
        """When its load began, on the cache's timer."""
        self.slot: object = None
        """Its position in the sweeper's list."""
        self.used = False
        """Whether it was read since eviction last considered it."""

    def __repr__(self) -> str:
        return f"<Entry {'negative' if self.record is None else 'known'}, {self.size} bytes>"


_plain_get: Callable[[Any, Any], Entry] = cast(Any, Cache).__getitem__
"""Read from any cachetools cache without counting a use, unlike the subclasses' `__getitem__`."""


class SecondChanceCache(Cache[K, Entry]):
    """A second-chance cache: it evicts entries not used recently, like an LRU cache, but reads need no lock.

    A read only marks the entry. Eviction checks the entries in insertion order; a marked one is unmarked and moves to
    the end of the queue (F. J. Corbato, "A Paging Experiment with the Multics System", 1968).

    Args:
        maxsize: the largest sum of all sizes.
        getsizeof: the size of an entry; 1 by default.
    """

    def __init__(self, maxsize: float, getsizeof: Callable[[Entry], float] | None = None) -> None:
        super().__init__(maxsize, getsizeof)
        self._order: OrderedDict[K, None] = OrderedDict()
        self.lock_free_index: dict[K, Entry] = {}
        """Entries that any thread may read without a lock. An entry leaves the index when it leaves the cache."""

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
        """Remove everything."""
        self.lock_free_index.clear()
        super().clear()
        self._order.clear()

    def popitem(self) -> tuple[K, Entry]:
        """Remove and return a key that was not used recently, with its entry.

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
    """A cachetools cache with a list of slots for incremental sweeping."""

    __slots__ = ("_cursor", "_slots", "max_entries", "store")

    def __init__(self, store: Cache[K, Entry], max_entries: int) -> None:
        self.store = store
        self.max_entries = max_entries
        self._slots: list[list[K]] = []
        self._cursor = 0

    def peek(self, key: K) -> Entry | None:
        """Return the entry without counting a use of it."""
        try:
            return _plain_get(self.store, key)
        except KeyError:
            return None

    def put(self, key: K, entry: Entry) -> bool:
        """Store an entry. Returns whether it was kept."""
        older = self.peek(key)
        if older is None:
            while len(self.store) >= self.max_entries:
                self.store.popitem()
        try:
            self.store[key] = entry
        except ValueError:  # larger than the whole cache
            self.remove(key)
            return False
        if older is None:
            slot = [key]
            entry.slot = slot
            self._slots.append(slot)
        else:
            entry.slot = older.slot
        return True

    def publish(self, key: K, entry: Entry) -> None:
        """Let readers find a stored entry without a lock, where the cache supports that."""
        if isinstance(self.store, SecondChanceCache):
            self.store.lock_free_index[key] = entry

    def unpublish(self, key: K) -> None:
        """Let readers find the entry only with the lock held."""
        if isinstance(self.store, SecondChanceCache):
            self.store.lock_free_index.pop(key, None)

    def remove(self, key: K) -> bool:
        """Remove an entry. Returns whether there was one."""
        return self.store.pop(key, None) is not None

    def clear(self) -> None:
        """Remove all entries."""
        self.store.clear()
        self._slots.clear()
        self._cursor = 0

    def sweep(self, now: float, limit: int) -> int:
        """Look at up to `limit` slots, remove expired entries, and return how many were removed."""
        dropped = 0
        slots = self._slots
        for _ in range(min(limit, len(slots))):
            if self._cursor >= len(slots):
                self._cursor = 0
            slot = slots[self._cursor]
            entry = self.peek(slot[0])
            if entry is not None and entry.slot is slot:
                if entry.evict_at > now:
                    self._cursor += 1
                    continue
                self.remove(slot[0])
                dropped += 1
            # Replace the slot of a removed entry with the last one.
            last = slots.pop()
            if last is not slot:
                slots[self._cursor] = last
        return dropped

    @property
    def slots(self) -> int:
        """The number of slots in use."""
        return len(self._slots)
