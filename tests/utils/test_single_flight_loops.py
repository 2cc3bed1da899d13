"""Loads on several event loops, and after a fork."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from profile_enrich import ClientClosed, ProfileEnrichError
from profile_enrich._utils import single_flight
from tests.helpers import settle
from tests.utils.test_single_flight import FunctionLoad, Table, launch, seven


def test_L9_each_loop_has_flights_of_its_own() -> None:
    """L9: safe across event loops: a load belongs to one, and closing from elsewhere ends it there."""
    loads = Table()
    started, outcome = threading.Event(), []

    async def hang(this: FunctionLoad) -> int:
        this.start_deadline()
        started.set()
        await asyncio.Event().wait()
        return 7

    async def other() -> None:
        load = launch(loads, hang)
        try:
            await load.wait(None)
        except ClientClosed as error:
            outcome.append(error)

    async def close() -> None:
        assert loads.find("a") is None
        assert loads.count == 1
        await loads.aclose(0.01)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    assert started.wait(30)
    asyncio.run(close())
    thread.join(30)
    assert len(outcome) == 1
    loads.forget()
    assert loads.count == 0


def test_L9_closing_on_one_loop_reaches_all_others() -> None:
    """L9: also loops that joined after the loop that closes the table."""
    loads = Table()
    started, outcome = threading.Event(), list[BaseException]()

    async def hang(this: FunctionLoad) -> int:
        this.start_deadline()
        started.set()
        await asyncio.Event().wait()
        return 7

    async def other() -> None:
        try:
            await launch(loads, hang).wait(60.0)
        except ProfileEnrichError as error:
            outcome.append(error)

    async def first() -> None:
        assert await launch(loads, seven).wait(None) == 7
        thread = threading.Thread(target=asyncio.run, args=(other(),))
        thread.start()
        await asyncio.to_thread(started.wait, 30)
        await loads.aclose(0.01)
        await asyncio.to_thread(thread.join, 30)

    asyncio.run(first())
    assert [type(error) for error in outcome] == [ClientClosed]


def test_L14_closing_waits_for_the_end_of_calls_on_other_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """L14: closing waits for the clean-up of cancelled calls on other threads' loops, and no longer."""
    monkeypatch.setattr(single_flight, "GRACE", 40.0)
    loads = Table()
    started, closed, under_way = threading.Barrier(4), threading.Event(), set[tuple[int, str]]()

    async def hang(this: FunctionLoad) -> int:
        this.start_deadline()
        call = (threading.get_ident(), this.key)
        under_way.add(call)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)  # like a connection that is returned to its pool
            under_way.discard(call)
        return 7

    async def other() -> None:
        for key in "abc":
            launch(loads, hang, key, 60.0)
        await settle(3)
        started.wait(20)
        await asyncio.to_thread(closed.wait, 60)

    threads = [threading.Thread(target=asyncio.run, args=(other(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait(20)
    began = time.monotonic()
    asyncio.run(loads.aclose(0.01))
    assert not under_way
    assert time.monotonic() - began < 20
    closed.set()
    for thread in threads:
        thread.join(20)


def test_L14_closing_does_not_wait_for_a_call_on_another_loop_that_ignores_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(single_flight, "GRACE", 0.05)
    loads = Table()
    started, closed = threading.Event(), threading.Event()

    async def ignore(this: FunctionLoad) -> int:
        this.start_deadline()
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.to_thread(closed.wait, 60)
        return 7

    async def other() -> None:
        with contextlib.suppress(ClientClosed):
            await launch(loads, ignore, "a", 60.0).wait(None)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    assert started.wait(20)
    asyncio.run(asyncio.wait_for(loads.aclose(0.01), 20))
    closed.set()
    thread.join(20)


async def test_L14_closing_cancels_all_late_calls_of_its_loop() -> None:
    loads = Table()

    async def hang(this: FunctionLoad) -> int:
        this.start_deadline()
        await asyncio.Event().wait()
        return 7

    late = [launch(loads, hang, key, 60.0) for key in "abc"]
    await settle(3)
    await loads.aclose(0.01)
    assert [load.task is not None and load.task.cancelled() for load in late] == [True] * 3


async def test_L1_a_load_that_has_ended_is_not_kept() -> None:
    """L1: … also when another load of its key has replaced it."""
    loads, gate = Table(), asyncio.Event()

    async def wait(this: FunctionLoad) -> int:
        this.start_deadline()
        await gate.wait()
        return 7

    older, newer = launch(loads, wait), launch(loads, seven)
    assert await newer.wait(None) == 7
    await settle(3)
    assert not any(state.by_key for _, state in loads._all())
    newest = launch(loads, wait)
    gate.set()
    assert await older.wait(None) == 7
    assert await newest.wait(None) == 7
    await settle(3)
    assert not any(state.by_key or state.running for _, state in loads._all())


def test_L14_a_loop_that_its_own_thread_closes_in_that_moment_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """L14: closing tolerates a loop that has just ended."""
    loads, other = Table(), asyncio.new_event_loop()

    async def hang(this: FunctionLoad) -> int:
        this.start_deadline()
        await asyncio.Event().wait()
        return 7

    async def begin() -> None:
        launch(loads, hang)
        await settle(1)

    def closed(*_: object) -> None:
        raise RuntimeError("Event loop is closed")

    other.run_until_complete(begin())
    with monkeypatch.context() as patch:
        patch.setattr(other, "call_soon_threadsafe", closed)
        asyncio.run(loads.aclose(0.01))
    other.run_until_complete(loads.aclose(0.0))
    assert loads.count == 0
    other.close()


def test_A9_a_forked_child_starts_with_an_empty_table() -> None:
    """A9: the loads of the parent are not the child's, nor is a lock that a thread of the parent held."""
    loads = Table()
    loads._lock.acquire()
    loads.forget()

    async def main() -> int:
        return await launch(loads, seven).wait(None)

    assert asyncio.run(main()) == 7
