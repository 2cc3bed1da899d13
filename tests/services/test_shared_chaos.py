"""Four workers of uvicorn and gunicorn, a vendor and a Valkey, and faults at random: `CHAOS_SECONDS=60 make chaos`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from profile_enrich.testing import VendorServer

from .valkey import Cuttable, Valkey, free_port

log = logging.getLogger("profile_enrich.chaos")
ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))
USERS = [f"u{number}" for number in range(12)]


class Worker:
    """A uvicorn process, or gunicorn with one worker, that reaches Valkey through its own proxy."""

    def __init__(self, vendor: VendorServer, valkey: Valkey, ttl: float, timeout: float, *, gunicorn: bool) -> None:
        self.port = free_port()
        uvicorn = ["uvicorn", "--port", str(self.port), "--log-level", "error"]
        under = ["gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"127.0.0.1:{self.port}"]
        self._command = [*under, "--log-level", "critical"] if gunicorn else uvicorn
        self.wire = Cuttable(valkey.port)
        self._environment = {
            **os.environ,
            "CACHE_URL": self.wire.url,
            "VENDOR_URL": vendor.base_url,
            "PROFILE_TTL": str(ttl),
            "CACHE_TIMEOUT": str(timeout),
        }
        self.disturbed_until = 0.0
        self.is_known = True
        """Whether it has reached the server: nobody waits for the acknowledgement of a process that never has."""
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self._command, "tests.services.chaos_app:app"],
            cwd=ROOT,
            env=self._environment,
            start_new_session=True,  # signals reach gunicorn and its worker at once
        )

    async def ready(self, browser: httpx.AsyncClient) -> None:
        """Wait until it serves pages and is connected; gunicorn listens before it has loaded the application."""
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await browser.get(self.url, headers={"x-user": "nobody"})
                if (await browser.get(f"{self.url}/stats")).json()["available"]:
                    self.is_known = True
                    return
            assert time.monotonic() < end, "a worker did not start"
            await asyncio.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> None:
        self.kill()
        self.wire.close()


class Town:
    """Run the chaos test: start the servers, inject faults, and check each page."""

    def __init__(self, ttl: float = 60.0, timeout: float = 0.02) -> None:
        self.people = {user: {"user": user, "version": 1} for user in USERS}
        self.vendor = VendorServer(self.people, entity="Users", key="secret").__enter__()
        self.valkey = Valkey()
        self.workers = [Worker(self.vendor, self.valkey, ttl, timeout, gunicorn=number % 2 == 1) for number in range(4)]

    async def ready(self, browser: httpx.AsyncClient) -> None:
        for worker in self.workers:
            await worker.ready(browser)

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.valkey.stop()
        self.vendor.__exit__(None, None, None)


@pytest.fixture
def town() -> Generator[Town]:
    town = Town()
    yield town
    town.stop()


async def test_S1_S2_through_faults_at_random_no_old_page_no_failed_page_nobody_elses_page(town: Town) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    acknowledged = dict.fromkeys(USERS, 0)
    found: list[str] = []
    pages = acks = 0
    end = time.monotonic() + SECONDS

    async def visit(browser: httpx.AsyncClient) -> None:
        nonlocal pages
        while time.monotonic() < end:
            worker, user = rng.choice(town.workers), rng.choice(USERS)
            at_least, began, known = acknowledged[user], time.monotonic(), worker.is_known
            try:
                answer = await browser.get(worker.url, headers={"x-user": user})
            except httpx.HTTPError as error:
                if began > worker.disturbed_until and time.monotonic() > worker.disturbed_until:
                    found.append(f"a page failed: {type(error).__name__}")
                await asyncio.sleep(0.02)
                continue
            pages += 1
            content = answer.json()
            if answer.status_code != 200:
                found.append(f"a page failed with {answer.status_code}")
            elif content["id"] not in (user, None):
                found.append(f"{user} got the page of {content['id']}")
            elif content["version"] is not None and content["version"] < at_least and known and worker.is_known:
                found.append(f"{user} got version {content['version']} after {at_least} was acknowledged")
            await asyncio.sleep(0.01)

    async def write(browser: httpx.AsyncClient) -> None:
        nonlocal acks
        version = 1
        while time.monotonic() < end:
            version += 1
            user = rng.choice(USERS)
            town.people[user] = {"user": user, "version": version}
            with contextlib.suppress(httpx.HTTPError):
                answer = await browser.post(f"{rng.choice(town.workers).url}/invalidate/{user}")
                if answer.status_code == 204:
                    acks += 1
                    acknowledged[user] = max(version, acknowledged[user])
            await asyncio.sleep(0.1)

    async def disturb(browser: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(rng.uniform(0.2, 1.0))
            worker, seconds = rng.choice(town.workers), rng.uniform(0.1, 1.5)
            fault = rng.choice(["cut", "stall", "slow", "flush", "freeze", "kill", "restart"])
            if fault in ("cut", "stall", "slow"):
                if fault == "slow":
                    worker.wire.delay = 0.03
                else:
                    getattr(worker.wire, fault)()
                await asyncio.sleep(seconds)
                worker.wire.mend()
            elif fault == "flush":
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(town.valkey.command, "FLUSHALL")
            elif fault == "freeze":
                worker.disturbed_until = time.monotonic() + seconds + 10
                worker.send(signal.SIGSTOP)
                await asyncio.sleep(seconds)
                worker.send(signal.SIGCONT)
                worker.disturbed_until = time.monotonic() + 2
            elif fault == "kill":
                worker.disturbed_until = float("inf")  # starting many processes at once is slow
                worker.is_known = False
                worker.kill()
                worker.start()
                await worker.ready(browser)
                worker.disturbed_until = time.monotonic() + 2
            else:
                await asyncio.to_thread(town.valkey.kill)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(town.valkey.start)

    # Servers close connections idle for 2 s (gunicorn) or 5 s (uvicorn), possibly just as a request arrives.
    async with httpx.AsyncClient(timeout=10, limits=httpx.Limits(keepalive_expiry=1)) as browser:
        await town.ready(browser)
        end = time.monotonic() + SECONDS
        await asyncio.gather(*(visit(browser) for _ in range(8)), write(browser), disturb(browser))
    log.warning("%d pages, %d acknowledged invalidations, %d calls; seed %d", pages, acks, town.vendor.call_count, seed)
    assert not found, (seed, found[:5], len(found))
    assert pages > 10 * SECONDS / 2
    assert acks


async def test_S5_four_workers_make_one_call_for_each_key_and_ttl() -> None:
    ttl, rounds = 2.0, 3
    town = Town(ttl, timeout=2.0)
    try:
        async with httpx.AsyncClient(timeout=10) as browser:
            await town.ready(browser)
            for user in USERS:  # all begin at the same time
                await asyncio.gather(*(browser.get(worker.url, headers={"x-user": user}) for worker in town.workers))
            before, end = town.vendor.call_count, time.monotonic() + ttl * rounds
            while time.monotonic() < end:
                await asyncio.gather(
                    *(browser.get(worker.url, headers={"x-user": user}) for user in USERS for worker in town.workers)
                )
                await asyncio.sleep(0.05)
        calls = town.vendor.call_count - before
        assert calls <= 1.05 * len(USERS) * rounds + len(USERS), calls  # the jitter may add a round
    finally:
        town.stop()
