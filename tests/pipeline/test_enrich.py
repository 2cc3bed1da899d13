"""`enrich` and `enrich_blocking`: records in, enriched records out."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import logging
import pickle
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from profile_enrich import (
    CensusSource,
    ConfigurationError,
    Excluded,
    Found,
    NotFound,
    ProfileClient,
    ProfileKey,
    ProfileMissing,
    RateLimit,
    Record,
    RetryPolicy,
    SourceAuthError,
    SourceUnavailable,
    TooManyErrors,
    enrich,
    enrich_blocking,
)
from profile_enrich.errors import InputError
from profile_enrich.pipeline import DeadLetter, EnrichOptions, Progress
from profile_enrich.pipeline.records import queue as _queue
from profile_enrich.sources.base import SourceResult
from profile_enrich.testing import VendorServer, faults
from tests.helpers import own_records, own_tasks, with_policies
from tests.pipeline.helpers import CountingBatches, CountingSource, as_stream, client_for, with_options

Row = dict[str, Any]

PEOPLE: dict[str, Row] = {
    "u1": {"tier": "gold", "ltv": 1.5, "address": {"city": "Oslo", "lines": ["a", "b"]}},
    "u2": {"tier": "silver"},
}


def behaviour(key: ProfileKey, call: int) -> SourceResult:
    if key.value == "bad":
        raise SourceUnavailable("the vendor answered 503", status=503)
    if key.value == "refused":
        raise SourceAuthError("the vendor refused the key", status=401)
    if key.value == "excluded":
        return Excluded()
    return Found(Record(PEOPLE[key.value])) if key.value in PEOPLE else NotFound()


def people(**settings: Any) -> ProfileClient:
    return client_for(CountingSource(behaviour), **{"retry": RetryPolicy(attempts=1), **settings})


def of(*keys: object) -> list[Row]:
    return [{"user_id": key} for key in keys]


async def enriched(given: Any, **settings: Any) -> list[Row]:
    async with people() as client:
        return [row async for row in enrich(given, **with_options({"client": client, "key": "user_id", **settings}))]


class TestShape:
    async def test_the_profile_goes_into_one_field(self) -> None:
        given = [{"user_id": "u1", "n": 1}, {"user_id": "u9", "n": 2}]
        assert await enriched(given) == [
            {"user_id": "u1", "n": 1, "profile": PEOPLE["u1"]},
            {"user_id": "u9", "n": 2, "profile": None},
        ]
        assert given == [{"user_id": "u1", "n": 1}, {"user_id": "u9", "n": 2}], "the records are not changed"

    async def test_fields_are_chosen_and_null_where_they_are_not(self) -> None:
        got = await enriched(of("u1", "u2", "u9"), fields=["ltv", "tier"], into="customer")
        assert [row["customer"] for row in got] == [{"ltv": 1.5, "tier": "gold"}, {"ltv": None, "tier": "silver"}, None]

    async def test_a_prefix_makes_columns_that_are_always_there(self) -> None:
        got = await enriched(of("u2", "u9", None), fields=["tier", "ltv"], prefix="profile_")
        assert got == [
            {"user_id": "u2", "profile_tier": "silver", "profile_ltv": None},
            {"user_id": "u9", "profile_tier": None, "profile_ltv": None},
            {"user_id": None, "profile_tier": None, "profile_ltv": None},
        ]

    async def test_without_fields_a_prefix_makes_columns_of_what_there_is(self) -> None:
        assert await enriched(of("u2", "u9"), prefix="") == [{"user_id": "u2", "tier": "silver"}, {"user_id": "u9"}]

    async def test_values_are_plain_and_belong_to_the_row(self) -> None:
        first, second = await enriched(of("u1", "u1"), fields=["address"])
        first["profile"]["address"]["lines"].append("c")
        assert second["profile"]["address"] == {"city": "Oslo", "lines": ["a", "b"]}

    async def test_the_records_own_fields_win_and_that_is_counted_and_said_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        given = [{"user_id": "u1", "tier": "mine"}, {"user_id": "u2", "tier": None}, {"user_id": "u2"}]
        async with people() as client:
            run = enrich(given, client=client, key="user_id", fields=["tier", "ltv"], prefix="")
            got = [row async for row in run]
        assert [row["tier"] for row in got] == ["mine", None, "silver"]
        assert [row["ltv"] for row in got] == [1.5, None, None]
        assert run.progress.clashes == 2
        assert [record.getMessage() for record in own_records(caplog) if "already" in record.getMessage()] == [
            "records have a field 'tier' already; theirs is kept, the profile's is left out"
        ]

    async def test_objects_become_dicts_of_their_fields(self) -> None:
        @dataclasses.dataclass
        class Purchase:
            user_id: str
            amount: float

        class Visit(NamedTuple):
            user_id: str

        class Click(msgspec.Struct):
            user_id: str

        class Plain:
            def __init__(self) -> None:
                self.user_id = "u2"
                self._secret = 1

        got = await enriched([Purchase("u2", 3.5), Visit("u2"), Click("u2"), Plain()], fields=["tier"], prefix="")
        assert got == [{"user_id": "u2", "amount": 3.5, "tier": "silver"}, *[{"user_id": "u2", "tier": "silver"}] * 3]

    async def test_what_has_no_fields_is_refused(self) -> None:
        with pytest.raises(InputError, match="type int has no fields"):
            await enriched([5])

    async def test_an_attribute_that_no_profile_has_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        await enriched(of("u1", "u2"), fields=["tier", "teir", "ltv"])
        assert "no profile of this run has the attribute 'teir'; see fields" in caplog.text


class TestMissing:
    @pytest.mark.parametrize(
        ("settings", "keys"),
        [
            ({}, ["u1", "u9", None, "excluded", "u2"]),
            ({"on_missing": "drop"}, ["u1", "u2"]),
            ({"on_missing": "dead_letter"}, ["u1", "u2"]),
        ],
    )
    async def test_E1_what_becomes_of_records_without_a_profile(self, settings: Row, keys: list[Any]) -> None:
        given = of("u1", "u9", None, "excluded", "u2")
        async with people() as client:
            run = enrich(given, client=client, key="user_id", **with_options(settings))
            got = [row async for row in run]
        assert [row["user_id"] for row in got] == keys
        seen = run.progress
        assert (seen.rows, seen.enriched, seen.missing, seen.keyless, seen.errors) == (5, 2, 2, 1, 0)
        assert seen.passed + seen.dropped + seen.dead_letters == 5
        letters = [(letter.position, letter.code) for letter in run.dead_letters]
        rejected = settings.get("on_missing") == "dead_letter"
        assert letters == ([(1, "not_found"), (2, "missing_key"), (3, "excluded")] if rejected else [])

    async def test_E1_raise_names_the_record(self) -> None:
        with pytest.raises(ProfileMissing, match="record 1, counted from 0: the source has no such profile"):
            await enriched(of("u1", "u9"), on_missing="raise")
        with pytest.raises(ProfileMissing, match="record 0, counted from 0: the record has no key"):
            await enriched(of(None), on_missing="raise")

    @pytest.mark.parametrize("count", [3, 1500])
    async def test_a_key_that_no_record_has_is_said_once(self, count: int, caplog: pytest.LogCaptureFixture) -> None:
        await enriched(of("u1") * count, key="userid")
        messages = [record.getMessage() for record in own_records(caplog)]
        assert messages == [f"none of the first {min(count, 1000)} records has a key; is the key's name right?"]


class TestErrors:
    async def test_E1_a_failed_record_is_a_dead_letter_with_its_reason(self) -> None:
        async with people() as client:
            run = enrich(of("u1", "bad", 2.5, "u2"), client=client, key="user_id")
            got = [row["user_id"] async for row in run]
        assert got == ["u1", "u2"]
        assert [(letter.position, letter.row, letter.code) for letter in run.dead_letters] == [
            (1, {"user_id": "bad"}, "source_unavailable"),
            (2, {"user_id": 2.5}, "invalid_key"),
        ]
        assert run.dead_letters[0].message == "the vendor answered 503 (status 503)"
        assert "user_id" not in repr(run.dead_letters[0])
        assert run.progress.failures == {"source_unavailable": 1, "invalid_key": 1}
        assert pickle.loads(pickle.dumps(run.progress)) == run.progress

    async def test_E1_null_passes_it_on(self) -> None:
        assert await enriched(of("bad"), on_error="null") == [{"user_id": "bad", "profile": None}]

    async def test_E1_raise_ends_the_run_and_names_the_record(self) -> None:
        with pytest.raises(SourceUnavailable) as raised:
            await enriched(of("u1", "bad"), on_error="raise")
        assert raised.value.__notes__ == ["at record 1, counted from 0"]

    @pytest.mark.parametrize(
        ("max_errors", "failing", "ends"),
        [(0.01, 10, False), (0.01, 11, True), (0.0, 1, True), (0, 1, True), (3, 3, False), (3, 4, True)],
    )
    async def test_E1_too_many_errors_end_the_run(self, max_errors: float, failing: int, ends: bool) -> None:
        given = of(*["u1"] * 50, *[b"?"] * failing)
        if not ends:
            assert len(await enriched(given, max_errors=max_errors)) == 50
            return
        with pytest.raises(
            TooManyErrors, match=rf"{failing} of {50 + failing} records failed \(invalid_key {failing}\)"
        ):
            await enriched(given, max_errors=max_errors)

    async def test_E1_a_fraction_counts_the_records_so_far(self) -> None:
        given = of(*["u1"] * 5000, *[b"?"] * 50)
        assert len(await enriched(given, max_errors=0.01)) == 5000
        with pytest.raises(TooManyErrors):
            await enriched([*given, *of(b"?")], max_errors=0.01)

    async def test_E1_refused_credentials_end_the_run_whatever_is_allowed(self) -> None:
        with pytest.raises(SourceAuthError):
            await enriched(of("refused"), max_errors=1.0, on_error="null")

    async def test_E1_dead_letters_go_to_a_function_a_list_or_a_coroutine(self) -> None:
        got: list[DeadLetter] = []

        async def later(letter: DeadLetter) -> None:
            await asyncio.sleep(0)
            got.append(letter)

        for taker in (got, got.append, later):
            await enriched(of("bad", "u1"), dead_letter=taker)
        assert [letter.code for letter in got] == ["source_unavailable"] * 3

    async def test_E1_a_taker_that_fails_ends_the_run(self) -> None:
        def full(letter: DeadLetter) -> None:
            raise OSError("the disk is full")

        with pytest.raises(OSError, match="the disk is full"):
            await enriched(of("bad"), dead_letter=full)

    async def test_E2_dead_letters_in_memory_are_bounded(self) -> None:
        with pytest.raises(TooManyErrors, match="more than 10 dead letters"):
            await enriched(of(*["u9"] * 50), window=10, on_missing="dead_letter")


class TestProgress:
    async def test_E4_the_summary_adds_up(self) -> None:
        async with people() as client:
            run = enrich(of("u1", "u1", "u9", "bad", None, "u1"), client=client, key="user_id")
            assert run.progress.seconds == 0.0
            assert [row async for row in run]
        seen = run.progress
        assert (seen.rows, seen.enriched, seen.missing, seen.errors, seen.keyless) == (6, 3, 1, 1, 1)
        assert (seen.lookups, seen.passed, seen.dead_letters, seen.held, seen.done) == (3, 5, 1, 0, True)
        assert seen.source_calls == 5, "two keys once, one key three times"
        assert seen.rate == pytest.approx(6 / seen.seconds)
        assert repr(run) == "<Enrichment, 6 records>"

    async def test_it_is_told_now_and_then_also_while_nothing_moves_and_at_the_end(self) -> None:
        told: list[Progress] = []

        class UntilTold(CountingSource):
            async def _take_time(self) -> None:
                while len(told) < 2:
                    await asyncio.sleep(0.001)

        async with client_for(UntilTold(behaviour)) as client:
            run = enrich(of("u1"), client=client, key="user_id", progress=told.append, progress_every=0.01)
            assert [row async for row in run]
        assert len(told) >= 3
        assert (told[0].rows, told[0].held, told[0].done) == (0, 1, False)
        assert (told[-1].rows, told[-1].done) == (1, True)

    async def test_a_function_that_fails_is_logged_and_left_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(progress: Progress) -> None:
            raise ValueError("planted")

        assert len(await enriched(of("u1"), progress=broken)) == 1
        assert "the progress function raised ValueError; the run continues without it" in caplog.text
        assert "planted" not in caplog.text


class TestLife:
    async def test_E1_an_early_break_leaves_no_task(self) -> None:
        async with people() as client:
            async for _ in enrich(as_stream(of("u1") * 5000), client=client, key="user_id", progress=lambda _: None):
                break
            gc.collect()
            async with asyncio.timeout(30):
                while asyncio.all_tasks() != {asyncio.current_task()}:
                    await asyncio.sleep(0.001)
        assert not own_tasks()

    async def test_aclose_ends_it(self) -> None:
        async with people() as client:
            run = enrich(as_stream(of("u1") * 50), client=client, key="user_id")
            assert (await anext(run))["user_id"] == "u1"
            await run.aclose()
            assert not own_tasks()
            assert run.progress.done
            assert [row async for row in run] == []

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"fields": "tier"}, "fields"),
            ({"fields": []}, "fields"),
            ({"fields": [""]}, "fields"),
            ({"into": ""}, "into"),
            ({"prefix": 5}, "prefix"),
            ({"into": "a", "prefix": "b"}, "not both"),
            ({"options": {"window": 5}}, "options must be EnrichOptions"),
            ({"on_missing": "skip"}, "on_missing"),
            ({"on_error": "drop"}, "on_error"),
            ({"max_errors": -1}, "max_errors"),
            ({"max_errors": 1.5}, "max_errors"),
            ({"max_errors": True}, "max_errors"),
            ({"dead_letter": 5}, "dead_letter"),
            ({"progress": 5}, "progress"),
            ({"progress_every": 0}, "progress_every"),
            ({"key": None}, "key"),
            ({"client": None}, "client"),
            ({"rows": 5}, "rows"),
        ],
    )
    def test_a_wrong_argument_is_named_at_once(self, wrong: Row, named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            enrich(**with_options({"rows": [], "client": people(), "key": "user_id", **wrong}))
        if "client" not in wrong:
            with people().blocking() as client, pytest.raises(ConfigurationError, match=named):
                enrich_blocking(**with_options({"rows": [], "client": client, "key": "user_id", **wrong}))


class TestBlocking:
    @pytest.mark.parametrize("ordered", [True, False])
    def test_E1_as_many_come_out_as_went_in(self, ordered: bool) -> None:
        source = CountingSource(turns=2)
        given = [{"user_id": f"u{number % 700}", "n": number} for number in range(5000)]
        with client_for(source).blocking() as client:
            run = enrich_blocking(
                given, client=client, key="user_id", options=EnrichOptions(ordered=ordered, window=300)
            )
            got = list(run)
        assert sorted(row["n"] for row in got) == list(range(5000))
        assert all(row["profile"]["id"] == row["user_id"] for row in got)
        assert set(source.calls.values()) == {1}
        if ordered:
            assert [row["n"] for row in got] == list(range(5000))
        assert (run.progress.rows, run.progress.done) == (5000, True)
        assert repr(run) == "<BlockingEnrichment, 5000 records>"

    def test_E2_a_slow_consumer_slows_the_producer(self) -> None:
        read = taken = 0

        def counted() -> Iterator[Row]:
            nonlocal read
            for row in of("u1", "u2", "u9") * 100:
                read += 1
                yield row

        with people().blocking() as client:
            for _ in enrich_blocking(counted(), client=client, key="user_id", options=EnrichOptions(window=16)):
                taken += 1
                assert read - taken < 16
        assert taken == 300

    def test_records_are_read_and_dead_letters_taken_in_the_calling_thread(self) -> None:
        threads: set[int] = set()

        def noted() -> Iterator[Row]:
            threads.add(threading.get_ident())
            yield from of("u1", "bad")

        def take(letter: DeadLetter) -> None:
            threads.add(threading.get_ident())

        told: list[Progress] = []
        with people().blocking() as client:
            rows = enrich_blocking(
                noted(), client=client, key="user_id", dead_letter=take, progress=told.append, progress_every=1e-9
            )
            assert [row["user_id"] for row in rows] == ["u1"]
        assert threads == {threading.get_ident()}
        assert told[-1].done

    def test_E1_what_the_input_raises_comes_after_the_records_before_it(self) -> None:
        def broken() -> Iterator[Row]:
            yield from of("u1", "u2")
            raise OSError("the disk is gone")

        got: list[Row] = []
        with people().blocking() as client:
            run = enrich_blocking(broken(), client=client, key="user_id")
            with pytest.raises(OSError, match="the disk is gone"):
                got.extend(iter(run))
            assert run.progress.rows == 2
            assert run.dead_letters == []

    def test_E1_leaving_it_early_ends_it(self) -> None:
        source = CountingSource(delay=0.01)
        with client_for(source).blocking() as client:
            run = enrich_blocking(of(*range(500)), client=client, key="user_id", options=EnrichOptions(concurrency=2))
            assert next(run)["user_id"] == 0
            run.close()
            assert run.progress.done
            for _ in enrich_blocking(
                of(*range(500)), client=client, key="user_id", options=EnrichOptions(concurrency=2)
            ):
                break
        assert source.calls.total() < 20

    def test_E1_a_client_that_is_closed_meanwhile_is_no_hang(self) -> None:
        client = client_for(CountingSource(delay=0.01)).blocking()
        run = enrich_blocking(of(*range(500)), client=client, key="user_id", options=EnrichOptions(concurrency=2))
        next(run)
        client.close()
        run.close()

    def test_it_wants_a_blocking_client(self) -> None:
        with pytest.raises(ConfigurationError, match=r"profiles\.blocking\(\)"):
            enrich_blocking([], client=people(), key="user_id")  # type: ignore[arg-type]  # on purpose


class TestAgainstAVendor:
    """Each fault gives the right output over real HTTP."""

    @pytest.fixture
    def vendor(self) -> Iterator[VendorServer]:
        with VendorServer({f"u{number}": {"tier": "gold"} for number in range(60)}) as running:
            yield running

    def client(self, vendor: VendorServer, **settings: Any) -> ProfileClient:
        source = CensusSource(api_key="secret", entity="Users", base_url=vendor.base_url, allow_insecure_http=True)
        client = ProfileClient(source, **with_policies({"deadline": 30.0, **settings}))
        client._waiting._rng = lambda: 0.01
        return client

    @pytest.mark.long
    async def test_E1_each_fault_lands_in_the_right_place(self, vendor: VendorServer) -> None:
        async with self.client(vendor, deadline=3.0) as client:
            await client.get("u0")
            vendor.script(faults.ServerError(), key="u1")
            vendor.script(faults.Reset("in_body"), key="u2")
            vendor.script(faults.RateLimited(retry_after=1), key="u3")
            vendor.script(faults.Hang(), key="u4")
            vendor.always(faults.ServerError(), key="u5")
            vendor.always(faults.Respond(status=422), key="u6")
            vendor.always(faults.Garbage(), key="u7")
            given = of(*(f"u{number}" for number in range(60)), "nobody", None)
            run = enrich(given, client=client, key="user_id", fields=["tier"], options=EnrichOptions(concurrency=8))
            got = [row async for row in run]
        assert [row["user_id"] for row in got] == [
            row["user_id"] for row in given if row["user_id"] not in ("u5", "u6", "u7")
        ]
        assert all(row["profile"] == {"tier": "gold"} for row in got[:-2])
        assert [row["profile"] for row in got[-2:]] == [None, None]
        assert [letter.code for letter in run.dead_letters] == [
            "source_unavailable",
            "source_request",
            "source_response",
        ]

    async def test_E1_a_revoked_key_ends_the_run_at_once(self, vendor: VendorServer) -> None:
        async with self.client(vendor) as client:
            await client.get("u0")
            vendor.always(faults.Unauthorized())
            with pytest.raises(SourceAuthError):
                [
                    row
                    async for row in enrich(
                        of(*range(1000)), client=client, key="user_id", options=EnrichOptions(concurrency=4)
                    )
                ]
        assert vendor.call_count < 30

    async def test_E3_the_rate_is_kept_on_the_wire(self, vendor: VendorServer) -> None:
        async with self.client(vendor, rate_limit=RateLimit(100, burst=5)) as client:
            given = of(*(f"u{number}" for number in range(60))) * 3
            run = enrich(given, client=client, key="user_id")
            assert len([row async for row in run if row["profile"]]) == 180
        assert run.progress.source_calls == run.progress.lookups == 60
        assert run.progress.seconds >= (60 - 5) / 100


async def test_E2_with_batches_calls_are_keys_by_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_queue, "_GATHER", 600.0)  # however slow this machine is
    source = CountingBatches()
    async with client_for(source) as client:
        run = enrich(of(*range(1000)) * 3, client=client, key="user_id", options=EnrichOptions(window=3000))
        assert len([row async for row in run]) == 3000
    assert run.progress.lookups == 1000
    assert run.progress.source_calls == 10


def test_nothing_of_it_logs_what_the_records_hold(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with people().blocking() as client:
        list(enrich_blocking(of("bad", "planted@example.com", 2.5), client=client, key="user_id"))
    assert "planted" not in caplog.text


@pytest.mark.parametrize("function", [enrich, enrich_blocking, EnrichOptions])
def test_every_option_is_documented_with_its_default(function: Any) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "pipelines.md").read_text(encoding="utf-8")
    heading = "### `EnrichOptions`" if function is EnrichOptions else "## Options of"
    section = re.split(r"\n##+ ", page.split(heading, 1)[1], maxsplit=1)[0]
    written = dict(re.findall(r"^\| `(\w+)` \| `?(.+?)`? \|", section, re.MULTILINE))
    parameters = list(inspect.signature(function).parameters.values())[function is not EnrichOptions :]
    assert written == {
        each.name: "required" if each.default is each.empty else repr(each.default).replace("'", '"')
        for each in parameters
    }
