"""Batching: lookups of different keys share one call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from profile_enrich import (
    BatchSource,
    InvalidKeyError,
    NotFound,
    ProfileKey,
    RateLimit,
    SourceConnectionError,
    SourceError,
    SourceResponseError,
    Status,
)
from profile_enrich._utils.deadline import Deadline
from profile_enrich.sources.base import SourceResult
from tests.helpers import ScriptedSource, client_of, found, own_tasks, settle


class ScriptedBatchSource(ScriptedSource):
    """Answers many keys at once."""

    def __init__(self, size: int = 100) -> None:
        super().__init__()
        self.batch_size = size
        self.batches: list[list[str]] = []
        self.error: Exception | None = None
        self.left_out: set[str] = set()

    async def fetch_many(self, keys: Sequence[ProfileKey], *, deadline: Deadline) -> Mapping[ProfileKey, SourceResult]:
        self.batches.append([key.value for key in keys])
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {
            key: NotFound() if key.value.startswith("no") else found(id=key.value)
            for key in keys
            if key.value not in self.left_out
        }


async def test_L13_different_keys_within_one_window_become_one_call() -> None:
    """L13: lookups of different keys made within one window become one upstream call."""
    source = ScriptedBatchSource()
    assert isinstance(source, BatchSource)
    client = client_of(source)
    profiles = await asyncio.gather(*(client.get(key) for key in ("a", "b", "nobody", "a")))
    assert source.batches == [["a", "b", "nobody"]]
    assert [profile.get("id") for profile in profiles] == ["a", "b", None, "a"]
    assert [profile.status for profile in profiles] == [Status.MISS] * 3 + [Status.COALESCED]
    assert source.calls == []
    assert client.stats().source_calls == 1
    assert (await client.get("nobody")).status is Status.NEGATIVE


async def test_L13_a_single_get_joins_a_batch_in_flight() -> None:
    """L13: a single get can join a batch in flight."""
    source = ScriptedBatchSource()
    source.gate = asyncio.Event()
    client = client_of(source, batch_window=0.0)
    many = asyncio.create_task(client.get_many(["a", "b"]))
    while not source.batches:
        await settle()
    single = asyncio.create_task(client.get("b"))
    await settle()
    source.gate.set()
    assert (await single).status is Status.COALESCED
    await many
    assert source.batches == [["a", "b"]]


async def test_L13_a_batch_is_as_large_as_the_source_takes() -> None:
    """L13: … where the source has a batch endpoint."""
    source = ScriptedBatchSource(size=10)
    await client_of(source, batch_window=5.0, max_in_flight=1).get_many(
        [str(index) for index in range(30)], concurrency=100
    )
    assert [len(batch) for batch in source.batches] == [10, 10, 10]


async def test_a_batch_takes_one_of_the_rate_limit() -> None:
    source = ScriptedBatchSource()
    client = client_of(source, rate_limit=RateLimit(0.001, burst=1))
    profiles = await client.get_many(["a", "b", "c"])
    assert [profile.found for profile in profiles.values()] == [True] * 3
    assert (await client.lookup("d")).status is Status.SKIPPED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SourceConnectionError("down"), SourceConnectionError),
        (InvalidKeyError("no such type"), InvalidKeyError),
        (RuntimeError("alice@example.com"), SourceError),
    ],
)
async def test_L1_a_failure_reaches_all_of_a_batch(error: Exception, expected: type[Exception]) -> None:
    """L1: every waiter gets its own copy of the error."""
    source = ScriptedBatchSource()
    source.error = error
    profiles = await client_of(source).get_many(["a", "b"])
    errors = [profile.error for profile in profiles.values()]
    assert [type(item) for item in errors] == [expected] * 2
    assert errors[0] is not errors[1]
    assert "alice" not in repr(errors)


async def test_an_answer_without_a_key_fails_that_key_only() -> None:
    source = ScriptedBatchSource()
    source.left_out = {"b"}
    profiles = await client_of(source).get_many(["a", "b"])
    assert profiles["a"].found
    assert isinstance(profiles["b"].error, SourceResponseError)


async def test_L2_a_cancelled_caller_takes_nothing_from_the_others() -> None:
    """L2: cancelling any waiter never cancels the load."""
    source = ScriptedBatchSource()
    source.gate = asyncio.Event()
    client = client_of(source, batch_window=0.0)
    callers = [asyncio.create_task(client.get(key)) for key in ("a", "b")]
    while not source.batches:
        await settle()
    callers[0].cancel()
    await settle()
    source.gate.set()
    assert (await callers[1])["id"] == "b"
    await settle()
    assert (await client.get("a")).status is Status.HIT


async def test_L14_closing_ends_a_batch_under_way() -> None:
    """L14: closing leaves no task."""
    source = ScriptedBatchSource()
    source.gate = asyncio.Event()
    client = client_of(source, batch_window=0.0, close_timeout=0.01, deadline=30.0)
    caller = asyncio.create_task(client.lookup("a"))
    while not source.batches:
        await settle()
    await client.aclose()
    assert (await caller).status is Status.ERROR
    await settle()
    assert own_tasks() == set()


def test_L14_closing_ends_a_batch_under_way_on_another_loop() -> None:
    """L14: also if the loop runs in another thread, and its call ends late."""
    started, ended = threading.Event(), threading.Event()

    class Slow(ScriptedBatchSource):
        async def fetch_many(self, keys: Sequence[ProfileKey], *, deadline: Deadline) -> Any:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                ended.set()

    client = client_of(Slow(), batch_window=0.0, close_timeout=0.01, deadline=30.0)

    async def other() -> None:
        await client.lookup("a")
        await asyncio.to_thread(ended.wait, 30)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    assert started.wait(30)
    asyncio.run(client.aclose())
    assert ended.is_set()
    thread.join(30)
