"""Second level of one client's cache: read before a call to the source, written after it.

A failed or slow command counts as a miss, and several consecutive ones disable the second level temporarily. Entries
that cannot be opened, decoded or trusted are ignored.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...profile import Record
from ..cache import ProfileCache
from .backplane import Backplane
from .backplane_events import Event, decode_message
from .connection import Connections, NoConnection
from .entry_codec import SharedAnswer, decode_answer, encode_answer
from .event_delivery import FENCE_MS
from .outbox import MOST_KEYS
from .scripts import LEASE, RENEW, STORE
from .sealing import Sealing

__all__ = ["BUSY", "LoadLease", "SecondLevel", "SharedStats"]

CacheKey = tuple[str, str, str]

BUSY = "busy"
"""Another process is loading the key."""

FAILURES = 3
"""The number of consecutive failed commands after which the second level is disabled temporarily."""

PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds for which it is disabled, at first and at most."""

POLL = 0.01
"""Seconds between checks of a key that another process loads; doubled each time, up to eight times."""


@dataclass(frozen=True, slots=True)
class SharedStats:
    """Counters of the second level, since the client was made.

    Args:
        hits: fresh entries read.
        stale: stale entries read.
        misses: keys without an entry.
        refused: entries that could not be opened, decoded or trusted.
        errors: commands that failed or took too long.
        skipped: lookups without it, because it was unavailable.
        stored: entries written.
        waits: loads that waited for another process's load.
        missed: how often the first level was cleared because of a missed message.
        waiting: invalidations without acknowledgement from all processes.
        available: whether it is available now.
    """

    hits: int = 0
    stale: int = 0
    misses: int = 0
    refused: int = 0
    errors: int = 0
    skipped: int = 0
    stored: int = 0
    waits: int = 0
    missed: int = 0
    waiting: int = 0
    available: bool = False


class LoadLease:
    """The lease for loading a key, held by one process at a time."""

    __slots__ = ("epoch", "name", "number", "sequence", "timer", "token")

    def __init__(self, name: str, token: str, number: int, epoch: str, sequence: int) -> None:
        self.name = name
        self.token = token
        self.number = number
        self.epoch = epoch
        self.sequence = sequence
        self.timer: asyncio.TimerHandle | None = None


