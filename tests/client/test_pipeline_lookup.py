"""Lookups that wait for the rate limit, or for a source that fails temporarily."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from profile_enrich import (
    Breaker,
    CensusSource,
    CircuitOpen,
    ClientClosed,
    ConfigurationError,
    Found,
    InvalidKeyError,
    NotFound,
    ProfileClient,
    ProfileKey,
    RateLimit,
    RetryPolicy,
    SourceAuthError,
    SourceConnectionError,
    SourcePolicy,
    SourceRateLimited,
    SourceRequestError,
    SourceTimeout,
    SourceUnavailable,
    Status,
)
from profile_enrich.profile import Record
from profile_enrich.sources.base import SourceResult
from profile_enrich.testing import ManualClock, VendorServer, faults
from tests.helpers import own_tasks, until
from tests.pipeline.helpers import CountingBatches, CountingSource, client_for


def keys(count: int) -> list[str]:
    return [f"u{number}" for number in range(count)]


def always_failing(key: ProfileKey, call: int) -> SourceResult:
    raise SourceUnavailable("the vendor answered 503", status=503)


class TestLookupMany:
    async def test_answers_each_key_once_in_order_of_appearance(self) -> None:
        source = CountingSource()
        async with client_for(source) as client:
            profiles = await client.lookup_many(["u2", "u1", "u2", "nobody", ProfileKey("u9"), "u1"])
        assert list(profiles) == ["u2", "u1", "nobody", ProfileKey("u9")]
        assert [bool(profile) for profile in profiles.values()] == [True, True, False, True]
        assert set(source.calls.values()) == {1}

    async def test_a_key_that_cannot_be_looked_up_fails_alone(self) -> None:
        async with client_for(CountingSource()) as client:
            profiles = await client.lookup_many(["", "u1"])
        assert isinstance(profiles[""].error, InvalidKeyError)
        assert profiles["u1"]

    async def test_E2_calls_at_the_same_time_are_bounded_and_none_is_made_for_what_is_cached(self) -> None:
        source = CountingSource(delay=0.001)
        async with client_for(source) as client:
            await client.lookup_many(keys(50), concurrency=7)
            assert source.most_in_flight == 7
            await client.lookup_many(keys(50))
        assert source.calls.total() == 50

    async def test_E2_with_batches_calls_are_keys_by_batch_size(self) -> None:
        source = CountingBatches(turns=3)
        async with client_for(source) as client:
            profiles = await client.lookup_many(keys(1000))
            assert client.stats().source_calls == 10
        assert source.batches == [100] * 10
        assert len(profiles) == 1000
        assert all(profiles.values())

    @pytest.mark.parametrize("settings", [{"concurrency": 0}, {"retry_timeout": -1.0}])
    async def test_an_argument_that_makes_no_sense_is_named(self, settings: dict[str, Any]) -> None:
        async with client_for(CountingSource()) as client:
            with pytest.raises(ConfigurationError, match=next(iter(settings))):
                await client.lookup_many(["u1"], **settings)

    async def test_cancelling_it_leaves_no_task_and_the_loads_go_on(self) -> None:
        gate = asyncio.Event()

        class Gated(CountingSource):
            async def _take_time(self) -> None:
                await gate.wait()

        source = Gated()
        async with client_for(source) as client:
            waiting = asyncio.create_task(client.lookup_many(keys(10), concurrency=4))
            await until(lambda: source.calls.total() == 4)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert {task.get_name() for task in own_tasks()} == {"profile_enrich load"}
            gate.set()
            await until(lambda: client.stats().entries == 4)
        assert not own_tasks()

    def test_it_works_from_synchronous_code(self) -> None:
        with client_for(CountingSource()).blocking() as client:
            assert client.lookup_many(["u1", "nobody"], concurrency=2)["u1"]["tier"] == "gold"

    async def test_a_client_that_is_being_closed_is_an_error_of_the_run(self) -> None:
        client = client_for(CountingSource(delay=0.05))
        hung = asyncio.create_task(client.lookup("u2"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(client.aclose())
        await asyncio.sleep(0)
        with pytest.raises(ClientClosed):
            await client.lookup_many(["u1"])
        await closing
        await hung


class TestRateLimit:
    async def test_E3_the_limit_is_kept_and_waited_for(self) -> None:
        times: list[float] = []

        class AuditContext(RateLimit):
            def take(self, *, yields: bool = False) -> float:
                pause = super().take(yields=yields)
                if not pause:
                    times.append(time.monotonic())
                return pause

        source = CountingSource()
        async with client_for(source, rate_limit=AuditContext(200, burst=10)) as client:
            profiles = await client.lookup_many(keys(60))
            assert client.stats().lookups[Status.SKIPPED] == 0
        assert all(profiles.values())
        assert len(times) == source.calls.total() == 60
        for first, last in itertools.combinations(range(60), 2):
            # In any time span there are at most the burst plus the tokens that the rate adds.
            assert last - first + 1 <= 10 + 200 * (times[last] - times[first]) + 1

    async def test_E3_a_batch_costs_one_call(self) -> None:
        source = CountingBatches(size=10)
        async with client_for(source, rate_limit=RateLimit(100, burst=1)) as client:
            started = time.monotonic()
            assert all((await client.lookup_many(keys(60))).values())
        assert source.batches == [10] * 6
        assert time.monotonic() - started >= 0.04

    async def test_E3_a_repeated_call_is_paid_for(self) -> None:
        def once(key: ProfileKey, call: int) -> SourceResult:
            if call == 1:
                raise SourceConnectionError("the connection broke")
            return Found(Record({}))

        source = CountingSource(once)
        limit = RateLimit(1000, burst=5)
        retry = RetryPolicy(attempts=2, ratio=1.0, wait_initial=0.001)
        async with client_for(source, rate_limit=limit, retry=retry) as client:
            # Measured from before the first call, which may start a little after it takes its token.
            started = time.monotonic()
            assert all((await client.lookup_many(keys(20))).values())
        times = source.times
        assert len(times) == 40
        assert times[-1] - started >= (40 - 5) / 1000  # one token per millisecond

    async def test_E3_where_nothing_is_left_for_a_repeated_call_the_failure_stands(self) -> None:
        """A page does not wait for a token, neither for its first call nor for a second."""

        def failing(key: ProfileKey, call: int) -> SourceResult:
            raise SourceConnectionError("the connection broke")

        for source in (CountingSource(failing), CountingBatches(failing)):
            retry = RetryPolicy(attempts=2, ratio=1.0, wait_initial=0.001)
            async with client_for(source, rate_limit=RateLimit(0.01, burst=1), retry=retry) as client:
                assert isinstance((await client.lookup("u1")).error, SourceConnectionError)
            assert source.calls.total() == 1

    @pytest.mark.long
    async def test_E3_pages_never_wait_and_meet_no_load_that_stands_in_the_queue(self) -> None:
        source = CountingSource()
        async with client_for(source, rate_limit=RateLimit(2, burst=1)) as client:
            run = asyncio.create_task(client.lookup_many(["u1", "u2", "u3"]))
            await until(lambda: source.calls.total() == 1)
            page = await client.lookup("u3")
            assert page.status is Status.SKIPPED  # a page that waits half a second for a call has its profile
            assert all((await run).values())
            assert (await client.lookup("u3")).status is Status.HIT

    async def test_E3_the_queue_takes_what_a_page_has_loaded_meanwhile(self) -> None:
        source = CountingSource()
        clock = ManualClock()
        limit = RateLimit(10, burst=1, timer=clock)
        async with client_for(source, rate_limit=limit) as client:
            run = asyncio.create_task(client.lookup_many(["u1", "u2", "u3"]))
            await until(lambda: source.calls.total() == 1)
            clock.advance(0.1)
            assert (await client.lookup("u2")).status is Status.MISS
            clock.advance(0.1)
            profiles = await run
        assert all(profiles.values())
        assert source.calls == {"u1": 1, "u2": 1, "u3": 1}

    def test_E3_some_of_the_burst_is_left_to_those_who_do_not_wait(self) -> None:
        clock = ManualClock()
        limit = RateLimit(10, burst=20, timer=clock)
        taken = 0
        while not limit.take(yields=True):
            taken += 1
        assert taken == 18
        assert limit.take(yields=True) == pytest.approx(0.1)
        assert [limit.take(), limit.take()] == [0.0, 0.0]
        assert limit.take() > 0
        clock.advance(0.3)
        assert limit.take(yields=True) == 0.0

    def test_E3_a_burst_of_one_is_for_whoever_comes_first(self) -> None:
        clock = ManualClock()
        limit = RateLimit(10, burst=1, timer=clock)
        assert limit.take(yields=True) == 0.0
        assert limit.take(yields=True) == pytest.approx(0.1)


class TestAFailingSource:
    @pytest.mark.long
    async def test_E3_retry_after_makes_the_run_pause_and_lose_nothing(self) -> None:
        with VendorServer({key: {"tier": "gold"} for key in keys(30)}) as vendor:
            vendor.script(faults.Healthy(), *[faults.RateLimited(retry_after=1)] * 3)  # call 1 finds the entity
            source = CensusSource(api_key="secret", entity="Users", base_url=vendor.base_url, allow_insecure_http=True)
            async with ProfileClient(source, source_policy=SourcePolicy(retry=RetryPolicy(attempts=1))) as client:
                started = time.monotonic()
                profiles = await client.lookup_many(keys(30), concurrency=4)
            assert time.monotonic() - started >= 1.0
            assert all(profiles.values())
            assert vendor.call_count <= 1 + 30 + 4

    async def test_a_source_that_comes_back_is_waited_for(self) -> None:
        down = True

        def behaviour(key: ProfileKey, call: int) -> SourceResult:
            if down:
                raise SourceUnavailable("the vendor answered 503", status=503)
            return Found(Record({}))

        source = CountingSource(behaviour)
        async with client_for(source, breaker=Breaker(3, open_for=0.05, max_open=0.05)) as client:
            run = asyncio.create_task(client.lookup_many(keys(20), concurrency=4))
            await until(lambda: source.calls.total() > 4)  # the breaker has opened, and a trial has failed
            down = False
            profiles = await asyncio.wait_for(run, 30)
        assert all(profiles.values())
        assert source.calls.total() <= 20 + 3 + 4 + 4

    async def test_E10_no_key_is_given_up_unasked_while_the_breaker_is_open(self) -> None:
        bad = set(keys(30))
        source = CountingSource(lambda key, call: always_failing(key, call) if key.value in bad else Found(Record({})))
        async with client_for(source, breaker=Breaker(3, open_for=5, max_open=60)) as client:
            good = [f"good{number}" for number in range(200)]
            profiles = await asyncio.wait_for(client.lookup_many([*keys(30), *good], retry_timeout=0.2), 60)
        assert {type(profiles[key].error) for key in bad} == {SourceUnavailable}
        assert all(profiles[key] is not None and profiles[key].error is None for key in good)

    @pytest.mark.long
    async def test_E10_a_source_that_stays_down_is_asked_slowly_once_the_timeout_is_over(self) -> None:
        source = CountingSource(always_failing)
        async with client_for(source, breaker=Breaker(3, open_for=0.05, max_open=0.1)) as client:
            started = time.monotonic()
            profiles = await asyncio.wait_for(client.lookup_many(keys(40), concurrency=8, retry_timeout=2.0), 60)
            assert {type(profile.error) for profile in profiles.values()} == {SourceUnavailable}
            assert 40 <= source.calls.total() <= 10 * (time.monotonic() - started) + 40

            started = time.monotonic()  # the next caller does not wait again
            await client.lookup_many(["late"], retry_timeout=30.0)
            assert time.monotonic() - started < 20

    async def test_a_new_run_long_after_an_outage_waits_anew(self) -> None:
        clock = ManualClock()
        source = CountingSource(always_failing)
        breaker = Breaker(1, open_for=5, timer=clock)
        async with client_for(source, breaker=breaker, timer=clock) as client:
            assert isinstance((await client.lookup_many(["u1"], retry_timeout=1))["u1"].error, SourceUnavailable)
            assert isinstance((await client.lookup_many(["u2"], retry_timeout=1))["u2"].error, SourceUnavailable)
            clock.advance(8.5)
            source.behaviour = lambda key, call: Found(Record({}))
            run = asyncio.create_task(client.lookup_many(["u3"], retry_timeout=4))
            await asyncio.sleep(0.05)
            assert not run.done()
            clock.advance(2)
            assert (await asyncio.wait_for(run, 30))["u3"]

    async def test_a_pause_longer_than_the_retry_timeout_is_not_waited_out(self) -> None:
        def busy(key: ProfileKey, call: int) -> SourceResult:
            raise SourceRateLimited("too many requests", status=429, retry_after=30)

        async with client_for(CountingSource(busy)) as client:
            profiles = await asyncio.wait_for(client.lookup_many(keys(5), retry_timeout=25), 20)
        assert {type(profile.error) for profile in profiles.values()} <= {SourceRateLimited, CircuitOpen}

    @pytest.mark.parametrize("error", [SourceUnavailable, SourceConnectionError, SourceTimeout])
    async def test_one_key_that_always_fails_is_asked_three_times(self, error: type[Exception]) -> None:
        def behaviour(key: ProfileKey, call: int) -> SourceResult:
            if key.value == "u3":
                raise error("failed")
            return Found(Record({}))

        source = CountingSource(behaviour)
        async with client_for(source, retry=RetryPolicy(attempts=1)) as client:
            profiles = await client.lookup_many(keys(6))
        assert [key for key, profile in profiles.items() if not profile] == ["u3"]
        assert type(profiles["u3"].error) is error
        assert source.calls["u3"] == 3

    async def test_what_will_not_pass_is_not_repeated(self) -> None:
        def behaviour(key: ProfileKey, call: int) -> SourceResult:
            raise SourceRequestError("the vendor refused the request", status=422)

        source = CountingSource(behaviour)
        async with client_for(source) as client:
            assert isinstance((await client.lookup_many(["u1"]))["u1"].error, SourceRequestError)
        assert source.calls["u1"] == 1

    async def test_without_a_retry_timeout_nothing_is_repeated(self) -> None:
        source = CountingSource(always_failing)
        async with client_for(source, retry=RetryPolicy(attempts=1)) as client:
            await client.lookup_many(["u1"], retry_timeout=0)
        assert source.calls["u1"] == 1

    async def test_refused_credentials_end_it_at_once(self) -> None:
        def behaviour(key: ProfileKey, call: int) -> SourceResult:
            raise SourceAuthError("the vendor refused the key", status=401)

        source = CountingSource(behaviour)
        async with client_for(source) as client:
            with pytest.raises(SourceAuthError):
                await client.lookup_many(keys(100), concurrency=4)
            assert source.calls.total() <= 8
            assert not {task for task in own_tasks() if task.get_name() == "profile_enrich lookups"}

    async def test_a_stale_profile_stands_in_for_a_source_that_fails(self) -> None:
        """Pipelines use the client's own timeouts, as pages do."""
        clock = ManualClock()
        source = CountingSource()
        async with client_for(source, ttl=10, stale_ttl=0, max_stale=100, jitter=0, timer=clock) as client:
            await client.lookup_many(["u1"])
            clock.advance(50)
            source.behaviour = always_failing
            profile = (await client.lookup_many(["u1"], retry_timeout=0))["u1"]
        assert profile.status is Status.STALE
        assert profile["id"] == "u1"

    async def test_a_batch_that_fails_is_asked_again(self) -> None:
        def behaviour(key: ProfileKey, call: int) -> SourceResult:
            if call == 1:
                raise SourceUnavailable("the vendor answered 503", status=503)
            return NotFound() if key.value == "u5" else Found(Record({}))

        source = CountingBatches(behaviour, size=10)
        async with client_for(source, retry=RetryPolicy(attempts=1)) as client:
            profiles = await client.lookup_many(keys(30))
        assert [key for key, profile in profiles.items() if not profile] == ["u5"]
        assert profiles["u5"].error is None
        assert source.calls["u5"] == 2

    async def test_a_lookup_joins_a_load_that_a_page_has_started(self) -> None:
        source = CountingSource(delay=0.01)
        async with client_for(source) as client:
            page = asyncio.create_task(client.lookup("u1"))
            await asyncio.sleep(0)
            assert (await client.lookup_many(["u1"]))["u1"].status is Status.COALESCED
            assert (await page).status is Status.MISS
        assert source.calls.total() == 1
