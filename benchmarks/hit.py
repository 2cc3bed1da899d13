"""A fresh hit: what it costs to get from the cache what is there, in ns of CPU.

Everything is called from one running coroutine, over 1,000 keys in turn; the cost of the bare loop is taken off.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from cachetools import LRUCache, TTLCache
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from profile_enrich import MemorySource, ProfileClient, ProfileKey
from profile_enrich.client.hooks import Hook
from profile_enrich.otel import OpenTelemetryHook
from profile_enrich.prometheus import PrometheusHook

from ._measure import Spread, Stopwatch, interleave
from ._peers import SIZE, TTL, async_peers, missing, note_on_missing
from ._profiles import attributes
from ._table import Table, Verdict, main

OURS = "profile_enrich lookup"


async def _bare(keys: list[Any]) -> None:
    for _ in keys:
        pass


def _called(get: Callable[[Any], object]) -> Callable[[list[Any]], Awaitable[None]]:
    async def loop(keys: list[Any]) -> None:
        for key in keys:
            get(key)

    return loop


def _awaited(get: Callable[[Any], Awaitable[object]]) -> Callable[[list[Any]], Awaitable[None]]:
    async def loop(keys: list[Any]) -> None:
        for key in keys:
            await get(key)

    return loop


def _under_lock(cache: TTLCache[str, Any]) -> Callable[[str], Any]:
    lock = threading.Lock()

    def get(key: str) -> Any:
        with lock:
            return cache.get(key)

    return get


async def measure(quick: bool) -> Table:
    keys = [f"u{number}" for number in range(20 if quick else 1_000)]
    seconds, rounds = (0.0, 1) if quick else (0.1, 9)
    people = {key: attributes(key) for key in keys}
    client = ProfileClient(MemorySource(people), ttl=3600)
    meters = MeterProvider([InMemoryMetricReader()])
    hooks: dict[str, Hook] = {
        "a hook": lambda details: None,
        "Prometheus": PrometheusHook(CollectorRegistry()),
        "OpenTelemetry": OpenTelemetryHook(meter_provider=meters),
    }
    watched = {name: ProfileClient(MemorySource(people), ttl=3600, hooks=[hook]) for name, hook in hooks.items()}
    for key in keys:
        for one in (client, *watched.values()):
            await one.get(key)

    async def load(key: str) -> dict[str, Any]:
        return people[key]

    peers = {name: build(load) for name, build in async_peers().items()}
    for get in peers.values():
        for key in keys:
            await get(key)

    ttl: TTLCache[str, Any] = TTLCache(SIZE, TTL)
    lru: LRUCache[str, Any] = LRUCache(SIZE)
    ttl.update(people)
    lru.update(people)
    loops = {
        "dict.get": _called(people.get),
        "cachetools LRUCache.get": _called(lru.get),
        "cachetools TTLCache.get": _called(ttl.get),
        "cachetools TTLCache.get under a lock": _called(_under_lock(ttl)),
        "profile_enrich find": _called(client.find),
        OURS: _awaited(client.lookup),
        "profile_enrich get": _awaited(client.get),
        "profile_enrich lookup, a ProfileKey": _awaited(client.lookup),
        **{f"profile_enrich lookup, with {name}": _awaited(one.lookup) for name, one in watched.items()},
        **{name: _awaited(get) for name, get in peers.items()},
    }
    if "cachebox" not in missing():
        cachebox = importlib.import_module("cachebox")
        for kind, cache in (("LRUCache", cachebox.LRUCache(SIZE)), ("TTLCache", cachebox.TTLCache(SIZE, TTL))):
            cache.update(people)
            loops[f"cachebox {kind}.get"] = _called(cache.get)

    async def contender(name: str, loop: Callable[[list[Any]], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
        asked = [ProfileKey(key) for key in keys] if "ProfileKey" in name else keys
        with Stopwatch(collect=False) as watch:
            await loop(asked)
        asked = asked * (1 + int(seconds / max(watch.cpu, 1e-6)))  # from 5 million calls down to a few thousand

        async def once() -> float:
            with Stopwatch(collect=False) as watch:
                await loop(asked)
            return watch.cpu / len(asked) * 1e9

        return once

    contenders = {name: await contender(name, loop) for name, loop in {"": _bare, **loops}.items()}
    found = await interleave(contenders, rounds)
    meters.shutdown()
    return _table({name: _less(figures, found[""]) for name, figures in found.items() if name}, list(peers))


def _less(figures: Spread, bare: Spread) -> Spread:
    return Spread(tuple(max(one - other, 0.0) for one, other in zip(figures.values, bare.values, strict=True)))


def _table(found: dict[str, Spread], peers: list[str]) -> Table:
    table = Table("A fresh hit", ("contender", "CPU ns", "min … max", "× dict.get", "× ours"))
    for name, figures in sorted(found.items(), key=lambda item: item[1].median):
        table.add(name, figures, figures.range, *(f"{figures.over(found[base]):.2f}" for base in ("dict.get", OURS)))
    ours = found[OURS].median
    table.verdicts.append(Verdict("under 1 µs CPU", f"{ours:,.0f} ns", ours < 1_000))
    slowest = max(found[f"profile_enrich lookup, with {name}"].median for name in ("Prometheus", "OpenTelemetry"))
    table.verdicts.append(
        Verdict(
            "with Prometheus or OpenTelemetry at most 1.5 µs more", f"{slowest - ours:,.0f} ns", slowest - ours <= 1_500
        )
    )
    if peers:
        best = min(peers, key=lambda name: found[name].median)
        said = f"{ours:,.0f} ns, the best of them ({best}) {found[best].median:,.0f} ns"
        table.verdicts.append(Verdict("ahead of every async peer", said, ours < found[best].median))
    table.notes.extend(
        [
            "Values are profiles of 1 KB. The garbage collector is off during the measurement. The rows of other "
            "libraries are their decorated functions, awaited; rows with `.get` are plain calls.",
            *note_on_missing(),
        ]
    )
    return table


def run(quick: bool) -> list[Table]:
    """A fresh hit beside dictionaries and caches."""
    return [asyncio.run(measure(quick))]


if __name__ == "__main__":
    main(run)