class SecondLevel:
    """The second level for one client's loader, and the backplane's access to the client's first level.

    Args:
        namespace: the namespace of the client's source.
        cache: the first level.
        connections: the connections to the server.
        sealing: the encryption of stored data.
        backplane: the backplane of the process.
        lease: seconds after which another process takes over the load of a dead process.
        max_entry_bytes: the largest entry to store, in bytes.
        eager_refresh: the share of its time to live after which an entry is refreshed early; `None` for never.
        timer: the clock of the first level.
    """

    def __init__(
        self,
        namespace: str,
        *,
        cache: ProfileCache[CacheKey],
        connections: Connections,
        sealing: Sealing,
        backplane: Backplane,
        lease: float,
        max_entry_bytes: int,
        eager_refresh: float | None,
        timer: Callable[[], float],
    ) -> None:
        self.namespace = namespace
        self._cache = cache
        self._connections = connections
        self._sealing = sealing
        self._backplane = backplane
        self._lease_ms = int(lease * 1000)
        self._limit = max_entry_bytes
        self._timer = timer
        self.eager_refresh = eager_refresh
        self._joined = False
        cache.isolated_ttl = backplane.lease
        cache.connected_until = -math.inf  # until the backplane is connected
        self._failures = 0
        self._blocked_until = 0.0
        self._pause = PAUSE
        self._counts = dict.fromkeys(("hits", "stale", "misses", "refused", "errors", "skipped", "stored", "waits"), 0)

    # --- for the loader ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the backplane, unless it runs; called with each load."""
        if not self._joined:
            self._joined = True
            self._backplane.join(self)
        self._backplane.start()

    async def aclose(self) -> None:
        """Leave the backplane, and close the connections that lookups on this loop opened."""
        if self._joined:
            self._joined = False
            await asyncio.to_thread(self._backplane.leave, self)
            self._disconnect()
        await self._connections.aclose()

    def usable(self, key: CacheKey) -> bool:
        """Return whether the second level may be read for a key now."""
        usable = (
            (self._backplane.available or self._backplane.connecting)
            and time.monotonic() >= self._blocked_until
            and not self._backplane.outbox.holds(key)
        )
        if not usable:
            self._counts["skipped"] += 1
        return usable

    @property
    def connecting(self) -> bool:
        """Whether the first connection of the process is being made."""
        return self._backplane.connecting

    async def connected(self, key: CacheKey) -> bool:
        """Wait for the first connection of the process, as long as for any, and return as `usable` does."""
        await self._backplane.connected(self._connections.connect_timeout)
        return self.usable(key)

    async def read(self, key: CacheKey, *, again: bool = False) -> SharedAnswer | None:
        """Return the answer that is stored for a key, fresh or stale; `None` when there is none to be trusted.

        Args:
            key: of the first level.
            again: whether this load has looked before, so that it is not one more miss.
        """
        name = self._sealing.names(key)[0]
        entry, overlay = self._backplane.name_of(name, "entry"), self._backplane.name_of(name, "overlay")
        found = await self._run("MGET", entry, overlay)
        if found is None:
            return None
        if found[1] is not None:
            self._lay_over(key, found[1], overlay)
        if found[0] is None:
            self._counts["misses"] += not again
            return None
        plain = self._sealing.open(found[0], entry, self._limit)
        answer = None if plain is None else decode_answer(plain)
        if answer is None or not self._holds(answer, key):
            self._counts["refused"] += 1
            return None
        now = time.time()
        if now >= answer.evict_at:
            self._counts["misses"] += not again
            return None
        self._counts["hits" if now < answer.fresh_until else "stale"] += 1
        return answer

    async def take(self, key: CacheKey) -> LoadLease | str | None:
        """The lease to load a key; `BUSY` while another process has it; `None` when the second level is of no help."""
        epoch, sequence = self._backplane.epoch, self._backplane.sequence
        if epoch is None:
            return None
        name = self._sealing.names(key)[0]
        token = secrets.token_hex(8)
        lease, number = self._backplane.name_of(name, "lease"), self._backplane.name_of(name, "number")
        taken = await self._run("EVAL", LEASE, 2, lease, number, token, self._lease_ms, 2 * FENCE_MS)
        if taken is None:
            return None
        if not taken:
            return BUSY
        held = LoadLease(name, token, int(taken), epoch, sequence)
        self._keep(held)
        return held

    async def wait(self, key: CacheKey) -> None:
        """Wait until another process's load of a key ends, or its lease does."""
        self._counts["waits"] += 1
        name = self._backplane.name_of(self._sealing.names(key)[0], "lease")
        pause = POLL
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 8 * POLL)
            if not await self._run("EXISTS", name):
                return

    async def store(self, lease: LoadLease, answer: SharedAnswer | None) -> None:
        """Store the result of a load and release the lease. `None` removes the entry."""
        self._drop_timer(lease)
        entry, fence, held, writer = (
            self._backplane.name_of(lease.name, part) for part in ("entry", "fence", "lease", "writer")
        )
        plain = None if answer is None else encode_answer(answer)
        if plain is not None and len(plain) > self._limit:
            plain = None
        value = b"" if plain is None else self._sealing.seal(plain, entry)
        left = 1 if answer is None else max(1, int((answer.evict_at - time.time()) * 1000))
        arguments = (value, left, lease.sequence, lease.token, lease.number, FENCE_MS)
        stored = await self._run("EVAL", STORE, 4, entry, fence, held, writer, *arguments)
        self._counts["stored"] += bool(stored and value)

    async def give_back(self, lease: LoadLease) -> None:
        """Release a lease after a failed load."""
        self._drop_timer(lease)
        name = self._backplane.name_of(lease.name, "lease")
        await self._run("EVAL", RENEW, 1, name, lease.token, 1)

    def stats(self) -> SharedStats:
        """The counters so far."""
        backplane = self._backplane
        return SharedStats(
            **self._counts, missed=backplane.missed, waiting=backplane.outbox.waiting, available=backplane.available
        )

    # --- for the client: what it has changed in its own first level ---------------------------------------------------

    def invalidated(self, keys: Sequence[tuple[str, str]], *tags: str) -> None:
        """Send the removal of keys and tags to all processes."""
        for start in range(0, len(keys), MOST_KEYS):
            self._announce(Event(kind="keys", namespace=self.namespace, keys=tuple(keys[start : start + MOST_KEYS])))
        for tag in tags:
            self._announce(Event(kind="tag", namespace=self.namespace, tag=tag))

    def cleared(self) -> None:
        """Send the removal of everything to all processes."""
        self._announce(Event(kind="clear", namespace=self.namespace))

    def laid_over(self, key: tuple[str, str]) -> None:
        """Send an overlay to all processes."""
        now = self._timer()
        overlay = self._cache.overlay_until((self.namespace, *key), now)
        if overlay is not None:
            record, until = overlay
            left = time.time() + until - now
            self._announce(
                Event(kind="overlay", namespace=self.namespace, keys=(key,), attributes=record.attributes, until=left)
            )

    def rekeyed(self, old: tuple[str, str], new: tuple[str, str]) -> None:
        """Send the move of an overlay to all processes, and store it for processes that start later."""
        self._announce(Event(kind="rekey", namespace=self.namespace, keys=(old, new)))
        self.laid_over(new)

    def _announce(self, event: Event) -> None:
        if not self._joined:
            self._joined = True
            self._backplane.join(self)
        self._backplane.announce(event)

    # --- for the backplane ------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """See `Listener.apply`."""
        keys = [(self.namespace, type_, value) for type_, value in event.keys]
        if event.kind == "clear":
            self._cache.clear()
        elif event.kind == "tag":
            self._cache.invalidate_tag(event.tag)
        elif event.kind == "overlay" and event.attributes is not None:
            self._overlay(keys[0], event)
        elif event.kind == "rekey":
            self._cache.rekey(keys[0], keys[1])
        else:
            for key in keys:
                self._cache.invalidate(key)

    def drop(self) -> None:
        """See `Listener.drop`."""
        self._cache.clear()

    def connected_until(self, until: float) -> None:
        """See `Listener.connected_until`."""
        # The cache's clock is read first: a process that is stopped in between gets a shorter time, not a longer one.
        self._cache.connected_until = self._timer() + until - time.monotonic()

    def after_fork(self) -> None:
        """See `Listener.after_fork`."""
        self._cache.renew_lock()
        self._disconnect()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        """Forget what changes by others no longer reach."""
        self._cache.connected_until = -math.inf
        self._cache.clear()

    def _holds(self, answer: SharedAnswer, key: CacheKey) -> bool:
        """Return whether an entry was not invalidated since its load, as far as this process knows."""
        backplane = self._backplane
        if answer.epoch != backplane.epoch or answer.sequence < max(backplane.cleared, backplane.keys.get(key, -1)):
            return False
        names = (name for tag in answer.tags for name in self._sealing.names((key[0], tag)))
        return all(answer.sequence >= backplane.tags.get(name, -1) for name in names)

    def _overlay(self, key: CacheKey, event: Event) -> None:
        left = event.until - time.time()
        if left > 0 and event.attributes is not None:
            record = Record(event.attributes)
            record.namespace = key[0]
            self._cache.overlay(key, record, self._timer() + left)

    def _lay_over(self, key: CacheKey, sealed: bytes, name: str) -> None:
        plain = self._sealing.open(sealed, name, self._limit)
        if plain is not None:
            for event in decode_message(plain)[3]:
                self._overlay(key, event)

    def _keep(self, lease: LoadLease) -> None:
        """Renew the lease while the load runs."""
        loop = asyncio.get_running_loop()
        name = self._backplane.name_of(lease.name, "lease")

        def renew() -> None:
            task = loop.create_task(self._run("EVAL", RENEW, 1, name, lease.token, self._lease_ms))
            lease.timer = loop.call_later(self._lease_ms / 3000, renew)
            task.add_done_callback(lambda _: None)

        lease.timer = loop.call_later(self._lease_ms / 3000, renew)

    def _drop_timer(self, lease: LoadLease) -> None:
        if lease.timer is not None:
            lease.timer.cancel()

    async def _run(self, *words: str | bytes | int) -> Any:
        """Run a command and return its result; `None` if it failed."""
        try:
            answer = await self._connections.run(*words)
        except NoConnection:
            self._counts["skipped"] += 1
            return None
        except Exception:  # noqa: BLE001  # `redis` also fails with errors of its internals while it connects
            self._counts["errors"] += 1
            self._failures += 1
            if self._failures >= FAILURES:
                self._failures = 0
                self._blocked_until = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return None
        self._failures, self._pause = 0, PAUSE
        return answer
