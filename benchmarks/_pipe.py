"""One way of enriching records, once, in a process of its own: says seconds, CPU and memory as one line of JSON.

`python -m benchmarks._pipe WAY TRANSPORT PORT RECORDS KEYS`. An engine's contender says the same line, from the
environment of that engine; `records` and `report` are there for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import accumulate
from typing import Any, cast

from cachetools import TTLCache

from profile_enrich import CensusSource, EnrichOptions, ProfileClient, enrich

from ._child import say
from .miss import KEY, _raw

AT_ONCE = 64
FIELDS = ("tier", "lifetime_value")

Row = dict[str, Any]
Call = Callable[[str], Awaitable[Any]]


def records(count: int, keys: int) -> Iterator[Row]:
    """Events of customers: a few of them often, most of them seldom (Zipf, s = 1). The same ones each time.

    Every key occurs: the first records are one of each, in random order, as far as the count goes.
    """
    rng = random.Random(1)
    weights = list(accumulate(1 / rank for rank in range(1, keys + 1)))
    everybody = range(keys)
    each = rng.sample(everybody, keys)
    for number in range(count):
        # One of each key is spread over the run, so that the number of different keys is known.
        step = max(1, count // keys)
        turn, rest = divmod(number, step)
        key = each[turn] if rest == 0 and turn < keys else rng.choices(everybody, cum_weights=weights)[0]
        yield {"event": number, "user_id": f"u{key:06d}", "amount": number % 97 + 0.5}


def report(work: Callable[[], int]) -> None:
    """Does the work, which returns how many records came out, and says what it took."""
    memory = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    rows = work()
    say(
        {
            "rows": rows,
            "seconds": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "mb": _peak() - memory,
        }
    )


def _peak() -> float:
    """MB of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def _widened(row: Row, profile: Row) -> Row:
    return {**row, "profile": {name: profile.get(name) for name in FIELDS}}


async def _sequential(call: Call, rows: Iterator[Row]) -> int:
    count = 0
    for row in rows:
        _widened(row, await call(row["user_id"]))
        count += 1
    return count


async def _gathered(call: Call, rows: Iterator[Row]) -> int:
    """As it is written most often: a task a record, and a semaphore."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(row: Row) -> Row:
        async with turns:
            return _widened(row, await call(row["user_id"]))

    return len(await asyncio.gather(*(one(row) for row in rows)))


async def _cached(call: Call, rows: Iterator[Row]) -> int:
    """The same with a cache that is looked into before the semaphore is waited for."""
    turns = asyncio.Semaphore(AT_ONCE)
    cache: TTLCache[str, Row] = TTLCache(50_000, 600)

    async def one(row: Row) -> Row:
        key = row["user_id"]
        found = cache.get(key)
        if found is None:
            async with turns:
                found = cache[key] = await call(key)
        return _widened(row, found)

    return len(await asyncio.gather(*(one(row) for row in rows)))


BY_HAND = {"sequential": _sequential, "gather": _gathered, "cached": _cached}


@contextlib.asynccontextmanager
async def _client(transport: str, base_url: str) -> AsyncIterator[ProfileClient]:
    source = CensusSource(KEY, entity=1, base_url=base_url, transport=cast(Any, transport))
    async with ProfileClient(source, ttl=3600) as client:
        yield client


async def _ours(transport: str, base_url: str, rows: Iterator[Row], ordered: bool) -> int:
    count = 0
    async with _client(transport, base_url) as client:
        async for _ in enrich(
            rows,
            client=client,
            key="user_id",
            fields=FIELDS,
            options=EnrichOptions(ordered=ordered, concurrency=AT_ONCE),
        ):
            count += 1
    return count


async def once(way: str, transport: str, base_url: str, rows: Iterator[Row]) -> int:
    """Enriches all records in one way."""
    if way in ("ordered", "unordered"):
        return await _ours(transport, base_url, rows, way == "ordered")
    async with _raw(transport, base_url) as call:
        return await BY_HAND[way](call, rows)


if __name__ == "__main__":
    way, transport, port, count, keys = sys.argv[1:]
    url = f"http://127.0.0.1:{port}/api/v1"
    importlib.import_module(transport)  # not what is measured
    report(lambda: asyncio.run(once(way, transport, url, records(int(count), int(keys)))))
