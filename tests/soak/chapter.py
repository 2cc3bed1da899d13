"""One chapter: one client with one dialect and one transport, used by all visitors concurrently, then closed."""

from __future__ import annotations

import asyncio
import random
import threading
import time

from profile_enrich import (
    AmperitySource,
    CachePolicy,
    CensusSource,
    ClientCredentials,
    ProfileClient,
    RateLimit,
    SourcePolicy,
)
from profile_enrich._utils.single_flight import GRACE
from profile_enrich.client.hooks import Details, LookupDetails
from profile_enrich.sources.base import ProfileSource
from profile_enrich.sources.http import TransportOptions
from profile_enrich.sources.http.client_per_loop import CLOSE_SECONDS
from profile_enrich.testing import VendorServer

from .checker import Checker
from .entrypoints import AsgiEntrypoint, Entrypoint, Server, SocketEntrypoint
from .expected_state import ExpectedState
from .faults import FaultSchedule
from .operators import Operator, Operators
from .settings import COMBINATIONS, Dialect, Settings, TransportName
from .shop import Shop
from .visitors import Device, Visitor
from .watch import WatchedBreaker, WatchedRetry, WatchedSource

__all__ = ["Chapter"]


class Chapter:
    """One client with one dialect and one transport, under traffic.

    Args:
        number: from 0; decides dialect, transport, and whether hooks and a rate limit are set.
        expire: wait at the end until all profiles have expired, and check that they are removed.
    """

    def __init__(
        self,
        number: int,
        vendor: VendorServer,
        fault_schedule: FaultSchedule,
        expected: ExpectedState,
        settings: Settings,
        checker: Checker,
        *,
        expire: bool = False,
    ) -> None:
        self._expire = expire
        self._rng = random.Random(settings.seed * 1000 + number)
        self._vendor = vendor
        self._fault_schedule = fault_schedule
        self._expected = expected
        self._settings = settings
        self._checker = checker
        self._hooked = (number + number // len(COMBINATIONS)) % 2 == 1
        self._told = 0
        self._telling = threading.Lock()
        dialect, transport = COMBINATIONS[number % len(COMBINATIONS)]
        self.name = f"{dialect} over {transport}" + (", hooks" if self._hooked else "")
        self._retry = WatchedRetry()
        self._source = WatchedSource(self._open(dialect, transport), expected, checker, settings.max_in_flight)
        self._client = ProfileClient(
            self._source,
            ttl=settings.ttl,
            stale_ttl=settings.stale_ttl,
            negative_ttl=settings.negative_ttl,
            deadline=settings.deadline,
            max_entries=settings.max_entries,
            max_bytes=settings.max_bytes,
            hooks=[self._hook] if self._hooked else (),
            cache_policy=CachePolicy(
                max_stale=settings.max_stale,
                throttle=settings.throttle,
                min_ttl=0.5 * settings.ttl,
                max_ttl=settings.max_ttl,
                max_negative_entries=settings.max_negative_entries,
                sweep_interval=1.0,
            ),
            source_policy=SourcePolicy(
                breaker=WatchedBreaker(checker, 0.3 * settings.pace),
                retry=self._retry,
                rate_limit=RateLimit(200, burst=50) if number % 4 == 1 else None,
                max_in_flight=settings.max_in_flight,
                close_timeout=1.0,
            ),
        )

    def _open(self, dialect: Dialect, transport: TransportName) -> ProfileSource:
        # The body limit lets the largest profile through, and nothing like 50 MB.
        limit, options = 2**20, TransportOptions(max_connections=self._settings.max_in_flight + 10)
        if dialect == "census":
            return CensusSource(
                "secret", entity="Users", base_url=self._vendor.base_url, transport=transport,
                max_body_bytes=limit, options=options,
            )  # fmt: skip
        token = ClientCredentials(self._vendor.token_url, "client", "client-secret", "acme")
        return AmperitySource(
            index="Users", tenant="acme", token=token, base_url=self._vendor.amperity_url, transport=transport,
            max_body_bytes=limit, options=options,
        )  # fmt: skip

    def _hook(self, details: Details) -> None:
        if isinstance(details, LookupDetails):
            with self._telling:
                self._told += 1
        self._checker.check(not self._expected.planted(repr(details)), "A18: personal data in a details object")

    async def run(self) -> None:
        """Run the chapter, and check that it leaves no resources behind."""
        self._checker.check(self._client.transport == self._source.transport_name, "another transport than asked for")
        shop = Shop(self._client, self._expected, self._settings, self._checker)
        server = Server(shop)
        port = server.start()
        run_workers = Operators(self._client, self._source, self._expected, self._checker, self._rng)
        until = time.monotonic() + self._settings.chapter_seconds
        run_workers.start(until)
        self._fault_schedule.start()
        try:
            async with asyncio.TaskGroup() as everybody:
                for visitor in self._visitors(shop, port):
                    everybody.create_task(visitor.stay(until))
                everybody.create_task(self._operator(shop).work(until))
                everybody.create_task(self._look_on(until))
        finally:
            await asyncio.to_thread(run_workers.join)
            await self._end(server, run_workers)

    # --- who comes ----------------------------------------------------------------------------------------------------

    def _visitors(self, shop: Shop, port: int) -> list[Visitor]:
        """Every fifth device has three tabs."""
        found: list[Visitor] = []

        def come(count: int, by_socket: bool) -> None:
            last = len(found) + count
            while len(found) < last:
                device = Device()
                for _ in range(min(3 if self._rng.random() < 0.2 else 1, last - len(found))):
                    found.append(self._visitor(device, self._entrypoint(shop, port if by_socket else None)))

        come(self._settings.visitors, False)
        come(self._settings.socket_visitors, True)
        return found

    def _entrypoint(self, shop: Shop, port: int | None) -> Entrypoint:
        if port is not None:
            return SocketEntrypoint(port, self._settings, self._checker)
        return AsgiEntrypoint(shop, self._settings, self._checker, random.Random(self._rng.random()))

    def _visitor(self, device: Device, entrypoint: Entrypoint) -> Visitor:
        rng = random.Random(self._rng.random())
        return Visitor(device, entrypoint, self._expected, self._settings, self._checker, rng)

    def _operator(self, shop: Shop) -> Operator:
        rng = random.Random(self._rng.random())
        return Operator(self._client, self._entrypoint(shop, None), self._expected, self._checker, rng)

    async def _look_on(self, until: float) -> None:
        """Check the bounds, and measure the delay of the event loop."""
        settings, check = self._settings, self._checker.check
        while time.monotonic() < until:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            self._checker.lagged(time.monotonic() - before - 0.05)
            stats = self._client.stats()
            check(stats.entries <= settings.max_entries, "L8: too many entries", stats.entries)
            check(stats.bytes <= settings.max_bytes, "L8: too many bytes", stats.bytes)
            check(stats.negative_entries <= settings.max_negative_entries, "L8: too many negative entries")
            slots = self._client._cache.sweep_span / 2
            check(slots <= 2 * settings.max_entries, "L8: the list that is swept outgrows the cache", slots)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _end(self, server: Server, run_workers: Operators) -> None:
        await asyncio.to_thread(self._fault_schedule.stop)
        if self._rng.random() < 0.5:
            self._fault_schedule.clear_up()
        if self._expire:
            await self._all_expires()
        await asyncio.to_thread(server.stop)
        self._source.closing = True
        await asyncio.to_thread(run_workers.blocking.close)
        started = time.monotonic()
        await self._client.aclose()
        took = time.monotonic() - started
        check, client = self._checker.check, self._client
        # close_timeout, a second for what does not end when cancelled, and what an HTTP client may take.
        limit = 1.0 + GRACE + CLOSE_SECONDS + self._settings.slack
        check(took <= limit, "L14: closing takes too long", f"{took:.2f} s")
        check(client.stats().in_flight == 0, "L14: loads are in flight after closing", client.stats().in_flight)
        check(not client._cache._loads, "L14: tokens of loads are left after closing", len(client._cache._loads))
        check(not client._cache._invalidated, "L14: marks of invalidations are left after closing")
        left = self._source.calls_under_way()
        check(not left, "L14: calls of the source are left after closing", f"{left}, after {took:.2f} s")
        self._count_up()

    async def _all_expires(self) -> None:
        """Without traffic, all personal data expire and are removed (L8)."""
        self._checker.count("waited for all to expire")
        # Until the last entry expires, plus two rounds of the sweeper with their pauses.
        await asyncio.sleep(self._settings.oldest_age + self._settings.deadline + 3.0)
        stats = self._client.stats()
        held = (stats.entries, stats.negative_entries, len(self._client._cache._overlays.store))
        self._checker.check(held == (0, 0, 0), "L8: expired profiles are kept", held)

    def _count_up(self) -> None:
        """After all lookups, the counters are complete and within their bounds."""
        stats, check, retry = self._client.stats(), self._checker.check, self._retry
        if self._hooked:
            check(self._told == stats.total, "L11: hooks and counters differ", f"{self._told} and {stats.total}")
        for status, number in stats.lookups.items():
            self._checker.count(f"lookup: {status.value}", number)
        for code, number in stats.source_errors.items():
            self._checker.count(f"source error: {code}", number)
        self._checker.count("loads", retry.loads)
        self._checker.count("retries", retry.retries)
        check(retry.retries <= 0.1 * retry.loads, "L10: more retries than 10 %", f"{retry.retries} of {retry.loads}")
