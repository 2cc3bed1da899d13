"""The shared second level and its backplane, against a real Valkey. Each client here stands for a process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from profile_enrich import (
    MemorySource,
    ProfileClient,
    ProfileKey,
    Reason,
    SharedCache,
    SharedCacheUnavailable,
    SourceUnavailable,
    Status,
)
from profile_enrich.cache.shared.second_level import LoadLease
from tests.helpers import until

from .valkey import Cuttable, Valkey

SECRET = "a secret of more than thirty-two characters"
LEASE = 0.4


class Vendor:
    """The source of all processes, which counts its calls."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, Any]] = {"u1": {"name": "Ada Lovelace", "tier": "gold"}}
        self.calls = 0
        self.seconds = 0.0
        self.down = False

    async def fetch(self, key: ProfileKey) -> dict[str, Any] | None:
        self.calls += 1
        found = self.people.get(key.value)
        found = None if found is None else dict(found)  # as of when the call arrived
        await asyncio.sleep(self.seconds)
        if self.down:
            raise SourceUnavailable("the vendor is down")
        return found

    def source(self) -> MemorySource:
        return MemorySource(self.fetch, name="vendor")


Process = Callable[..., Awaitable[ProfileClient]]


@pytest.fixture
async def start(valkey: Valkey) -> AsyncGenerator[Process]:
    """Start a "process": a client with its own shared cache, connected to a server with a long uptime."""
    valkey.command("SET", "{profile_enrich}:epoch", "long ago:0")
    async with contextlib.AsyncExitStack() as stack:

        async def process(
            vendor: Vendor,
            url: str | None = None,
            *,
            connected: bool = True,
            eager_refresh: float | None = None,
            **options: Any,
        ) -> ProfileClient:
            shared = SharedCache(
                url or valkey.url,
                secrets=[SECRET],
                lease=LEASE,
                load_lease=0.3,
                timeout=1.0,
                eager_refresh=eager_refresh,
            )
            client = await stack.enter_async_context(ProfileClient(vendor.source(), shared=shared, **options))
            if connected:
                shared.backplane.start()  # as the first lookup would
                await until(lambda: shared.backplane.available)
            return client

        yield process


def shared_of(client: ProfileClient) -> Any:
    stats = client.stats().shared
    assert stats is not None
    return stats


