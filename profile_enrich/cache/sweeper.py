"""Sweeper: removes expired entries incrementally, even without reads and writes."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol
from weakref import ref

from .._utils.string_pool import shared_strings

__all__ = ["Sweeper"]

STEP = 8
"""The number of entries checked between two checks of the clock."""

SLICE = 0.0003
"""The time limit of a slice, in seconds; freeing a large profile takes longer."""

PAUSE = 0.002
"""Seconds between slices of one round."""


class Sweepable(Protocol):
    """A cache that can be swept in slices."""

    def sweep(self, limit: int) -> int:
        """Check up to `limit` entries."""
        ...

    @property
    def sweep_span(self) -> int:
        """The number of entries to check in a whole round."""
        ...


class Sweeper:
    """A timer on the running loop that sweeps the cache every `every` seconds, in slices.

    It keeps neither the cache nor the loop alive, and stops when the cache is empty.
    """

    def __init__(self, cache: Sweepable, every: float) -> None:
        self._cache = ref(cache)
        self._every = every
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0

    def arm(self) -> None:
        """Start the timer on the running loop, unless it runs."""
        loop = asyncio.get_running_loop()
        current = None if self._loop is None else self._loop()
        if current is loop and self._timer is not None:
            return
        if current is not None and self._timer is not None and not current.is_closed():
            return  # it runs on another loop that is alive
        self._loop = ref(loop)
        self._timer = loop.call_later(self._every, self._round)

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """Forget the parent's timer in a forked child."""
        self._timer = None
        self._loop = None

    def _round(self) -> None:
        shared_strings.clear()
        cache = self._cache()
        self._left = 0 if cache is None else cache.sweep_span
        self._slice()

    def _slice(self) -> None:
        cache = self._cache()
        loop = None if self._loop is None else self._loop()
        self._timer = None
        if cache is None or loop is None or loop.is_closed():
            return
        until = time.perf_counter() + SLICE
        while self._left > 0:
            cache.sweep(STEP)
            self._left -= STEP
            if time.perf_counter() >= until:
                break
        if self._left > 0:
            self._timer = loop.call_later(PAUSE, self._slice)
        elif cache.sweep_span:
            self._timer = loop.call_later(self._every, self._round)
