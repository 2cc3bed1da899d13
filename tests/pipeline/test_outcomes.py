"""One outcome per record, regardless of failures."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import math
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from profile_enrich import (
    Breaker,
    ClientClosed,
    ConfigurationError,
    Found,
    InvalidKeyError,
    MissingKeyError,
    ProfileKey,
    Reason,
    Record,
    RetryPolicy,
    SourceAuthError,
    SourceUnavailable,
    Status,
)
from profile_enrich.pipeline import EnrichOptions, Outcome, key_of, outcomes
from profile_enrich.pipeline.records import queue as _queue
from profile_enrich.sources.base import SourceResult
from tests.helpers import own_tasks, until
from tests.pipeline.helpers import CountingBatches, CountingSource, as_stream, client_for, healthy, with_options

Row = dict[str, Any]

LOADS = {"profile_enrich load"}
"""What may still run after a run has ended: it belongs to the client."""


def rows(*keys: object) -> list[Row]:
    return [{"user_id": key, "n": number} for number, key in enumerate(keys)]


def zipf(records: int, keys: int) -> list[Row]:
    """Keys of which some are frequent and most are rare; the same in each run."""
    return rows(*(f"u{int(keys * ((number * 0.618034) % 1) ** 3)}" for number in range(records)))


async def all_of(given: Any, **settings: Any) -> list[Outcome[Any]]:
    return [outcome async for outcome in outcomes(given, **with_options({"key": "user_id", **settings}))]


async def collect(got: list[Outcome[Any]], given: Any, **settings: Any) -> None:
    """Append the outcomes to a list, which also holds them if the run fails."""
    run = outcomes(given, **with_options({"key": "user_id", **settings})) if settings else given
    async for outcome in run:
        got.append(outcome)


class TestEachRecord:
    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_E1_as_many_come_out_as_went_in(self, stream: bool, ordered: bool) -> None:
        source = CountingSource(turns=2)
        given = zipf(5000, 800)
        async with client_for(source) as client:
            got = await all_of(as_stream(given, None) if stream else given, client=client, ordered=ordered)
        assert sorted(outcome.position for outcome in got) == list(range(5000))
        assert all(outcome.row is given[outcome.position] for outcome in got)
        assert all(outcome.profile is not None and outcome.profile["id"] == outcome.row["user_id"] for outcome in got)
        if ordered:
            assert [outcome.position for outcome in got] == list(range(5000))
        assert set(source.calls.values()) == {1}

    async def test_E1_a_missing_profile_is_no_problem(self) -> None:
        async with client_for(CountingSource()) as client:
            (outcome,) = await all_of(rows("nobody"), client=client)
        assert outcome.problem is None
        assert outcome.profile is not None
        assert outcome.profile.reason is Reason.NOT_FOUND

    async def test_E1_what_has_no_key_or_an_unusable_one_says_so(self) -> None:
        given: list[Any] = [*rows(None, "", math.nan, True, 2.5, b"u1", "u" * 3000, ["u1"]), {}, 7]
        async with client_for(CountingSource()) as client:
            got = await all_of(given, client=client)
        assert [type(outcome.problem) for outcome in got] == [MissingKeyError] * 3 + [InvalidKeyError] * 5 + [
            MissingKeyError
        ] * 2
        assert all(outcome.profile is None for outcome in got)

    async def test_E1_a_source_that_fails_for_one_key_fails_its_records_only(self) -> None:
        def behaviour(key: ProfileKey, call: int) -> SourceResult:
            if key.value == "bad":
                raise SourceUnavailable("the vendor answered 503", status=503)
            return healthy(key, call)

        async with client_for(CountingSource(behaviour)) as client:
            got = await all_of(rows("bad", "u1", "bad", "u2"), client=client)
        assert [outcome.problem is None for outcome in got] == [False, True, False, True]
        assert isinstance(got[0].problem, SourceUnavailable)

    async def test_E1_a_failure_that_is_remembered_is_a_problem(self) -> None:
        def behaviour(key: ProfileKey, call: int) -> SourceResult:
            raise SourceUnavailable("the vendor answered 503", status=503)

        source = CountingSource(behaviour)
        async with client_for(source, error_ttl=60, retry=RetryPolicy(attempts=1)) as client:
            await client.lookup("u1")
            (outcome,) = await all_of(rows("u1"), client=client)
        assert isinstance(outcome.problem, SourceUnavailable)
        assert source.calls["u1"] == 1

    async def test_E1_what_the_input_raises_comes_after_the_records_before_it(self) -> None:
        def broken() -> Iterator[Row]:
            yield from rows("u1", "u2")
            raise OSError("the disk is gone")

        for given in (broken, lambda: as_stream(broken())):
            got: list[Outcome[Any]] = []
            async with client_for(CountingSource(turns=3)) as client:
                with pytest.raises(OSError, match="the disk is gone"):
                    await collect(got, given(), client=client)
            assert len(got) == 2

    async def test_E1_a_cancellation_of_the_input_is_no_end_of_it(self) -> None:
        async def cancelled() -> AsyncIterator[Row]:
            yield rows("u1")[0]
            raise asyncio.CancelledError

        got: list[Outcome[Any]] = []
        async with client_for(CountingSource()) as client:
            with pytest.raises(asyncio.CancelledError):
                await collect(got, cancelled(), client=client)
        assert len(got) == 1

    async def test_E1_no_records_no_outcomes(self) -> None:
        async with client_for(CountingSource()) as client:
            assert await all_of([], client=client) == []
            assert await all_of(as_stream([]), client=client) == []

    def test_its_repr_shows_neither_the_record_nor_the_profile(self) -> None:
        shown = repr(Outcome(3, {"email": "ada@example.com"}, problem=MissingKeyError("the record has no key")))
        assert shown == "<Outcome 3: missing_key>"


class TestCalls:
    async def test_E2_ten_thousand_records_of_one_key_make_one_call(self) -> None:
        source = CountingSource(delay=0.02)
        async with client_for(source) as client:
            got = await all_of(rows(*["u1"] * 10_000), client=client)
        assert len(got) == 10_000
        assert source.calls == {"u1": 1}

    async def test_E2_calls_are_bounded_and_there_is_no_task_a_record(self) -> None:
        source = CountingSource(delay=0.001)
        most = 0
        async with client_for(source) as client:
            async for _ in outcomes(
                zipf(3000, 400), client=client, key="user_id", options=EnrichOptions(concurrency=5)
            ):
                most = max(most, len(asyncio.all_tasks()))
        assert source.most_in_flight == 5
        assert most <= 2 * 5 + 2

    async def test_E2_with_batches_calls_are_keys_by_batch_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_queue, "_GATHER", 600.0)  # however slow this machine is
        source = CountingBatches(turns=2)
        given = rows(*(f"u{number}" for number in range(2000)), *(f"u{number}" for number in range(2000)))
        async with client_for(source) as client:
            await all_of(given, client=client, window=5000)
            assert client.stats().source_calls == 20
        assert source.batches == [100] * 20

    @pytest.mark.parametrize("stream", [True, False])
    async def test_E2_a_key_does_not_wait_long_for_others_to_fill_its_batch(self, stream: bool) -> None:
        source = CountingBatches()
        async with client_for(source) as client:
            given = rows(*(f"u{number}" for number in range(2000)))

            read = 0

            def counted() -> Iterator[Row]:
                nonlocal read
                for row in given:
                    read += 1
                    yield row

            def blocking() -> Iterator[Row]:
                for row in counted():
                    time.sleep(0.03)
                    yield row

            async for _ in outcomes(as_stream(counted(), 0.03) if stream else blocking(), client=client, key="user_id"):
                break
            assert read < 2000, "the first came before the last was read"

    async def test_E2_what_is_in_the_cache_waits_for_nothing(self) -> None:
        source = CountingSource(delay=5)
        async with client_for(source) as client:
            source.delay = 0
            await client.lookup_many(["u1", "u2", "nobody"])
            source.delay = 60
            started = time.monotonic()
            got = await all_of(rows("u1", "nobody", "u2"), client=client)
            assert time.monotonic() - started < 20
        assert [outcome.profile.status for outcome in got if outcome.profile is not None] == [
            Status.HIT,
            Status.NEGATIVE,
            Status.HIT,
        ]

    async def test_E4_it_shares_the_cache_and_the_load_of_a_page(self) -> None:
        source = CountingSource(delay=0.01)
        async with client_for(source) as client:
            page = asyncio.create_task(client.lookup("u1"))
            await asyncio.sleep(0)
            await all_of(rows("u1", "u2"), client=client)
            assert (await page)["id"] == "u1"
            assert (await client.lookup("u2")).status is Status.HIT
        assert source.calls.total() == 2

    async def test_E4_the_clients_counters_see_its_lookups(self) -> None:
        async with client_for(CountingSource()) as client:
            await all_of(rows("u1"), client=client)
            await all_of(rows("u1", "u1", "nobody"), client=client)
            lookups = client.stats().lookups
        assert (lookups[Status.MISS], lookups[Status.HIT]) == (2, 2)


class TestWindow:
    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_E2_a_slow_consumer_slows_the_producer(self, stream: bool, ordered: bool) -> None:
        read = taken = most = 0

        def source_rows() -> Iterator[Row]:
            nonlocal read
            for row in zipf(2000, 500):
                read += 1
                yield row

        async with client_for(CountingSource(turns=1)) as client:
            given: Any = as_stream(source_rows(), None) if stream else source_rows()
            async for _ in outcomes(
                given, client=client, key="user_id", options=EnrichOptions(window=50, ordered=ordered)
            ):
                taken += 1
                most = max(most, read - taken)
                if taken % 100 == 0:
                    await asyncio.sleep(0.002)
        assert taken == 2000
        assert most <= 50

    async def test_E2_records_behind_a_slow_key_count_too(self) -> None:
        gate = asyncio.Event()
        read = 0

        class Slow(CountingSource):
            async def _take_time(self) -> None:
                await gate.wait()

        def same_key() -> Iterator[Row]:
            nonlocal read
            for row in rows(*["hot"] * 500):
                read += 1
                yield row

        async with client_for(Slow()) as client:
            run = asyncio.create_task(all_of(same_key(), client=client, window=20, ordered=False))
            await until(lambda: read >= 20)
            await asyncio.sleep(0.02)
            assert read == 20
            gate.set()
            assert len(await run) == 500

    async def test_E1_unordered_lets_no_record_wait_for_a_slower_one(self) -> None:
        others_are_done = asyncio.Event()

        class OneSlow(CountingSource):
            async def fetch(self, key: ProfileKey, **settings: Any) -> SourceResult:
                if key.value == "slow":
                    await others_are_done.wait()
                return await super().fetch(key, **settings)

        got: list[str] = []
        async with client_for(OneSlow()) as client:
            given = rows("slow", *(f"u{number}" for number in range(50)))
            async for outcome in outcomes(
                given, **with_options({"key": "user_id", "client": client, "ordered": False})
            ):
                got.append(str(outcome.row["user_id"]))
                if len(got) == 50:
                    others_are_done.set()
        assert got[50:] == ["slow"]

    async def test_a_finished_record_does_not_wait_for_the_next_of_a_slow_input(self) -> None:
        gate = asyncio.Event()

        async def slowly() -> AsyncIterator[Row]:
            yield rows("u1")[0]
            await gate.wait()
            yield rows("u2")[0]

        async with client_for(CountingSource()) as client:
            run = outcomes(slowly(), client=client, key="user_id")
            first = await asyncio.wait_for(anext(run), 20)
            assert first.row["user_id"] == "u1"
            gate.set()
            assert [outcome.row["user_id"] async for outcome in run] == ["u2"]

    @pytest.mark.parametrize("stream", [True, False])
    async def test_others_on_the_loop_get_their_turn(self, stream: bool) -> None:
        """A run of cache hits must not block the pages of the same process."""
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        async with client_for(CountingSource()) as client:
            await client.lookup_many(["u1"])
            beating = asyncio.create_task(heart())
            given = rows(*["u1"] * 20_000)
            await all_of(as_stream(given, None) if stream else given, client=client)
            beating.cancel()
        assert beats > 5


class TestEnd:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("ordered", [True, False])
    async def test_E1_an_early_break_leaves_no_task(self, ordered: bool, stream: bool) -> None:
        source = CountingSource(delay=0.001)
        async with client_for(source) as client:
            given = zipf(5000, 5000)
            async for _ in outcomes(
                as_stream(given) if stream else given,
                client=client,
                key="user_id",
                options=EnrichOptions(ordered=ordered),
            ):
                break
            gc.collect()
            async with asyncio.timeout(30):
                while not {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}} <= LOADS:
                    await asyncio.sleep(0.001)
        assert not own_tasks()
        assert source.calls.total() < 200

    async def test_E1_aclose_ends_it_at_once(self) -> None:
        source = CountingSource(delay=0.01)
        async with client_for(source) as client:
            run = outcomes(as_stream(zipf(5000, 5000), None), client=client, key="user_id")
            await anext(run)
            await run.aclose()
            assert {task.get_name() for task in own_tasks()} <= LOADS

    async def test_a_cancelled_consumer_leaves_no_task(self) -> None:
        source = CountingSource(delay=60)
        async with client_for(source, close_timeout=0.01) as client:
            run = asyncio.create_task(all_of(as_stream(zipf(100, 100)), client=client))
            await until(lambda: source.calls.total() > 0)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            assert {task.get_name() for task in own_tasks()} == LOADS

    async def test_E1_refused_credentials_end_the_run_at_once(self) -> None:
        def refused(key: ProfileKey, call: int) -> SourceResult:
            raise SourceAuthError("the vendor refused the key", status=401)

        source = CountingSource(refused)
        got: list[Outcome[Any]] = []
        async with client_for(source) as client:
            with pytest.raises(SourceAuthError):
                await collect(got, zipf(5000, 3000), client=client, concurrency=4)
        assert got == []
        assert source.calls.total() <= 8

    async def test_a_client_that_is_closed_meanwhile_ends_the_run(self) -> None:
        client = client_for(CountingSource(delay=0.001))
        run = outcomes(as_stream(zipf(5000, 5000)), client=client, key="user_id")
        await anext(run)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await collect([], run)


class TestKeys:
    @pytest.mark.parametrize(
        ("value", "key"),
        [
            ("u1", "u1"),
            (" u1 ", " u1 "),
            (7, "7"),
            (ProfileKey("a@b.example", type="email"), ProfileKey("a@b.example", type="email")),
            (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ],
    )
    def test_what_is_a_key(self, value: object, key: object) -> None:
        assert key_of(value) == key

    def test_numbers_of_other_libraries_are_keys(self) -> None:
        class Int64:
            def __index__(self) -> int:
                return 12

        class Array:
            def __index__(self) -> int:
                raise TypeError("only an array of one element is a number")

        assert key_of(Int64()) == "12"
        with pytest.raises(InvalidKeyError, match="Array"):
            key_of(Array())

    def test_missing_values_of_pandas_are_no_key(self) -> None:
        for name in ("NAType", "NaTType"):
            with pytest.raises(MissingKeyError):
                key_of(type(name, (), {})())

    async def test_an_object_has_its_key_in_an_attribute(self) -> None:
        @dataclasses.dataclass
        class Purchase:
            user_id: str

        class Visit(NamedTuple):
            user_id: int

        async with client_for(CountingSource()) as client:
            got = await all_of([Purchase("u1"), Visit(5)], client=client)
        assert [outcome.profile and outcome.profile["id"] for outcome in got] == ["u1", "5"]

    async def test_a_function_finds_the_key(self) -> None:
        async with client_for(CountingSource()) as client:
            got = await all_of([("u1", 1), ("u2", 2)], client=client, key=lambda row: row[0])
        assert [outcome.profile and outcome.profile["id"] for outcome in got] == ["u1", "u2"]

    async def test_a_function_that_fails_is_named_without_its_text(self) -> None:
        def wrong(row: Row) -> object:
            if row["n"] == 0:
                raise InvalidKeyError("not that one")
            raise ValueError(f"cannot parse {row['user_id']}")

        async with client_for(CountingSource()) as client:
            first, second = await all_of(rows("u1", "ada@example.com"), client=client, key=wrong)
        assert str(first.problem) == "not that one"
        assert str(second.problem) == "the key function raised ValueError"
        assert second.problem is not None
        assert second.problem.__context__ is None


class TestArguments:
    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"client": object()}, "client"),
            ({"key": 5}, "key"),
            ({"key": ""}, "key"),
            ({"window": 0}, "window"),
            ({"concurrency": 0}, "concurrency"),
            ({"retry_timeout": -1}, "retry_timeout"),
        ],
    )
    def test_a_wrong_one_is_named_before_anything_is_read(self, wrong: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            outcomes([], **with_options({"client": client_for(CountingSource()), "key": "user_id", **wrong}))

    def test_rows_must_be_iterable(self) -> None:
        with pytest.raises(ConfigurationError, match="rows"):
            outcomes(5, client=client_for(CountingSource()), key="user_id")  # type: ignore[arg-type]  # on purpose


async def test_E1_a_breaker_that_opens_in_the_middle_loses_nothing() -> None:
    failures = 0

    def flaky(key: ProfileKey, call: int) -> SourceResult:
        nonlocal failures
        if failures < 12 and int(key.value[1:]) % 7 == 3:
            failures += 1
            raise SourceUnavailable("the vendor answered 503", status=503)
        return Found(Record({"id": key.value}))

    source = CountingSource(flaky, turns=1)
    given = rows(*(f"u{number}" for number in range(300)))
    async with client_for(source, breaker=Breaker(2, open_for=0.02, max_open=0.02)) as client:
        got = await all_of(given, client=client)
    assert [outcome.position for outcome in got] == list(range(300))
    assert all(outcome.profile for outcome in got)
