"""A process with a client and the shared cache: it reads keys from standard input, and writes each result as a line."""

from __future__ import annotations

import asyncio
import os
import sys

from profile_enrich import CensusSource, ProfileClient, SharedCache, Status


async def run() -> None:
    shared = SharedCache(
        os.environ["CACHE_URL"], secrets=["a secret of more than thirty-two characters"], timeout=5.0, lease=5.0
    )
    source = CensusSource(api_key="secret", entity="Users", base_url=os.environ["VENDOR_URL"])
    async with ProfileClient(source, ttl=600, stale_ttl=600, shared=shared) as client:
        shared.backplane.start()
        while not shared.backplane.available:
            await asyncio.sleep(0.01)
        say("ready")
        while key := (await asyncio.to_thread(sys.stdin.readline)).strip():
            stored = writes(client)
            calls = client.stats().source_calls
            profile = await client.get(key)
            # Until it is fresh, and the next process finds it.
            while profile.status is Status.STALE or (client.stats().source_calls > calls and writes(client) == stored):
                await asyncio.sleep(0.01)
                profile = await client.get(key)
            say(profile["tier"])


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def writes(client: ProfileClient) -> int:
    counted = client.stats().shared
    assert counted is not None
    return counted.stored


if __name__ == "__main__":
    asyncio.run(run())
