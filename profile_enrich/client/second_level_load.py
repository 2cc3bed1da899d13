"""Load through the shared second cache level: read it before the source, and write the result to it."""

from __future__ import annotations

import time

from ..cache.cache import Entry
from ..cache.shared.entry_codec import SharedAnswer
from ..cache.shared.second_level import BUSY, LoadLease, SecondLevel
from ..errors import ProfileEnrichError, SourceError
from ..profile import ProfileKey
from .batching import Batch
from .breaker import Permit
from .loader import CacheKey, Loader, LoadResult, ProfileLoad

__all__ = ["SharedLoad", "SharedLoads"]

RECHECK = 0.1
"""Seconds until the second level is read again for a stale entry that another process refreshes."""


class SharedLoad(ProfileLoad):
    """The load of one profile, coordinated with other processes.

    Args:
        loader: the loader, for the call if necessary.
        profile_key: the key to load.
        base: the cached entry of the first level.
        level: the second level.
        permit: the permit of the circuit breaker, if the caller waited for it.
        batch: the batch of the call, likewise.
    """

    __slots__ = ("_answer", "_lease", "_level")

    def __init__(
        self,
        loader: Loader,
        profile_key: ProfileKey,
        base: Entry | None,
        level: SecondLevel,
        permit: Permit | None,
        batch: Batch | None,
    ) -> None:
        super().__init__(loader, profile_key, base, permit, batch)
        self._level = level
        self._lease: LoadLease | None = None
        self._answer: SharedAnswer | None = None

    async def run(self) -> LoadResult:
        """Read the second level; on a miss call the source, unless another process does."""
        if await self._find():
            answer = self._answer
            assert answer is not None  # noqa: S101  # found just now
            return self._keep(answer)
        loader, answer = self.loader, self._answer
        if self.base is None and answer is not None and answer.record is not None:
            self.base = self._entry(answer)
        if self.permit is None:
            self.permit, self.batch = loader.calls.admit()
        try:
            result = await loader.calls.ask(self)
        except SourceError:
            if answer is not None:  # it may be served while the source fails, up to `max_stale`
                self._keep(answer)
            raise
        return loader.store(self, result)

    async def _find(self) -> bool:
        """Wait until there is an entry, or until this process holds the lease for the call."""
        level, key, end = self._level, self.key, time.monotonic() + self.loader.deadline
        if level.connecting:
            usable = await level.connected(key)
            self.renew_token()  # connecting clears the first level
            if not usable:
                return False
        while True:
            self._answer = answer = await level.read(key)
            if answer is not None and self._will_do(answer):
                return True
            lease = await level.take(key)
            if isinstance(lease, LoadLease) and lease.number > 1:  # another process may have answered meanwhile
                self._answer = answer = await level.read(key, again=True)
                if answer is not None and self._will_do(answer):
                    self.loader.in_background(level.give_back(lease))
                    return True
            if lease is None or isinstance(lease, LoadLease):
                self._lease = lease
                return False
            assert lease == BUSY  # noqa: S101  # the only other outcome; narrows the type
            if answer is not None and (self.base is not None or time.time() < answer.stale_until):
                return True  # the other process refreshes it
            if time.monotonic() >= end:
                return False
            await level.wait(key)

    def _will_do(self, answer: SharedAnswer) -> bool:
        """Return whether an entry is fresh enough: newer than the one that caused this load."""
        now = time.time()
        if self.base is None:
            return now < answer.stale_until
        newest = self._entry(answer).fresh_until
        return now < answer.fresh_until and newest > self.base.fresh_until + 0.001

    def _entry(self, answer: SharedAnswer) -> Entry:
        """Convert an entry to the first level, which has another clock."""
        shift = self.loader.timer() - time.time()
        return Entry(
            answer.record,
            fresh_until=answer.fresh_until + shift,
            stale_until=answer.stale_until + shift,
            evict_at=answer.evict_at + shift,
            reason=answer.reason,
            tags=answer.tags,
            validators=answer.validators,
        )

    def _keep(self, answer: SharedAnswer) -> LoadResult:
        self.outcome = "shared"
        entry = self._entry(answer)
        now = self.loader.timer()
        if self.base is not None and entry.fresh_until <= self.base.fresh_until + 0.001:  # another process refreshes it
            entry.retry_at, entry.refresh_at = now + RECHECK, min(now + RECHECK, entry.fresh_until)
        if answer.record is None:
            self.loader.cache.commit(self.token, entry)
        else:
            self.loader.keep(self, entry)
        return LoadResult(answer.record, answer.reason)

    def stored(self, entry: Entry) -> None:
        """Set the stored entry, and schedule its eager refresh if configured."""
        super().stored(entry)
        eager, now = self._level.eager_refresh, self.loader.timer()
        if eager is not None and now < entry.fresh_until:
            entry.refresh_at = now + eager * (entry.fresh_until - now)

    def on_complete(self, error: ProfileEnrichError | None) -> None:
        """Report the end, and write the entry to the second level in the background."""
        super().on_complete(error)
        lease = self._lease
        if lease is not None:
            self._lease = None
            stored = None if error is not None or self.entry is None else self._shared(self.entry, lease)
            work = self._level.give_back(lease) if error is not None else self._level.store(lease, stored)
            self.loader.in_background(work)
        elif error is None and self.base is None and self._answer and time.time() >= self._answer.fresh_until:
            self.loader.refresh_soon(self.profile_key)

    def _shared(self, entry: Entry, lease: LoadLease) -> SharedAnswer:
        shift = time.time() - self.loader.timer()
        return SharedAnswer(
            record=entry.record,
            reason=entry.reason,
            fresh_until=entry.fresh_until + shift,
            stale_until=entry.stale_until + shift,
            evict_at=entry.evict_at + shift,
            tags=entry.tags,
            validators=entry.validators,
            epoch=lease.epoch,
            sequence=lease.sequence,
        )


class SharedLoads:
    """Factory of the loads of a client with a second level; see `LoadFactory`.

    Args:
        level: the second level.
    """

    def __init__(self, level: SecondLevel) -> None:
        self._level = level

    def usable(self, key: CacheKey) -> bool:
        """See `LoadFactory.usable`."""
        self._level.open()
        return self._level.usable(key)

    def new(
        self, loader: Loader, key: ProfileKey, base: Entry | None, permit: Permit | None, batch: Batch | None
    ) -> ProfileLoad:
        """See `LoadFactory.new`."""
        return SharedLoad(loader, key, base, self._level, permit, batch)
