"""Stalls of the process (a blocked loop, a suspended process, an ended loop) never count against the source."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from profile_enrich import CensusSource, ProfileClient, ProfileKey, RetryPolicy, SourcePolicy, SourceTimeout, Status
from profile_enrich._utils.deadline import Deadline
from profile_enrich._utils.log_once import LogOnce
from profile_enrich.client import background
from profile_enrich.sources.base import SourceResult, Validators
from profile_enrich.testing import ManualClock, VendorServer, faults
from tests.helpers import ScriptedSource, client_of, found

NO_RETRY = SourcePolicy(retry=RetryPolicy(1))


class Patient(ScriptedSource):
    """A source that keeps to its deadline, as those over HTTP do."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        self.calls.append(key)
        try:
            async with asyncio.timeout(deadline.remaining()):
                await asyncio.sleep(self.seconds)
        except TimeoutError:
            raise SourceTimeout("too slow") from None
        return found(id=key.value)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["aiohttp", "httpx2", "httpx"])
async def test_A27_an_application_that_blocks_its_own_loop_fails_no_lookup(
    transport: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A27: a blocked loop never counts against the source; the load gets its remaining time, the log names the loop."""
    monkeypatch.setattr("profile_enrich._utils.process_stall._once", LogOnce())
    with VendorServer({f"u{number}": {"a": "1"} for number in range(7)}, key=None) as vendor:
        source = CensusSource("k", entity=vendor.entity_id, base_url=vendor.base_url, transport=transport)  # type: ignore[arg-type]
        async with ProfileClient(source, deadline=2.0, source_policy=NO_RETRY) as client:
            await client.get("u0")
            lookups = [asyncio.create_task(client.lookup(f"u{number}")) for number in range(1, 7)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(3.0)  # a mistake that applications make
            profiles = await asyncio.gather(*lookups)
            assert [profile.status for profile in profiles] == [Status.MISS] * 6
            stats = client.stats()
    assert (stats.source_errors, stats.breaker) == ({}, "closed")
    assert [record.levelno for record in caplog.records if "event loop stood still" in record.message] == [
        logging.WARNING
    ]


@pytest.mark.long
async def test_A27_the_source_still_has_to_keep_its_deadline() -> None:
    """A27: the deadline is extended by the stall alone."""
    client = ProfileClient(Patient(30.0), deadline=0.5, source_policy=NO_RETRY)
    lookup = asyncio.create_task(client.lookup("u1"))
    await asyncio.sleep(0.01)
    time.sleep(0.7)
    started = time.monotonic()
    assert (await lookup).status is Status.TIMEOUT
    assert time.monotonic() - started < 20.0
    assert client.stats().source_errors == {"source_timeout": 1}


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system does not stop processes")
def test_A27_a_process_that_is_paused_fails_no_lookup() -> None:
    """A27: a suspended process, as a serverless function between two calls."""
    program = textwrap.dedent("""
        import asyncio, sys
        from profile_enrich import CensusSource, ProfileClient, RetryPolicy, SourcePolicy

        async def main():
            source = CensusSource("k", entity=int(sys.argv[2]), base_url=sys.argv[1])
            policy = SourcePolicy(retry=RetryPolicy(1))
            async with ProfileClient(source, deadline=3.0, source_policy=policy) as client:
                await client.get("u1")
                lookup = asyncio.create_task(client.lookup("u2"))
                await asyncio.sleep(0)
                print("asked", flush=True)
                profile = await lookup
                stats = client.stats()
                print(profile.status, stats.source_errors, stats.breaker, flush=True)

        asyncio.run(main())
    """)
    with VendorServer({"u1": {"a": "1"}, "u2": {"a": "2"}}, key=None) as vendor:
        vendor.script(faults.Hang(), key="u2")
        command = [sys.executable, "-c", program, vendor.base_url, str(vendor.entity_id)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "asked\n"
            vendor.wait_for_calls(2, timeout=30)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(4.0)
            vendor.release()
            time.sleep(0.5)
            os.kill(child.pid, signal.SIGCONT)
            assert child.stdout.readline() == "miss {} closed\n"


def test_L4_stale_entries_are_refreshed_also_where_each_request_has_a_loop_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """L4: starts a refresh, which does not end with the loop that its request ran on."""
    monkeypatch.setattr(background, "IDLE_SECONDS", 0.05)
    clock = ManualClock()
    source = ScriptedSource(delay=0.05)
    client = client_of(source, ttl=60, stale_ttl=600, timer=clock)
    asyncio.run(client.get("u1"))
    statuses = []
    for _ in range(3):
        clock.advance(61)
        for _ in range(600):
            profile = asyncio.run(client.get("u1"))
            if profile.status is Status.HIT:
                break
            time.sleep(0.05)
        statuses.append(profile.status)
    assert statuses == [Status.HIT] * 3
    asyncio.run(client.aclose())
    for thread in threading.enumerate():
        if thread.name == "profile_enrich refreshes":
            thread.join(30)
            assert not thread.is_alive()


def test_L14_one_loop_that_ends_leaves_no_thread() -> None:
    """L14: a script that ends during a load is not mistaken for one with a loop per request."""
    client = client_of(ScriptedSource(delay=5.0))

    async def main() -> None:
        assert (await client.lookup("u1", budget=0.01)).status is Status.TIMEOUT

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name == "profile_enrich refreshes"]
