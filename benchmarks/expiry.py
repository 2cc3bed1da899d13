"""100,000 entries expire together while the application goes on reading and writing: the longest block of the loop.

A callback that runs once in each iteration of the event loop notes how long the iteration took. CPU time of the thread
counts, because wall time also holds what other processes did.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from cachetools import LRUCache, TLRUCache, TTLCache

from profile_enrich import CachePolicy, MemorySource, ProfileClient
from profile_enrich.testing import ManualClock

from ._measure import Spread, Stopwatch, interleave
from ._profiles import payload
from ._table import Table, Verdict, main

TTL = 60.0
OURS = "profile_enrich"
LRU = "LRUCache (nothing expires)"
TEXT = payload("u1")


class Ticker:
    """The longest iteration of the running loop, in ms of CPU."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = time.thread_time()
        self._handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, (now - self._last) * 1e3)
        self._last = now
        self._handle = self._loop.call_soon(self._tick)

    def stop(self) -> float:
        self._handle.cancel()
        return self.longest


async def _ours(size: int, uses: int) -> float:
    """Fills a client, lets all of it expire, and goes on until the sweeper has dropped all of it."""
    clock = ManualClock()
    client = ProfileClient(
        MemorySource(lambda key: json.loads(TEXT)),
        ttl=TTL,
        stale_ttl=0,
        cache_policy=CachePolicy(jitter=0, sweep_interval=0.05),
        max_entries=2 * size,
        max_bytes=2**31,
        timer=clock,
    )
    async with client:
        await client.get_many([f"u{number}" for number in range(size)])
        with Stopwatch(collect=False):
            clock.advance(TTL + 1)
            ticker = Ticker()
            for number in range(uses):
                await client.get(f"u{number}")
                await client.get(f"new{number}")
            for _ in range(6_000):
                if client.stats().entries <= 2 * uses:
                    break
                await asyncio.sleep(0.01)
            else:
                raise RuntimeError("what expired was not dropped within a minute")
            longest = ticker.stop()
    return longest


async def _clear(size: int) -> float:
    """Drops everything at once, as an operator may."""
    client = ProfileClient(MemorySource(lambda key: json.loads(TEXT)), ttl=TTL, max_entries=2 * size, max_bytes=2**31)
    async with client:
        await client.get_many([f"u{number}" for number in range(size)])
        with Stopwatch(collect=False) as watch:
            client.clear()
    return watch.cpu * 1e3


async def _cache(make: Callable[[int, Callable[[], float]], Any], size: int, uses: int) -> float:
    """Fills a cachetools cache, lets all of it expire, and goes on reading and writing."""
    clock = ManualClock()
    cache = make(2 * size, clock)
    for number in range(size):
        cache[f"u{number}"] = json.loads(TEXT)
    with Stopwatch(collect=False):
        clock.advance(TTL + 1)
        ticker = Ticker()
        for number in range(uses):
            cache.get(f"u{number}")
            await asyncio.sleep(0)
            cache[f"new{number}"] = json.loads(TEXT)
            await asyncio.sleep(0)
        return ticker.stop()


def _contenders(size: int, uses: int) -> dict[str, Callable[[], Awaitable[float]]]:
    makers: dict[str, Callable[[int, Callable[[], float]], Any]] = {
        "TTLCache": lambda size, clock: TTLCache(size, TTL, timer=clock),
        "TLRUCache": lambda size, clock: TLRUCache(size, lambda key, value, now: now + TTL, timer=clock),
        LRU: lambda size, clock: LRUCache(size),
    }
    return {
        OURS: lambda: _ours(size, uses),
        **{name: partial(_cache, make, size, uses) for name, make in makers.items()},
        "profile_enrich, clear()": lambda: _clear(size),
    }


def _table(found: dict[str, Spread], size: int) -> Table:
    table = Table(f"{size:,} entries expire together", ("contender", "longest block, CPU ms", "min … max", "× ours"))
    for name, figures in found.items():
        table.add(name, figures, figures.range, f"{figures.over(found[OURS]):.1f}")
    ours = found[OURS].median
    table.verdicts.append(Verdict("under 1 ms", f"{ours:.2f} ms", ours < 1))
    table.notes.append(
        "Values are profiles of 1 KB, each a separate object. Our time includes the sweeper's removal of all expired"
        " entries. The garbage collector is off: its full collections block any application with so many objects. "
        "`clear()` expires nothing; it is listed because it is also one call on as many entries."
    )
    return table


def run(quick: bool) -> list[Table]:
    """The longest block of the loop when everything expires."""
    size, uses, rounds = (300, 10, 1) if quick else (100_000, 1_000, 3)
    return [_table(asyncio.run(interleave(_contenders(size, uses), rounds)), size)]


if __name__ == "__main__":
    main(run)
