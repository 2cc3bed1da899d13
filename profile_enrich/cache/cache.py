"""`ProfileCache`: entries with fresh and stale expiry over a cachetools cache.

Known and unknown keys have separate storage, so a scan of invented ids cannot evict profiles. Every load of a key takes
a token first. Its result is stored only if the key was not invalidated and no newer load finished meanwhile.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import Cache

from .._utils.string_pool import shared_strings
from .._utils.validation import check_int
from ..errors import ProfileEnrichError
from ..profile import Profile, Record
from .cache_policy import CachePolicy
from .storage import NEVER, CacheStorage, Entry, SecondChanceCache

__all__ = ["Entry", "LoadToken", "ProfileCache"]

SWEPT_PER_WRITE = 4
"""The number of slots swept on each write: more than the one slot that a write adds."""

MAX_OVERLAYS = 10_000
"""The largest number of overlays; the oldest is evicted first."""

MAX_TAGS = 10_000
"""The largest number of tracked tag invalidations. Beyond that, the oldest applies to all older tagged entries."""

K = TypeVar("K", bound=Hashable)


class LoadToken(Generic[K]):
    """The token of one load, taken from the cache before the source is called."""

    __slots__ = ("ended", "key", "stamp", "started_at")

    def __init__(self, key: K, stamp: int, started_at: float) -> None:
        self.key = key
        self.stamp = stamp
        self.started_at = started_at
        self.ended = False


class ProfileCache(Generic[K]):
    """A bounded, thread-safe cache of profiles.

    Args:
        max_entries: the largest number of known profiles; those not used recently are evicted first. Default 50,000.
        max_bytes: their approximate memory, in bytes. Default 256 MiB.
        policy: further limits, and the storage. The `getsizeof` of a custom storage can read `entry.size`.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: a limit is not positive.
    """

    def __init__(
        self,
        *,
        max_entries: int = 50_000,
        max_bytes: int = 256 * 2**20,
        policy: CachePolicy | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        policy = policy or CachePolicy()
        store: Cache[K, Entry] | None = policy.storage
        if store is None:
            store = SecondChanceCache(check_int("max_bytes", max_bytes), _size_of)
        self.max_entry_bytes = policy.max_entry_bytes
        self._known: CacheStorage[K] = CacheStorage(store, check_int("max_entries", max_entries))
        self._unknown: CacheStorage[K] = CacheStorage(
            SecondChanceCache(policy.max_negative_entries), policy.max_negative_entries
        )
        self._overlays: CacheStorage[K] = CacheStorage(SecondChanceCache(MAX_OVERLAYS), MAX_OVERLAYS)
        self._timer = timer
        self._lock = threading.Lock()
        self._overlaid = False
        self._lock_free_index: dict[K, Entry] = store.lock_free_index if isinstance(store, SecondChanceCache) else {}
        self.connected_until = math.inf
        """The end of the backplane's lease, until which entries may be served without a heartbeat."""
        self.isolated_ttl = 0.0
        """Seconds after its load in which an entry may be served after the lease."""
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
        """Return the entry of a key, known or unknown; `None` if there is none, or it is expired at `now`."""
        with self._lock:
            # `in` before the read, because misses are common here, and an exception costs ten times as much.
            if key in self._known.store:
                storage = self._known
            elif key in self._unknown.store:
                storage = self._unknown
            else:
                return None
            entry = storage.store[key]
            gone = entry.evict_at <= now or self._is_isolated(entry.loaded_at, now)
            if gone or (entry.tags and not self._tags_hold(entry.tags, entry.stamp)):
                storage.remove(key)
                return None
            return entry

    def fresh(self, key: K, now: float) -> Profile | None:
        """Return the fresh profile of a known key and count a hit; `None` if `get` must be called."""
        # Without the lock, which costs more than the read. Entries with tags or an overlay are not in the index.
        entry = self._lock_free_index.get(key)
        if entry is None or now >= entry.refresh_at or now >= self.connected_until:
            return None
        entry.used = True
        next(self._hits)
        return entry.view

    # --- loading ----------------------------------------------------------------------------------------------------

    def begin(self, key: K) -> LoadToken[K]:
        """Take the token of a load. It must be returned with `end`."""
        with self._lock:
            self._stamp += 1
            self._loads[key] = self._loads.get(key, 0) + 1
            return LoadToken(key, self._stamp, self._timer())

    def is_current(self, load: LoadToken[K]) -> bool:
        """Return whether the key was not invalidated since the start of the load."""
        with self._lock:
            return self._is_current(load)

    def may_be_joined(self, load: LoadToken[K]) -> bool:
        """Return whether the result of a load may be served to a lookup that starts now."""
        with self._lock:
            return self._is_current(load) and not self._is_isolated(load.started_at, self._timer())

    def commit(self, load: LoadToken[K], entry: Entry) -> bool:
        """Store the result of a load, unless the key was invalidated or a newer load finished meanwhile.

        Returns:
            True if the load was still current. (An entry over `max_entry_bytes` is not stored, and the older one is
            removed.)
        """
        with self._lock:
            if not self._is_current(load) or not self._tags_hold(entry.tags, load.stamp) or not self._answer(load):
                return False
            entry.stamp = load.stamp
            entry.loaded_at = load.started_at
            here, other = (self._known, self._unknown) if entry.record is not None else (self._unknown, self._known)
            other.remove(load.key)
            if entry.size > self.max_entry_bytes:
                here.remove(load.key)
            elif here.put(load.key, entry) and entry.view is not None and not self._is_special(load.key, entry):
                here.publish(load.key, entry)
            self._sweep(SWEPT_PER_WRITE)
            return True

    def discard(self, load: LoadToken[K]) -> None:
        """Remove the entry of a key whose new result must not be stored."""
        with self._lock:
            if self._is_current(load) and self._answer(load):
                self._known.remove(load.key)
                self._unknown.remove(load.key)

    def defer(self, load: LoadToken[K], *, until: float, error: ProfileEnrichError) -> None:
        """Keep the entry of a key whose load failed, and allow no refresh before `until`."""
        with self._lock:
            entry = self._known.peek(load.key)
            if entry is not None and entry.stamp <= load.stamp and self._is_current(load):
                entry.retry_at = until
                entry.error = error

    def end(self, load: LoadToken[K]) -> None:
        """End the load: a later commit has no effect. A second call does nothing."""
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
        """Overlay attributes on the record of a key until a time. A second overlay is merged into the first."""
        with self._lock:
            older = self._overlays.peek(key)
            if older is not None and older.record is not None and older.evict_at > self._timer():
                merged = Record({**older.record.attributes, **record.attributes}, source=record.source)
                merged.namespace = record.namespace
                record = merged
            self._overlays.put(key, _overlay_entry(record, until))
            self._overlaid = True
            self._known.unpublish(key)
            self._sweep(SWEPT_PER_WRITE)

    def overlay_of(self, key: K, now: float) -> Record | None:
        """Return the overlay of a key at `now`."""
        overlay = self.overlay_until(key, now)
        return None if overlay is None else overlay[0]

    def overlay_until(self, key: K, now: float) -> tuple[Record, float] | None:
        """Return the overlay of a key at `now`, and its end."""
        if not self._overlaid:
            return None
        with self._lock:
            entry = self._overlays.peek(key)
            if entry is None or entry.record is None or entry.evict_at <= now:
                return None
            return entry.record, entry.evict_at

    def rekey(self, old: K, new: K) -> None:
        """Move the overlay of the old key to the new one, and remove the entries of both."""
        with self._lock:
            entry = self._overlays.peek(old)
            self._invalidate(old)
            self._invalidate(new)
            if entry is not None:
                self._overlays.put(
                    new,
                    Entry(
                        entry.record,
                        fresh_until=entry.fresh_until,
                        stale_until=entry.stale_until,
                        evict_at=entry.evict_at,
                    ),
                )
                self._overlaid = True

    # --- invalidating -----------------------------------------------------------------------------------------------

    def invalidate(self, key: K) -> bool:
        """Remove a key and its overlay, and discard running loads. Return whether there was an entry."""
        with self._lock:
            return self._invalidate(key)

    def invalidate_tag(self, tag: str) -> None:
        """Remove all entries with this tag, and discard results of running loads, in constant time."""
        with self._lock:
            self._stamp += 1
            self._tags.pop(tag, None)
            self._tags[tag] = self._stamp
            if len(self._tags) > MAX_TAGS:
                oldest = next(iter(self._tags))
                self._tags_before = self._tags.pop(oldest)

    def clear(self) -> None:
        """Remove everything, and discard results of running loads."""
        with self._lock:
            self._stamp += 1
            self._cleared = self._stamp
            self._known.clear()
            self._unknown.clear()
            self._overlays.clear()
            self._overlaid = False
            self._tags.clear()
            self._tags_before = NEVER
        shared_strings.clear()

    def sweep(self, limit: int = 500) -> int:
        """Check up to `limit` entries of each kind, and return how many expired ones were removed."""
        with self._lock:
            return self._sweep(limit)

    # --- what is in it ----------------------------------------------------------------------------------------------

    @property
    def hits(self) -> int:
        """The number of hits returned by `fresh`."""
        # `next` is the only lock-free operation of the counter, so reading it counts, too.
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
        """The approximate memory of the known profiles, in bytes (as counted by a custom storage)."""
        return int(getattr(self._known.store, "currsize", 0))

    @property
    def sweep_span(self) -> int:
        """The number of slots that a sweep must check to cover all entries."""
        # Twice, because removals move slots to the front, and some are checked again.
        return 2 * max(self._known.slots, self._unknown.slots, self._overlays.slots)

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold it."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ProfileCache {self.entries} entries, {self.negative_entries} negative, {self.bytes} bytes>"

    # --- with the lock held -----------------------------------------------------------------------------------------

    def _sweep(self, limit: int) -> int:
        now = self._timer()
        dropped = self._known.sweep(now, limit)
        if self._unknown.slots:
            dropped += self._unknown.sweep(now, limit)
        if self._overlays.slots:
            dropped += self._overlays.sweep(now, limit)
            self._overlaid = self._overlays.slots > 0
        return dropped

    def _is_special(self, key: K, entry: Entry) -> bool:
        """Return whether a read has to check more than the expiry."""
        return bool(entry.tags) or (self._overlaid and key in self._overlays.store)

    def _invalidate(self, key: K) -> bool:
        self._stamp += 1
        if key in self._loads:
            self._invalidated[key] = self._stamp
        removed = [storage.remove(key) for storage in (self._known, self._unknown, self._overlays)]
        return any(removed)

    def _is_isolated(self, loaded_at: float, now: float) -> bool:
        """Return whether an invalidation by another process, after the load, may have been missed."""
        return now >= self.connected_until and now >= loaded_at + self.isolated_ttl

    def _is_current(self, load: LoadToken[K]) -> bool:
        return not load.ended and load.stamp > self._cleared and load.stamp > self._invalidated.get(load.key, NEVER)

    def _answer(self, load: LoadToken[K]) -> bool:
        """Record that a load has finished, unless a newer one did, even if its result is not stored."""
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


def _overlay_entry(record: Record | None, until: float) -> Entry:
    return Entry(record, fresh_until=until, stale_until=until, evict_at=until)
