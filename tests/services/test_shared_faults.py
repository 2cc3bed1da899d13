"""Random faults between four clients in one process and a Valkey; faster than with processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time

import pytest

from profile_enrich import MemorySource, ProfileClient, ProfileKey, SharedCache, SharedCacheUnavailable
from profile_enrich.cache.shared import event_delivery

from .valkey import Cuttable, Valkey

SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))
LEASE = 0.3
USERS = [f"u{number}" for number in range(6)]


@pytest.mark.parametrize("faults", ["cut stall slow", "slow slow flush", "cut stall slow flush restart"])
async def test_S1_no_client_serves_an_old_value(valkey: Valkey, faults: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_delivery, "FORGET_MS", 1500)  # no fault lasts longer
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    people, acknowledged = dict.fromkeys(USERS, 1), dict.fromkeys(USERS, 0)
    found: list[str] = []
    versions = itertools.count(2)
    lookups = acks = 0

    async def fetch(key: ProfileKey) -> dict[str, object]:
        version = people[key.value]
        await asyncio.sleep(rng.choice([0, 0.002, 0.02, 0.1]))
        return {"version": version}

    async def visit(clients: list[ProfileClient]) -> None:
        nonlocal lookups
        while time.monotonic() < end:
            number, user = rng.randrange(len(clients)), rng.choice(USERS)
            at_least = acknowledged[user]
            profile = await clients[number].lookup(user, budget=1)
            lookups += 1
            if profile and profile["version"] < at_least:
                found.append(f"client {number}: {user} {profile['version']} after {at_least} was acknowledged")
            await asyncio.sleep(0.003)

    async def write(clients: list[ProfileClient]) -> None:
        nonlocal acks
        while time.monotonic() < end:
            version, user, client = next(versions), rng.choice(USERS), rng.choice(clients)
            people[user] = version
            client.invalidate(user)
            with contextlib.suppress(SharedCacheUnavailable):
                await client.acknowledged(timeout=4 * LEASE)
                acknowledged[user] = max(version, acknowledged[user])
                acks += 1
            await asyncio.sleep(rng.choice([0, 0.02, 0.05]))

    async def disturb(wires: list[Cuttable]) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            wire, seconds, fault = rng.choice(wires), rng.uniform(0.05, 0.6), rng.choice(faults.split())
            if fault == "flush":
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(valkey.command, "FLUSHALL")
            elif fault == "restart":
                await asyncio.to_thread(valkey.kill)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(valkey.start)
            else:
                if fault == "slow":
                    wire.delay = 0.03
                else:
                    getattr(wire, fault)()
                await asyncio.sleep(seconds)
                wire.mend()

    async with contextlib.AsyncExitStack() as stack:
        wires = [stack.enter_context(contextlib.closing(Cuttable(valkey.port))) for _ in range(4)]
        clients = []
        for wire in wires:
            shared = SharedCache(
                wire.url, secrets=["a secret of more than thirty-two characters"], lease=LEASE, timeout=0.02
            )
            client = ProfileClient(MemorySource(fetch, name="vendor"), ttl=60, shared=shared)
            clients.append(await stack.enter_async_context(client))
            await client.lookup(USERS[0])
        while not all(client.stats().shared.available for client in clients):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        end = time.monotonic() + SECONDS
        await asyncio.gather(*(visit(clients) for _ in range(6)), write(clients), write(clients), disturb(wires))
    assert not found, (seed, found[:5], len(found))
    assert lookups > 20 * SECONDS
    assert acks
