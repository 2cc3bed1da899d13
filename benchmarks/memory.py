"""Memory that a cached profile takes, by tracemalloc: its values, and with them the cache's own structures."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from cachetools import LRUCache, TTLCache

from profile_enrich import MemorySource, ProfileClient
from profile_enrich.profile import Record

from ._profiles import flat, payload
from ._table import Table, Verdict, main

OURS = "profile_enrich"
BASE = "dict of dicts"

Texts = dict[str, bytes]
Fill = Callable[[Texts], Awaitable[tuple[object, str]]]
Make = Callable[[str], bytes]


async def _ours(texts: Texts) -> tuple[object, str]:
    client = ProfileClient(MemorySource(lambda key: json.loads(texts[key.value])), max_bytes=2**31)
    await client.get_many(texts)
    await asyncio.sleep(0)  # the tasks of the loads end
    stats = client.stats()
    assert stats.entries == len(texts)
    return client, f"{stats.bytes / len(texts):,.0f}"


def _in(make: Callable[[], Any], decode: Callable[[bytes], Any]) -> Fill:
    async def fill(texts: Texts) -> tuple[object, str]:
        cache = make()
        for key, text in texts.items():
            cache[key] = decode(text)
        return cache, "-"

    return fill


CONTENDERS: dict[str, Fill] = {
    OURS: _ours,
    f"{OURS}, values alone": _in(dict, lambda text: Record(json.loads(text)).attributes),
    BASE: _in(dict, json.loads),
    "LRUCache of dicts": _in(lambda: LRUCache(10**6), json.loads),
    "TTLCache of dicts": _in(lambda: TTLCache(10**6, 60), json.loads),
    "dict of JSON bytes": _in(dict, lambda text: bytes(bytearray(text))),
}


async def measure(fill: Fill, texts: Texts) -> tuple[float, str]:
    """Bytes that a profile takes, and what the client says that it takes."""
    await fill(dict(list(texts.items())[:5]))  # what Python keeps of the first use
    gc.collect()
    gc.freeze()  # what is alive now is not looked at again
    tracemalloc.start()
    try:
        kept, counted = await fill(texts)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    del kept
    return used / len(texts), counted


def run(quick: bool) -> list[Table]:
    """Memory of cached profiles: flat ones, and nested ones of 1, 4 and 16 KB of JSON."""
    count = 10 if quick else 2_000
    table = Table(
        f"Memory of {count:,} cached profiles",
        ("contender", "JSON bytes", "bytes a profile", f"× {BASE}", "× the JSON", "counted by the client"),
    )
    keys = [f"u{number:08d}" for number in range(count)]
    makes: list[Make] = [flat, *(functools.partial(payload, kilobytes=size) for size in (1.0, 4.0, 16.0))]
    for make in makes:
        texts = {key: make(key) for key in keys}
        size = sum(map(len, texts.values())) / count
        found = {name: asyncio.run(measure(fill, texts)) for name, fill in CONTENDERS.items()}
        base = found[BASE][0]
        for name, (used, counted) in found.items():
            table.add(name, f"{size:,.0f}", f"{used:,.0f}", f"{used / base:.2f}", f"{used / size:.2f}", counted)
        if make is flat:
            values = found[f"{OURS}, values alone"][0] / base
            table.verdicts.append(Verdict(f"flat values: at most 0.4 × a {BASE}", f"{values:.2f} ×", values <= 0.4))
    table.notes.append(
        "One round, since tracemalloc counts all bytes. The text of the keys is not counted. `max_bytes` limits the "
        "bytes 'counted by the client'."
    )
    return [table]


if __name__ == "__main__":
    main(run)
