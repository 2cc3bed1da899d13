"""The in-process cache: entries with a soft and a hard expiry over a cachetools cache.

Known and unknown keys have caches of their own, so that a scan of made-up ids cannot push real profiles out. Every load
of a key takes a token first; what it brings is stored only if nothing invalidated the key, and no newer load answered
it, in the meantime.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, cast

from cachetools import Cache, LRUCache, TLRUCache, TTLCache

from ._check import whole
from ._freshness import Validators
from .errors import ConfigurationError, ProfileEnrichError
from .profile import Profile, Reason, Record

__all__ = ["Entry", "Load", "ProfileCache"]

SWEPT_PER_WRITE = 4
"""Seats looked at on each write: more than one new seat, so that the list of seats cannot outgrow the cache."""

MAX_TAGS = 10_000
"""Invalidated tags remembered one by one; beyond, the oldest one invalidates all tagged entries older than itself."""

_NEVER = -1

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
                 "validators", "view")  # fmt: skip

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
        self.stamp = _NEVER
        """The stamp of the load that brought it."""
        self.size = 200 if record is None else record.size
        """Roughly the bytes of memory that it takes."""
        self.view: Profile | None = None
        """The answer to all who ask while it is fresh."""
        self.seat: object = None
        """Its place in the list that sweeping walks along."""

    def __repr__(self) -> str:
        return f"<Entry {'negative' if self.record is None else 'known'}, {self.size} bytes>"


_plain_get: Callable[[Any, Any], Entry] = cast(Any, Cache).__getitem__
"""Reads from any cachetools cache without counting it as a use, which the subclasses' own `__getitem__` does."""


class Load(Generic[K]):
    """The token of one load, drawn from the cache before the source is asked."""

    __slots__ = ("ended", "key", "stamp")

    def __init__(self, key: K, stamp: int) -> None:
        self.key = key
        self.stamp = stamp
        self.ended = False


class _Shelf(Generic[K]):
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

    def remove(self, key: K) -> bool:
        return self.store.pop(key, None) is not None

    def clear(self) -> None:
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
        return len(self._seats)


