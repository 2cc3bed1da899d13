"""A miss: the CPU of one upstream call, in µs, over what the same HTTP client costs by itself.

64 calls are in flight all the time, each for a key that was never asked for, against a minimal server in another
process. `source` is `CensusSource.fetch` alone; `client` is `ProfileClient.lookup`, with load and cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from profile_enrich import CensusSource, ProfileClient, ProfileKey
from profile_enrich._utils.deadline import Deadline

from ._child import Child
from ._measure import Spread, Stopwatch, interleave
from ._table import Table, Verdict, main

TRANSPORTS = ("aiohttp", "httpx2", "httpx")
KEY = "secret"
HEADERS = {"authorization": f"Bearer {KEY}"}

Call = Callable[[str], Awaitable[object]]


@contextlib.asynccontextmanager
async def _raw(transport: str, base_url: str) -> AsyncIterator[Call]:
    """The HTTP client as its own documentation uses it."""
    url = f"{base_url}/entities/1/record?record_id="
    if transport == "aiohttp":
        import aiohttp

        async with aiohttp.ClientSession(headers=HEADERS) as session:

            async def call(key: str) -> object:
                async with session.get(url + key) as response:
                    response.raise_for_status()
                    return (await response.json())["data"]

            yield call
        return
    module: Any = importlib.import_module(transport)
    async with module.AsyncClient(headers=HEADERS) as client:

        async def ask(key: str) -> object:
            response = await client.get(url + key)
            response.raise_for_status()
            return response.json()["data"]

        yield ask


@contextlib.asynccontextmanager
async def _calls(transport: str, base_url: str) -> AsyncIterator[dict[str, Call]]:
    source = CensusSource(KEY, entity=1, base_url=base_url, transport=cast(Any, transport))
    client = ProfileClient(CensusSource(KEY, entity=1, base_url=base_url, transport=cast(Any, transport)))

    async def fetch(key: str) -> object:
        return await source.fetch(ProfileKey(key), deadline=Deadline(5))

    async with _raw(transport, base_url) as raw, client:
        yield {"raw client": raw, "source": fetch, "client": client.get}
        await source.aclose()


async def _drive(call: Call, keys: list[str], at_once: int) -> None:
    rest = iter(keys)

    async def work() -> None:
        for key in rest:
            if not await call(key):
                raise RuntimeError("the upstream answered without a record")

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


async def measure(quick: bool, base_url: str) -> Table:
    calls, at_once, rounds = (20, 4, 1) if quick else (2_000, 64, 7)
    numbers = itertools.count()
    installed = [name for name in TRANSPORTS if importlib.util.find_spec(name)]
    async with contextlib.AsyncExitStack() as stack:
        contenders: dict[str, Callable[[], Awaitable[float]]] = {}

        def contender(call: Call) -> Callable[[], Awaitable[float]]:
            async def once() -> float:
                keys = [f"k{next(numbers)}" for _ in range(calls)]
                with Stopwatch(collect=True) as watch:
                    await _drive(call, keys, at_once)
                return watch.cpu / calls * 1e6

            return once

        for transport in installed:
            ways = await stack.enter_async_context(_calls(transport, base_url))
            contenders |= {f"{transport} {way}": contender(call) for way, call in ways.items()}
        found = await interleave(contenders, rounds)
    return _table(found, installed)


def _table(found: dict[str, Spread], installed: list[str]) -> Table:
    table = Table("A miss, per transport", ("contender", "CPU µs a call", "min … max", "× raw client"))
    for transport in installed:
        raw = found[f"{transport} raw client"]
        for way in ("raw client", "source", "client"):
            figures = found[f"{transport} {way}"]
            table.add(f"{transport} {way}", figures, figures.range, f"{figures.over(raw):.2f}")
        ratio = found[f"{transport} client"].over(raw)
        table.verdicts.append(Verdict(f"{transport}: at most 1.25 × the raw client", f"{ratio:.2f} ×", ratio <= 1.25))
    table.notes.append(
        "The response is a record of 1 KB, which every contender decodes. The raw clients have their default "
        "settings; ours adds the deadline, the body limit, detached loads, single flight, freezing and the cache."
    )
    return table


def run(quick: bool) -> list[Table]:
    """Misses over each HTTP client that is installed."""
    with Child("_upstream") as upstream:
        port = upstream.ready()["port"]
        return [asyncio.run(measure(quick, f"http://127.0.0.1:{port}/api/v1"))]


if __name__ == "__main__":
    main(run)