class TestSecondLevel:
    async def test_S4_a_process_that_starts_is_warm(self, start: Process) -> None:
        vendor = Vendor()
        first = await start(vendor)
        assert (await first.get("u1"))["tier"] == "gold"
        await until(lambda: shared_of(first).stored >= 1)
        second = await start(vendor)
        calls = vendor.calls
        profile = await second.get("u1")
        assert (profile["name"], profile.id, vendor.calls - calls) == ("Ada Lovelace", "u1", 0)
        assert (await second.lookup("u1")).status is Status.HIT

    async def test_S4_the_first_lookup_waits_for_the_connection(self, start: Process) -> None:
        vendor = Vendor()
        first = await start(vendor)
        await first.get("u1")
        await until(lambda: shared_of(first).stored >= 1)
        second = await start(vendor, connected=False)
        calls = vendor.calls
        profiles = await asyncio.gather(*(second.get("u1") for _ in range(5)))
        assert (vendor.calls - calls, {profile["tier"] for profile in profiles}) == (0, {"gold"})
        assert (await second.lookup("u1")).status is Status.HIT

    async def test_S5_many_processes_make_one_call(self, start: Process) -> None:
        vendor = Vendor()
        processes = [await start(vendor) for _ in range(4)]
        vendor.seconds, vendor.calls = 0.15, 0
        profiles = await asyncio.gather(*(each.get("u1") for each in processes for _ in range(5)))
        assert vendor.calls == 1
        assert {profile["tier"] for profile in profiles} == {"gold"}

    async def test_S5_a_page_waits_for_another_process_no_longer_than_its_budget(self, start: Process) -> None:
        vendor = Vendor()
        first, second = await start(vendor), await start(vendor)
        vendor.seconds = 2.0
        loading = asyncio.create_task(first.get("u1"))
        await until(lambda: vendor.calls == 1)
        assert (await second.lookup("u1", budget=0.05)).status is Status.TIMEOUT
        await loading
        assert (await second.get("u1"))["tier"] == "gold"

    async def test_S5_when_the_holder_of_the_lease_dies_the_next_takes_over(
        self, start: Process, valkey: Valkey
    ) -> None:
        vendor = Vendor()
        client = await start(vendor)
        assert client._shared is not None
        held = await client._shared.take(client._loader.cache_key(ProfileKey("u1")))
        assert isinstance(held, LoadLease)
        assert held.timer is not None
        held.timer.cancel()  # its process is gone, so the lease is not renewed
        vendor.calls = 0
        began = time.monotonic()
        assert (await client.get("u1"))["tier"] == "gold"
        assert (vendor.calls, 0.1 < time.monotonic() - began < 20) == (1, True)

    async def test_S6_a_missing_profile_is_known_to_all(self, start: Process) -> None:
        vendor = Vendor()
        first = await start(vendor)
        assert not await first.get("u9")
        await until(lambda: shared_of(first).stored >= 1)
        second = await start(vendor)
        calls = vendor.calls
        assert (await second.get("u9")).reason is Reason.NOT_FOUND
        assert vendor.calls == calls

    async def test_S6_a_stale_answer_is_served_at_once_and_refreshed_by_one(self, start: Process) -> None:
        vendor = Vendor()
        first = await start(vendor, ttl=0.2, stale_ttl=60)
        await first.get("u1")
        await until(lambda: shared_of(first).stored >= 1)
        await asyncio.sleep(0.4)
        vendor.people["u1"] = {"tier": "silver"}
        vendor.seconds = 0.1
        processes = [await start(vendor, ttl=0.2, stale_ttl=60) for _ in range(3)]
        calls = vendor.calls
        found = [(await each.lookup("u1"))["tier"] for each in processes]
        assert found[0] == "gold"  # lookups that wait for the vendor get silver
        await until(lambda: vendor.calls == calls + 1)
        await asyncio.sleep(0.15)
        assert vendor.calls - calls <= 2  # one refresh; a second one after that result was stale, too

    async def test_S6_a_hot_key_is_refreshed_early_by_one_process(self, start: Process) -> None:
        vendor = Vendor()
        processes = [await start(vendor, ttl=4.0, eager_refresh=0.3) for _ in range(3)]
        for each in processes:
            await each.get("u1")
        await until(lambda: shared_of(processes[0]).stored + shared_of(processes[1]).stored >= 1)
        calls = vendor.calls
        lookups = 0
        while lookups < 20:  # after the first refresh
            assert {(await each.lookup("u1")).status for each in processes} == {Status.HIT}
            lookups += vendor.calls > calls
            await asyncio.sleep(0.02)
        assert 1 <= vendor.calls - calls <= 3

    async def test_S3_nothing_on_the_server_can_be_read(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        client = await start(vendor)
        await client.get("u1")
        await until(lambda: shared_of(client).stored >= 1)
        client.overlay("u1", {"cart": "a planted value"})
        client.invalidate(tag="planted tag")
        await client.acknowledged()
        names = [name for name in valkey.command("KEYS", "*").split(b"\r\n") if name and name[:1] not in b"*$"]
        assert len(names) > 4
        everything = b" ".join(names)
        for name in names:
            everything += valkey.command("DUMP", name) + valkey.command("GET", name) + valkey.command("HGETALL", name)
        for planted in (b"u1", b"Ada", b"gold", b"planted", b"cart", SECRET.encode()):
            assert planted not in everything, planted


class TestBackplane:
    async def test_S1_after_an_acknowledged_invalidation_no_process_serves_the_old_value(self, start: Process) -> None:
        vendor = Vendor()
        processes = [await start(vendor) for _ in range(3)]
        for each in processes:
            assert (await each.get("u1"))["tier"] == "gold"
        vendor.people["u1"] = {"tier": "silver"}
        processes[0].invalidate("u1")
        await processes[0].acknowledged()
        assert [(await each.get("u1"))["tier"] for each in processes] == ["silver"] * 3

    @pytest.mark.parametrize("how", ["tag", "clear", "rekey"])
    async def test_S1_tags_clearing_and_rekeying_reach_every_process(self, start: Process, how: str) -> None:
        vendor = Vendor()
        first, second = await start(vendor), await start(vendor)
        for each in (first, second):
            await each.get("u1")
        vendor.people["u1"] = {"tier": "silver"}
        if how == "clear":
            first.clear()
        elif how == "rekey":
            first.rekey("u0", "u1")
        else:
            second.invalidate(tag="nothing has it")
            first.invalidate("u1")
        await first.acknowledged()
        assert [(await each.get("u1"))["tier"] for each in (first, second)] == ["silver"] * 2

    async def test_S1_a_load_that_began_before_an_invalidation_is_stored_nowhere(self, start: Process) -> None:
        vendor = Vendor()
        first, second = await start(vendor), await start(vendor)
        vendor.seconds, calls = 0.2, vendor.calls
        loading = asyncio.create_task(first.get("u1"))
        await until(lambda: vendor.calls > calls)
        vendor.people["u1"] = {"tier": "silver"}
        second.invalidate("u1")
        await second.acknowledged()
        await loading
        await asyncio.sleep(0.05)
        third = await start(vendor)
        assert [(await each.get("u1"))["tier"] for each in (first, second, third)] == ["silver"] * 3

    async def test_S1_a_process_that_was_cut_off_serves_nothing_old(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        wire = Cuttable(valkey.port)
        first, second = await start(vendor), await start(vendor, wire.url)
        await second.get("u1")
        wire.stall()
        vendor.people["u1"] = {"tier": "silver"}
        began = time.monotonic()
        first.invalidate("u1")
        await first.acknowledged(timeout=5 * LEASE)
        assert time.monotonic() - began < 3 * LEASE
        assert (await second.get("u1"))["tier"] == "silver"
        wire.mend()
        await until(lambda: shared_of(second).available)
        assert (await second.get("u1"))["tier"] == "silver"
        wire.close()

    @pytest.mark.parametrize("cut_off", ["at the flush", "before it"])
    async def test_S1_a_flushed_server_forgets_who_has_to_acknowledge(
        self, start: Process, valkey: Valkey, cut_off: str
    ) -> None:
        vendor = Vendor()
        wire = Cuttable(valkey.port)
        first, second = await start(vendor), await start(vendor, wire.url)
        await second.get("u1")
        if cut_off == "at the flush":
            await asyncio.sleep(LEASE)  # the second one holds a lease, and an entry that is older than one
            wire.stall()
            await asyncio.sleep(0.05)
            valkey.command("FLUSHALL")
        else:
            wire.stall()
            await until(lambda: not shared_of(second).available)
            valkey.command("FLUSHALL")
            await until(lambda: shared_of(first).missed > 0)
            await asyncio.sleep(LEASE)
            assert (await second.get("u1"))["tier"] == "gold"  # may be served for the length of a lease
        vendor.people["u1"] = {"tier": "silver"}
        first.invalidate("u1")
        await first.acknowledged(timeout=10 * LEASE)
        assert (await second.get("u1"))["tier"] == "silver"
        wire.mend()
        wire.close()

    async def test_S1_a_process_that_does_not_answer_holds_up_no_message(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        wire = Cuttable(valkey.port)
        first, second = await start(vendor), await start(vendor)
        await start(vendor, wire.url)
        keys = [f"u{number}" for number in range(1, 6)]
        for key in keys:
            vendor.people[key] = {"tier": "gold"}
            await second.get(key)
            assert second.peek(key) is not None
        wire.stall()
        acknowledged = []
        for key in keys:
            first.invalidate(key)
            acknowledged.append(asyncio.create_task(first.acknowledged(timeout=10 * LEASE)))
            await until(lambda key=key: second.peek(key) is None)  # type: ignore[misc]
        assert not any(each.done() for each in acknowledged)
        await asyncio.gather(*acknowledged)
        assert shared_of(first).waiting == 0
        wire.mend()
        wire.close()

    async def test_S1_a_closed_client_keeps_nothing_that_others_may_change(self, start: Process) -> None:
        vendor = Vendor()
        first, second = await start(vendor), await start(vendor)
        await second.get("u1")
        await second.aclose()
        vendor.people["u1"] = {"tier": "silver"}
        first.invalidate("u1")
        await first.acknowledged(timeout=10 * LEASE)
        assert (await second.get("u1"))["tier"] == "silver"

    async def test_S1_a_process_that_was_cut_off_joins_no_load_from_before(
        self, start: Process, valkey: Valkey
    ) -> None:
        vendor = Vendor()
        wire = Cuttable(valkey.port)
        first, second = await start(vendor), await start(vendor, wire.url)
        wire.stall()
        await until(lambda: not shared_of(second).available)
        vendor.seconds = 4 * LEASE
        loading = asyncio.create_task(second.get("u1"))
        await until(lambda: second.stats().in_flight == 1)
        await asyncio.sleep(0.05)
        vendor.seconds = 0.0
        vendor.people["u1"] = {"tier": "silver"}
        first.invalidate("u1")
        await first.acknowledged(timeout=10 * LEASE)
        assert not loading.done()
        assert (await second.get("u1"))["tier"] == "silver"
        await loading
        wire.mend()
        wire.close()

    async def test_S1_a_missed_message_is_noticed_and_healed_by_dropping(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        wire = Cuttable(valkey.port)
        first, second = await start(vendor), await start(vendor, wire.url)
        await second.get("u1")
        wire.cut()
        vendor.people["u1"] = {"tier": "silver"}
        first.invalidate("u1")
        with contextlib.suppress(SharedCacheUnavailable):
            await first.acknowledged(timeout=5 * LEASE)
        wire.mend()
        await until(lambda: shared_of(second).missed > 0)
        assert (await second.get("u1"))["tier"] == "silver"
        wire.close()

    async def test_S7_read_your_writes_across_processes(self, start: Process) -> None:
        vendor = Vendor()
        first, second = await start(vendor), await start(vendor)
        await second.get("u1")
        first.overlay("u1", {"tier": "platinum"}, ttl=60)
        await first.acknowledged()
        assert (await second.get("u1"))["tier"] == "platinum"
        third = await start(vendor)
        assert (await third.get("u1"))["tier"] == "platinum"

    async def test_S8_an_erasure_removes_what_is_stored_and_says_so(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        client = await start(vendor)
        await client.get("u1")
        await until(lambda: shared_of(client).stored >= 1)
        assert b":entry" in valkey.command("KEYS", "*:entry")
        client.invalidate("u1")
        await client.acknowledged()
        assert b":entry" not in valkey.command("KEYS", "*:entry")


class TestItCanOnlyHelp:
    async def test_S2_without_a_server_lookups_go_on_as_without_it(self, start: Process) -> None:
        vendor = Vendor()
        client = await start(vendor, "redis://127.0.0.1:9/0", connected=False)
        assert (await client.get("u1"))["tier"] == "gold"
        assert (await client.lookup("u1")).status is Status.HIT
        client.invalidate("u1")
        with pytest.raises(SharedCacheUnavailable):
            await client.acknowledged(timeout=0.1)

    async def test_S2_a_server_that_goes_and_comes_back(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        client = await start(vendor)
        await client.get("u1")
        valkey.kill()
        for number in range(5):
            assert (await client.lookup(f"new{number}")).reason is Reason.NOT_FOUND
        vendor.people["u1"] = {"tier": "silver"}
        client.invalidate("u1")
        assert (await client.get("u1"))["tier"] == "silver"
        valkey.start()
        await client.acknowledged(timeout=10)
        await until(lambda: shared_of(client).available)
        assert (await client.get("u1"))["tier"] == "silver"

    async def test_S2_a_server_that_answers_nothing_costs_its_time_limit(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        wire = Cuttable(valkey.port)
        client = await start(vendor, wire.url)
        wire.stall()
        began = time.monotonic()
        assert (await client.lookup("u1"))["tier"] == "gold"
        assert time.monotonic() - began < 20
        wire.mend()
        wire.close()

    async def test_S2_a_server_that_answers_nothing_is_waited_for_once(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        wire = Cuttable(valkey.port)
        wire.stall()
        client = await start(vendor, wire.url, connected=False)
        assert (await client.lookup("u1"))["tier"] == "gold"
        assert (await client.lookup("u1")).status is Status.HIT
        assert client._shared is not None
        assert not client._shared.connecting
        wire.mend()
        wire.close()

    async def test_S2_garbage_is_no_answer(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        first = await start(vendor)
        await first.get("u1")
        await until(lambda: shared_of(first).stored >= 1)
        for line in valkey.command("KEYS", "*:entry").split(b"\r\n"):
            if line.endswith(b":entry"):
                valkey.command("SET", line, b"\x00garbage")
        second = await start(vendor)
        assert (await second.get("u1"))["tier"] == "gold"
        assert shared_of(second).refused >= 1

    async def test_S2_a_copy_of_another_keys_entry_is_refused(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        vendor.people["u2"] = {"tier": "bronze"}
        first = await start(vendor)
        await first.get("u1")
        await first.get("u2")
        await until(lambda: shared_of(first).stored >= 2)
        names = [line for line in valkey.command("KEYS", "*:entry").split(b"\r\n") if line.endswith(b":entry")]
        for source, target in zip(names, names[1:] + names[:1], strict=True):
            valkey.command("COPY", source, target, "REPLACE")
        second = await start(vendor)
        assert [(await second.get(key))["tier"] for key in ("u1", "u2")] == ["gold", "bronze"]

    async def test_S2_a_flushed_server_begins_anew(self, start: Process, valkey: Valkey) -> None:
        vendor = Vendor()
        first, second = await start(vendor), await start(vendor)
        await first.get("u1")
        valkey.command("FLUSHALL")
        vendor.people["u1"] = {"tier": "silver"}
        await until(lambda: shared_of(first).missed > 0 and shared_of(second).missed > 0)
        first.invalidate("u1")
        await first.acknowledged(timeout=5)
        assert [(await each.get("u1"))["tier"] for each in (first, second)] == ["silver"] * 2

    async def test_S2_the_vendor_may_be_down_when_the_second_level_is_not(self, start: Process) -> None:
        vendor = Vendor()
        first = await start(vendor)
        await first.get("u1")
        await until(lambda: shared_of(first).stored >= 1)
        second = await start(vendor)
        vendor.down = True
        for number in range(10):
            await second.lookup(f"x{number}")
        assert second.health().breaker == "open"
        assert (await second.get("u1"))["tier"] == "gold"
