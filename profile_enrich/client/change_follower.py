"""Change follower: removes changed profiles from the cache, so that they can be cached for long.

While the feed is unavailable, entries are kept for their `ttl`. After a reconnect, the feed lists the changes since, or
sends a reset, which clears the whole cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
from collections.abc import Sequence
from typing import Literal
from weakref import ref

from .._utils.fork import reset_after_fork
from ..cache.cache import ProfileCache
from ..cache.shared.second_level import SecondLevel
from ..cache.sweeper import Sweeper
from ..errors import ConfigurationError, ProfileEnrichError, SourceError
from ..profile import ProfileKey
from ..sources.base import ChangeBatch, ChangeSource, ProfileSource
from ..sources.record_from_json import id_tag
from .hooks import FeedStats
from .loader import CacheKey

__all__ = ["Follower", "FollowingSweeper", "check_follows"]

logger = logging.getLogger("profile_enrich")

FIRST_PAUSE = 0.25
"""The longest wait before the second attempt, in seconds; it doubles with each attempt."""

LONGEST_PAUSE = 30.0
NOT_OFFERED_PAUSE = 300.0
"""Seconds until a source without a feed is checked again."""

SLICE = 250
"""Keys removed before other tasks run."""

FeedState = Literal["idle", "connecting", "live", "lost", "closed"]


def check_follows(source: ProfileSource) -> ChangeSource:
    """Return the source, if it has a change feed.

    Raises:
        ConfigurationError: it has none.
    """
    if not isinstance(source, ChangeSource):
        raise ConfigurationError(
            "follow_changes needs a source with a change feed: CensusSource or AmperitySource with the base_url of an"
            f" embedded Profile API, not {type(source).__name__}"
        )
    return source


class Follower:
    """Follow a source's change feed, on one event loop at a time, from the first load on.

    Args:
        source: the source with the change feed.
        cache: the cache from which changed entries are removed; the follower ends when nothing else references it.
        shared: the second level of the cache, if any.
    """

    def __init__(self, source: ChangeSource, cache: ProfileCache[CacheKey], shared: SecondLevel | None = None) -> None:
        self._source = source
        self._namespace = source.namespace
        self._cache = ref(cache)
        self._shared = None if shared is None else ref(shared)
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._task: asyncio.Task[None] | None = None
        self._state: FeedState = "idle"
        self._position: str | None = None
        self._failures = 0
        self._connections = self._keys = self._resets = 0
        self._last_error: str | None = None
        self._said = False
        reset_after_fork(self)

    def start(self) -> None:
        """Start on the running loop, unless it runs there or on another loop that is alive."""
        loop = None if self._loop is None else self._loop()
        if self._task is not None and not self._task.done() and loop is not None and not loop.is_closed():
            return
        loop = asyncio.get_running_loop()
        self._loop = ref(loop)
        self._state = "connecting"
        # An empty context, so that the context of the first request is not kept for the life of the process.
        self._task = loop.create_task(self._run(), context=contextvars.Context())

    async def aclose(self) -> None:
        """End the stream; on another loop than its own, without waiting for the end."""
        task, self._task, self._state = self._task, None, "closed"
        loop = None if self._loop is None else self._loop()
        if task is None or loop is None or loop.is_closed():
            return
        if loop is not asyncio.get_running_loop():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
            return
        task.cancel()
        await asyncio.wait((task,), timeout=5)

    def after_fork(self) -> None:
        """Forget the stream, in a forked child: the next load opens one there, from the same position."""
        self._task = None
        self._loop = None
        self._state = "idle"

    def stats(self) -> FeedStats:
        """Return what was received so far, and the state of the feed."""
        return FeedStats(
            state=self._state,
            connections=self._connections,
            keys=self._keys,
            resets=self._resets,
            last_error=self._last_error,
        )

    async def _run(self) -> None:
        while self._cache() is not None:
            pause = FIRST_PAUSE
            try:
                pause = await self._follow()
                self._failures = 0
            except ProfileEnrichError as error:
                pause = self._failed(error)
            except Exception as error:  # noqa: BLE001  # a source of the user's; without its feed, lookups go on
                pause = self._failed(SourceError(f"the change feed failed ({type(error).__name__})"))
            # Full jitter, so that many clients do not reconnect to a restarted server at the same time.
            await asyncio.sleep(random.uniform(0.0, pause))  # noqa: S311  # no cryptography

    async def _follow(self) -> float:
        """Read one stream to its end. Return the longest wait before the next one."""
        live = False
        pause = FIRST_PAUSE
        async with contextlib.aclosing(self._source.changes(self._position)) as changes:
            async for change in changes:
                cache = self._cache()
                if cache is None:
                    return 0.0
                if not live:
                    live = True
                    self._opened(change, cache)
                pause = pause if change.retry is None else min(change.retry, LONGEST_PAUSE)
                await self._apply(change, cache)
                self._position = change.id or self._position
                del cache
        self._state = "connecting"
        return pause

    def _opened(self, first: ChangeBatch, cache: ProfileCache[CacheKey]) -> None:
        self._connections += 1
        self._failures = 0
        self._last_error = None
        self._state = "live"
        if self._said:
            self._said = False
            logger.warning("%s: the change feed is back", self._source.name)
        if self._position is None and not first.reset:
            # Entries loaded before the feed was open may have changed unnoticed.
            self._clear(cache)

    async def _apply(self, change: ChangeBatch, cache: ProfileCache[CacheKey]) -> None:
        if change.reset:
            self._resets += 1
            self._clear(cache)
            logger.info("%s: too many changes to list; cleared the cache", self._source.name)
        for start in range(0, len(change.keys), SLICE):
            self._drop(cache, change.keys[start : start + SLICE])
            await asyncio.sleep(0)
        self._keys += len(change.keys)

    def _clear(self, cache: ProfileCache[CacheKey]) -> None:
        cache.clear()
        if shared := self._level():
            shared.cleared()

    def _drop(self, cache: ProfileCache[CacheKey], keys: Sequence[ProfileKey]) -> None:
        for key in keys:
            cache.invalidate((self._namespace, key.type, key.value))
            cache.invalidate_tag(id_tag(key.value))
        if shared := self._level():
            shared.invalidated([(key.type, key.value) for key in keys], *(id_tag(key.value) for key in keys))

    def _level(self) -> SecondLevel | None:
        return None if self._shared is None else self._shared()

    def _failed(self, error: ProfileEnrichError) -> float:
        self._state = "lost"
        self._last_error = error.code
        self._failures += 1
        not_offered = getattr(error, "status", None) in (404, 405)
        if not self._said and (self._failures > 1 or not_offered):
            self._said = True
            why = "it has none at this URL" if not_offered else str(error)
            logger.warning(
                "%s: no change feed (%s) [%s]; profiles are kept for their ttl", self._source.name, why, error.code
            )
        if not_offered:
            return NOT_OFFERED_PAUSE
        doubled: int = 1 << min(self._failures - 1, 10)
        return min(FIRST_PAUSE * doubled, LONGEST_PAUSE)


class FollowingSweeper(Sweeper):
    """A sweeper that also starts the change follower, at the first load on a loop.

    Args:
        cache: the cache to sweep.
        every: seconds between two rounds.
        follower: the follower to start.
    """

    def __init__(self, cache: ProfileCache[CacheKey], every: float, follower: Follower) -> None:
        super().__init__(cache, every)
        self._follower = follower

    def arm(self) -> None:
        """Start both on the running loop, unless they run."""
        super().arm()
        self._follower.start()
