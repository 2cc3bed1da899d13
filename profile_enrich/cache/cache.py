"""The in-process cache: entries with a soft and a hard expiry over a cachetools cache.

Known and unknown keys have caches of their own, so that a scan of made-up ids cannot push real profiles out. Every load
of a key takes a token first; what it brings is stored only if nothing invalidated the key, and no newer load answered
it, in the meantime.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import Cache, TLRUCache, TTLCache

from .._utils.validation import check_int
from ..errors import ConfigurationError, ProfileEnrichError
from ..profile import Profile, Record
from .storage import NEVER, CacheStorage, Entry, SecondChanceCache

__all__ = ["Entry", "LoadToken", "ProfileCache"]

SWEPT_PER_WRITE = 4
"""Seats looked at on each write: more than one new seat, so that the list of seats cannot outgrow the cache."""

MAX_OVERLAYS = 10_000
"""Overlays kept at the same time; the oldest goes first."""

MAX_TAGS = 10_000
"""Invalidated tags remembered one by one; beyond, the oldest one invalidates all tagged entries older than itself."""

K = TypeVar("K", bound=Hashable)


class LoadToken(Generic[K]):
    """The token of one load, drawn from the cache before the source is asked."""

    __slots__ = ("ended", "key", "stamp")

    def __init__(self, key: K, stamp: int) -> None:
        self.key = key
        self.stamp = stamp
        self.ended = False


class ProfileCache(Generic[K]):
    """A bounded cache of answers, safe under threads and across event loops.

    Args:
        max_entries: known profiles kept; one that was not used lately goes first. Default 50,000.
        max_bytes: roughly the memory they may take together, in bytes. Default 256 MiB.
        max_entry_bytes: a larger record is served but not kept. Default 1 MiB.
        max_negative_entries: unknown keys kept, in a cache of their own. Default 10,000.
        store: a cachetools cache to use instead of the built-in one, e.g. an `LFUCache`. Its own `maxsize` and
            `getsizeof` then take the place of `max_bytes`; `entry.size` is there for a `getsizeof`. Each read of it
            takes the lock, which costs about a microsecond.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: a bound is not positive, or the store is one that expires entries by itself.
    """

    def __init__(
        self,
        *,
        max_entries: int = 50_000,
        max_bytes: int = 256 * 2**20,
        max_entry_bytes: int = 2**20,
        max_negative_entries: int = 10_000,
        store: Cache[K, Entry] | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        bounds = {
            "max_entries": max_entries,
            "max_bytes": max_bytes,
            "max_entry_bytes": max_entry_bytes,
            "max_negative_entries": max_negative_entries,
        }
        for name, value in bounds.items():
            check_int(name, value)
        if store is None:
            store = SecondChanceCache(max_bytes, _size_of)
        elif isinstance(store, TTLCache | TLRUCache):
            raise ConfigurationError(
                "cache: TTLCache and TLRUCache drop what could be served stale; use LRUCache, LFUCache or FIFOCache"
            )
        elif not isinstance(store, Cache):
            raise ConfigurationError("cache must be a cachetools cache such as LRUCache(maxsize=50_000)")
        self.max_entry_bytes = max_entry_bytes
        self._known: CacheStorage[K] = CacheStorage(store, max_entries)
        self._unknown: CacheStorage[K] = CacheStorage(SecondChanceCache(max_negative_entries), max_negative_entries)
        self._overlays: CacheStorage[K] = CacheStorage(SecondChanceCache(MAX_OVERLAYS), MAX_OVERLAYS)
        self._timer = timer
        self._lock = threading.Lock()
        self._overlaid = False
        self._at_hand: dict[K, Entry] = store.lock_free_index if isinstance(store, SecondChanceCache) else {}
        self._hits = itertools.count()
        self._hits_read = 0
        self._stamp = 0
        self._cleared = NEVER
        self._loads: dict[K, int] = {}
        self._invalidated: dict[K, int] = {}
        self._answered: dict[K, int] = {}
        self._tags: dict[str, int] = {}
        self._tags_before = NEVER

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, key: K, now: float) -> Entry | None:
        """The entry of a key, known or unknown, not past its `drop` time at `now`; `None` when there is none."""
        with self._lock:
            # Looked for before it is got: a miss is as common as a hit here, and an exception costs ten times as much.
            if key in self._known.store:
                shelf = self._known
            elif key in self._unknown.store:
                shelf = self._unknown
            else:
                return None
            entry = shelf.store[key]
            if entry.drop <= now or (entry.tags and not self._tags_hold(entry.tags, entry.stamp)):
                shelf.remove(key)
                return None
            return entry

    def fresh(self, key: K, now: float) -> Profile | None:
        """The answer of a known key that is fresh at `now`, counted in `hits`; `None` when in doubt."""
        # Without the lock, which would cost more than the read. Entries with tags or an overlay are not at hand.
        entry = self._at_hand.get(key)
        if entry is None or now >= entry.soft:
            return None
        entry.used = True
        next(self._hits)
        return entry.view

    # --- loading ----------------------------------------------------------------------------------------------------

    def begin(self, key: K) -> LoadToken[K]:
        """Draws the token of a load. It must be given back with `end`."""
        with self._lock:
            self._stamp += 1
            self._loads[key] = self._loads.get(key, 0) + 1
            return LoadToken(key, self._stamp)

    def is_current(self, load: LoadToken[K]) -> bool:
        """Whether nothing invalidated the key since the load began. A load that is not current must not be joined."""
        with self._lock:
            return self._is_current(load)

    def commit(self, load: LoadToken[K], entry: Entry) -> bool:
        """Stores what a load brought, unless the key was invalidated or answered by a newer load in the meantime.

        Returns:
            Whether the load was still current. (An entry over `max_entry_bytes` displaces an older one, unkept.)
        """
        with self._lock:
            if not self._is_current(load) or not self._tags_hold(entry.tags, load.stamp) or not self._answer(load):
                return False
            entry.stamp = load.stamp
            here, other = (self._known, self._unknown) if entry.record is not None else (self._unknown, self._known)
            other.remove(load.key)
            if entry.size > self.max_entry_bytes:
                here.remove(load.key)
            elif here.put(load.key, entry) and entry.view is not None and not self._is_special(load.key, entry):
                here.offer(load.key, entry)
            self._sweep(SWEPT_PER_WRITE)
            return True

    def discard(self, load: LoadToken[K]) -> None:
        """A load brought what must not be kept: drops what an older load left."""
        with self._lock:
            if self._is_current(load) and self._answer(load):
                self._known.remove(load.key)
                self._unknown.remove(load.key)

    def defer(self, load: LoadToken[K], *, until: float, error: ProfileEnrichError) -> None:
        """After a failed load: keeps what is there, and no refresh before `until`."""
        with self._lock:
            entry = self._known.glance(load.key)
            if entry is not None and entry.stamp <= load.stamp and self._is_current(load):
                entry.retry_at = until
                entry.error = error

    def end(self, load: LoadToken[K]) -> None:
        """Gives the token back: a commit after it changes nothing. A second call does nothing."""
        with self._lock:
            if load.ended:
                return
            load.ended = True
            left = self._loads[load.key] - 1
            if left:
                self._loads[load.key] = left
            else:
                del self._loads[load.key]
                self._invalidated.pop(load.key, None)
                self._answered.pop(load.key, None)

    # --- overlays ---------------------------------------------------------------------------------------------------

    def overlay(self, key: K, record: Record, until: float) -> None:
        """Lays attributes over whatever the source says of a key, until that time. A second one adds to the first."""
        with self._lock:
            older = self._overlays.glance(key)
            if older is not None and older.record is not None and older.drop > self._timer():
                record = Record({**older.record.attributes, **record.attributes})
            self._overlays.put(key, Entry(record, soft=until, hard=until, drop=until))
            self._overlaid = True
            self._known.withdraw(key)
            self._sweep(SWEPT_PER_WRITE)

    def overlay_of(self, key: K, now: float) -> Record | None:
        """What lies over a key at `now`."""
        if not self._overlaid:
            return None
        with self._lock:
            entry = self._overlays.glance(key)
            return None if entry is None or entry.drop <= now else entry.record

    def rekey(self, old: K, new: K) -> None:
        """Moves what lies over the old key to the new one, and drops all else that is known of either."""
        with self._lock:
            entry = self._overlays.glance(old)
            self._invalidate(old)
            self._invalidate(new)
            if entry is not None:
                self._overlays.put(new, Entry(entry.record, soft=entry.soft, hard=entry.hard, drop=entry.drop))
                self._overlaid = True

    # --- invalidating -----------------------------------------------------------------------------------------------

    def invalidate(self, key: K) -> bool:
        """Drops a key and its overlay. Loads of it under way are not stored. Returns whether there was an entry."""
        with self._lock:
            return self._invalidate(key)

    def invalidate_tag(self, tag: str) -> None:
        """Drops all entries with this tag, also those that loads under way will bring, in constant time."""
        with self._lock:
            self._stamp += 1
            self._tags.pop(tag, None)
            self._tags[tag] = self._stamp
            if len(self._tags) > MAX_TAGS:
                oldest = next(iter(self._tags))
                self._tags_before = self._tags.pop(oldest)

    def clear(self) -> None:
        """Drops everything, also what loads that are under way will bring."""
        with self._lock:
            self._stamp += 1
            self._cleared = self._stamp
            self._known.clear()
            self._unknown.clear()
            self._overlays.clear()
            self._overlaid = False
            self._tags.clear()
            self._tags_before = NEVER

    def sweep(self, limit: int = 500) -> int:
        """Looks at up to `limit` entries of each kind, drops the expired ones, and returns how many those were."""
        with self._lock:
            return self._sweep(limit)

    # --- what is in it ----------------------------------------------------------------------------------------------

    @property
    def hits(self) -> int:
        """How often `fresh` had the answer."""
        # Counting on is the one thing that needs no lock, so looking at the counter counts as well.
        with self._lock:
            self._hits_read += 1
            return next(self._hits) - self._hits_read + 1

    @property
    def entries(self) -> int:
        """Known profiles in the cache."""
        return len(self._known.store)

    @property
    def negative_entries(self) -> int:
        """Unknown keys in the cache."""
        return len(self._unknown.store)

    @property
    def bytes(self) -> int:
        """Roughly the bytes that the known profiles take (for a store of the user's own: what that store counts)."""
        return int(getattr(self._known.store, "currsize", 0))

    @property
    def sweep_span(self) -> int:
        """How many seats a round of sweeping has to look at to have seen all of them."""
        # Twice: seats move towards the front when others go, and some are then looked at again.
        return 2 * max(self._known.seats, self._unknown.seats, self._overlays.seats)

    def renew_lock(self) -> None:
        """After a fork: the lock may have been held by a thread that does not exist in this process."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ProfileCache {self.entries} entries, {self.negative_entries} negative, {self.bytes} bytes>"

    # --- with the lock held -----------------------------------------------------------------------------------------

    def _sweep(self, limit: int) -> int:
        now = self._timer()
        dropped = self._known.sweep(now, limit)
        if self._unknown.seats:
            dropped += self._unknown.sweep(now, limit)
        if self._overlays.seats:
            dropped += self._overlays.sweep(now, limit)
            self._overlaid = self._overlays.seats > 0
        return dropped

    def _is_special(self, key: K, entry: Entry) -> bool:
        """Whether there is more to a read of it than its expiry."""
        return bool(entry.tags) or (self._overlaid and key in self._overlays.store)

    def _invalidate(self, key: K) -> bool:
        self._stamp += 1
        if key in self._loads:
            self._invalidated[key] = self._stamp
        removed = [shelf.remove(key) for shelf in (self._known, self._unknown, self._overlays)]
        return any(removed)

    def _is_current(self, load: LoadToken[K]) -> bool:
        return not load.ended and load.stamp > self._cleared and load.stamp > self._invalidated.get(load.key, NEVER)

    def _answer(self, load: LoadToken[K]) -> bool:
        """Notes that a load has answered its key, unless a newer one did. Holds also where the answer is not kept."""
        if load.stamp < self._answered.get(load.key, NEVER):
            return False
        if self._loads[load.key] > 1:
            self._answered[load.key] = load.stamp
        return True

    def _tags_hold(self, tags: frozenset[str], stamp: int) -> bool:
        if not tags:
            return True
        return stamp > self._tags_before and all(stamp > self._tags.get(tag, NEVER) for tag in tags)


def _size_of(entry: Entry) -> int:
    return entry.size