class ProfileCache(Generic[K]):
    """A bounded cache of answers, safe under threads and across event loops.

    Args:
        max_entries: known profiles kept; the least recently used goes first. Default 50,000.
        max_bytes: roughly the memory they may take together, in bytes. Default 256 MiB.
        max_entry_bytes: a larger record is served but not kept. Default 1 MiB.
        max_negative_entries: unknown keys kept, in a cache of their own. Default 10,000.
        store: a cachetools cache to use instead of the built-in `LRUCache`, e.g. an `LFUCache`. Its own `maxsize`
            and `getsizeof` then take the place of `max_bytes`; `entry.size` is there for a `getsizeof`.
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
            whole(name, value)
        if store is None:
            store = LRUCache(maxsize=max_bytes, getsizeof=_size_of)
        elif isinstance(store, TTLCache | TLRUCache):
            raise ConfigurationError(
                "cache: TTLCache and TLRUCache drop what could be served stale; use LRUCache, LFUCache or FIFOCache"
            )
        elif not isinstance(store, Cache):
            raise ConfigurationError("cache must be a cachetools cache such as LRUCache(maxsize=50_000)")
        self.max_entry_bytes = max_entry_bytes
        self._known: _Shelf[K] = _Shelf(store, max_entries)
        self._unknown: _Shelf[K] = _Shelf(LRUCache(maxsize=max_negative_entries), max_negative_entries)
        self._timer = timer
        self._lock = threading.Lock()
        self.hits = 0
        """How often `fresh` had the answer."""
        self._stamp = 0
        self._cleared = _NEVER
        self._loads: dict[K, int] = {}
        self._invalidated: dict[K, int] = {}
        self._tags: dict[str, int] = {}
        self._tags_before = _NEVER

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, key: K, now: float) -> Entry | None:
        """The entry of a key, known or unknown, not past its `drop` time at `now`; `None` when there is none."""
        with self._lock:
            shelf = self._known
            try:
                entry = shelf.store[key]
            except KeyError:
                shelf = self._unknown
                try:
                    entry = shelf.store[key]
                except KeyError:
                    return None
            if entry.drop <= now or (entry.tags and not self._tags_hold(entry.tags, entry.stamp)):
                shelf.remove(key)
                return None
            return entry

    def fresh(self, key: K, now: float) -> Profile | None:
        """The answer of a known key that is fresh at `now`, counted in `hits`; `None` when in doubt."""
        with self._lock:
            try:
                entry = self._known.store[key]
            except KeyError:
                return None
            if now < entry.soft and not entry.tags:
                self.hits += 1
                return entry.view
            return None

    # --- loading ----------------------------------------------------------------------------------------------------

    def begin(self, key: K) -> Load[K]:
        """Draws the token of a load. It must be given back with `end`."""
        with self._lock:
            self._stamp += 1
            self._loads[key] = self._loads.get(key, 0) + 1
            return Load(key, self._stamp)

    def is_current(self, load: Load[K]) -> bool:
        """Whether nothing invalidated the key since the load began. A load that is not current must not be joined."""
        with self._lock:
            return self._is_current(load)

    def commit(self, load: Load[K], entry: Entry) -> bool:
        """Stores what a load brought, unless the key was invalidated or answered by a newer load in the meantime.

        Returns:
            Whether the load was still current. (An entry over `max_entry_bytes` displaces an older one, unkept.)
        """
        with self._lock:
            if not self._is_current(load) or not self._tags_hold(entry.tags, load.stamp):
                return False
            older = self._known.glance(load.key) or self._unknown.glance(load.key)
            if older is not None and older.stamp > load.stamp:
                return False
            entry.stamp = load.stamp
            here, other = (self._known, self._unknown) if entry.record is not None else (self._unknown, self._known)
            other.remove(load.key)
            if entry.size > self.max_entry_bytes:
                here.remove(load.key)
            else:
                here.put(load.key, entry)
            self._sweep(SWEPT_PER_WRITE)
            return True

    def discard(self, load: Load[K]) -> None:
        """A load brought what must not be kept: drops what an older load left."""
        with self._lock:
            if self._is_current(load):
                for shelf in (self._known, self._unknown):
                    older = shelf.glance(load.key)
                    if older is not None and older.stamp <= load.stamp:
                        shelf.remove(load.key)

    def defer(self, load: Load[K], *, until: float, error: ProfileEnrichError) -> None:
        """After a failed load: keeps what is there, and no refresh before `until`."""
        with self._lock:
            entry = self._known.glance(load.key)
            if entry is not None and entry.stamp <= load.stamp and self._is_current(load):
                entry.retry_at = until
                entry.error = error

    def end(self, load: Load[K]) -> None:
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

    # --- invalidating -----------------------------------------------------------------------------------------------

    def invalidate(self, key: K) -> bool:
        """Drops a key. Loads of it that are under way are not stored. Returns whether there was an entry."""
        with self._lock:
            self._stamp += 1
            if key in self._loads:
                self._invalidated[key] = self._stamp
            known = self._known.remove(key)
            return self._unknown.remove(key) or known

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
            self._tags.clear()
            self._tags_before = _NEVER

    def sweep(self, limit: int = 500) -> int:
        """Looks at up to `limit` entries of each kind, drops the expired ones, and returns how many those were."""
        with self._lock:
            return self._sweep(limit)

    # --- what is in it ----------------------------------------------------------------------------------------------

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
        return 2 * max(self._known.seats, self._unknown.seats)

    def renew_lock(self) -> None:
        """After a fork: the lock may have been held by a thread that does not exist in this process."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ProfileCache {self.entries} entries, {self.negative_entries} negative, {self.bytes} bytes>"

    # --- with the lock held -----------------------------------------------------------------------------------------

    def _sweep(self, limit: int) -> int:
        now = self._timer()
        return self._known.sweep(now, limit) + self._unknown.sweep(now, limit)

    def _is_current(self, load: Load[K]) -> bool:
        return not load.ended and load.stamp > self._cleared and load.stamp > self._invalidated.get(load.key, _NEVER)

    def _tags_hold(self, tags: frozenset[str], stamp: int) -> bool:
        if not tags:
            return True
        return stamp > self._tags_before and all(stamp > self._tags.get(tag, _NEVER) for tag in tags)


def _size_of(entry: Entry) -> int:
    return entry.size
