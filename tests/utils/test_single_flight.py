"""Unit tests of single flight."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable

import pytest

from profile_enrich import (
    BudgetExceeded,
    ClientClosed,
    ConfigurationError,
    ProfileEnrichError,
    SourceConnectionError,
    SourceError,
    SourceTimeout,
)
from profile_enrich._utils.process_stall import StandstillWatch
from profile_enrich._utils.single_flight import MAX_EXCUSES, Load, SingleFlight
from tests.helpers import own_tasks, settle

CLOSED = r"^the lookup was ended because the client or its event loop was closed$"


class FunctionLoad(Load[str, int]):
    """A load by a function. It records how it ended."""

    def __init__(self, work: Callable[[FunctionLoad], Awaitable[int]], key: str = "a", seconds: float = 5.0) -> None:
        super().__init__(key, seconds)
        self.work = work
        self.ends: list[ProfileEnrichError | None] = []

    async def run(self) -> int:
        return await self.work(self)

    def on_complete(self, error: ProfileEnrichError | None) -> None:
        self.ends.append(error)


Table = SingleFlight[FunctionLoad]


def launch(
    loads: Table, work: Callable[[FunctionLoad], Awaitable[int]], key: str = "a", seconds: float = 5.0
) -> FunctionLoad:
    return loads.start(FunctionLoad(work, key, seconds))


async def seven(this: FunctionLoad) -> int:
    this.start_deadline()
    await asyncio.sleep(0)
    return 7


async def test_L1_all_who_wait_get_the_one_result() -> None:
    """L1: one load, shared by its waiters; its key is free afterwards."""
    loads = Table()
    load = launch(loads, seven)
    assert load.key == "a"
    assert loads.find("a") is load
    assert loads.count == 1
    assert await asyncio.gather(*(load.wait(None) for _ in range(100))) == [7] * 100
    assert load.ends == [None]
    assert loads.find("a") is None
    assert loads.count == 0
    assert await load.wait(0.0) == 7, "a complete lookup needs no waiting"


async def test_L1_each_waiter_gets_an_error_of_its_own() -> None:
    """L1: with a failing upstream every waiter gets the error."""

    async def fail(this: FunctionLoad) -> int:
        this.start_deadline()
        raise SourceConnectionError("down", request_id="r1")

    load = launch(Table(), fail)
    errors = await asyncio.gather(*(load.wait(None) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [SourceConnectionError] * 3
    assert len({id(error) for error in errors}) == 3
    assert {error.request_id for error in errors if isinstance(error, SourceConnectionError)} == {"r1"}


async def test_L2_cancelled_waiters_cancel_nothing() -> None:
    """L2: cancelling the first waiter, any waiter or all waiters never cancels the load."""
    gate = asyncio.Event()
    cancelled = []

    async def work(this: FunctionLoad) -> int:
        this.start_deadline()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise
        return 7

    loads = Table()
    load = launch(loads, work)
    waiters = [asyncio.create_task(load.wait(None)) for _ in range(100)]
    await settle()
    waiters[0].cancel()
    await settle()
    assert waiters[0].cancelled()
    gate.set()
    assert await asyncio.gather(*waiters[1:]) == [7] * 99
    assert cancelled == []


async def test_L2_all_waiters_gone_and_the_load_still_ends() -> None:
    """L2: … or all waiters."""
    gate = asyncio.Event()

    async def work(this: FunctionLoad) -> int:
        this.start_deadline()
        await gate.wait()
        return 7

    loads = Table()
    load = launch(loads, work)
    waiters = [asyncio.create_task(load.wait(None)) for _ in range(3)]
    await settle()
    for waiter in waiters:
        waiter.cancel()
    await settle()
    assert all(waiter.cancelled() for waiter in waiters), "CancelledError is never swallowed"
    assert loads.find("a") is load
    gate.set()
    await settle()
    assert load.ends == [None]


async def test_L3_a_budget_ends_the_wait_only() -> None:
    """L3: the page continues, and so does the load."""
    gate = asyncio.Event()

    async def work(this: FunctionLoad) -> int:
        this.start_deadline()
        await gate.wait()
        return 7

    load = launch(Table(), work)
    with pytest.raises(BudgetExceeded, match=r"0\.01 s"):
        await load.wait(0.01)
    assert load._waiters == {}, "cancelled waiters are released, even if the load continues"
    gate.set()
    assert await load.wait(30.0) == 7


async def test_L3_a_hung_load_frees_its_key_by_the_deadline() -> None:
    """L3: a hung upstream frees its key by the load's deadline, and a later result is not counted."""
    gate = asyncio.Event()

    async def work(this: FunctionLoad) -> int:
        this.start_deadline()
        await gate.wait()
        return 7

    loads = Table()
    load = launch(loads, work, seconds=0.02)
    with pytest.raises(SourceTimeout, match=r"0\.02 s"):
        await load.wait(None)
    assert loads.find("a") is None
    gate.set()
    await settle()
    assert [type(error) for error in load.ends] == [SourceTimeout]


async def test_L3_one_that_never_ends_is_cancelled_after_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: nothing is kept for ever."""
    monkeypatch.setattr("profile_enrich._utils.single_flight.GRACE", 0.02)
    cancelled = asyncio.Event()

    async def work(this: FunctionLoad) -> int:
        this.start_deadline()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 7

    loads = Table()
    load = launch(loads, work, seconds=0.01)
    with pytest.raises(SourceTimeout):
        await load.wait(None)
    assert not cancelled.is_set(), "it has its grace"
    await asyncio.wait_for(cancelled.wait(), 30)
    await settle()
    assert own_tasks() == set()


async def test_a_newer_flight_takes_the_place_of_an_older_one() -> None:
    gate = asyncio.Event()

    async def slow(this: FunctionLoad) -> int:
        this.start_deadline()
        await gate.wait()
        return 1

    loads = Table()
    older = launch(loads, slow)
    newer = launch(loads, seven)
    assert loads.find("a") is newer
    assert await newer.wait(None) == 7
    gate.set()
    assert await older.wait(None) == 1
    assert loads.count == 0


async def test_A18_an_unexpected_error_is_passed_on_without_its_text() -> None:
    """A18: any exception of a source may quote the key."""

    async def work(this: FunctionLoad) -> int:
        this.start_deadline()
        raise RuntimeError("alice@example.com")

    load = launch(Table(), work)
    with pytest.raises(SourceError, match="unexpected RuntimeError") as raised:
        await load.wait(None)
    assert "alice" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


async def test_L9_a_load_runs_in_a_fresh_context() -> None:
    """L9: user A's context is never used for user B's load."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    async def work(this: FunctionLoad) -> int:
        this.start_deadline()
        seen.append(user.get())
        return 7

    user.set("alice")
    await launch(Table(), work).wait(None)
    assert seen == ["nobody"]


@pytest.mark.long
async def test_L14_closing_waits_then_cancels() -> None:
    """L14: closing waits a bounded time for loads, and leaves no task."""

    async def hang(this: FunctionLoad) -> int:
        this.start_deadline()
        await asyncio.Event().wait()
        return 7

    loads = Table()
    quick = launch(loads, seven, "quick")
    hung = launch(loads, hang, "hung")
    waiter = asyncio.create_task(hung.wait(None))
    await settle(1)
    await asyncio.wait_for(loads.aclose(0.02), 30)
    assert await quick.wait(None) == 7
    with pytest.raises(ClientClosed, match=CLOSED):
        await waiter
    await settle()
    assert own_tasks() == set()
    assert loads.count == 0
    await Table().aclose(0.01)


@pytest.mark.long
async def test_L14_a_flight_cancelled_before_its_first_step_tells_its_waiters() -> None:
    """L14: no caller waits for a load that cannot complete."""
    loads = Table()
    load = launch(loads, seven)
    for task in own_tasks():
        task.cancel()
    with pytest.raises(ClientClosed, match=CLOSED):
        await load.wait(30.0)


def test_without_a_running_loop_it_says_what_it_needs() -> None:
    with pytest.raises(ConfigurationError, match=r"^profile_enrich needs a running asyncio event loop$"):
        Table().find("a")


async def test_a_load_knows_its_time_and_its_task_has_a_name_to_find_it_by() -> None:
    seen: list[tuple[float, str]] = []

    async def work(this: FunctionLoad) -> int:
        deadline = this.start_deadline()
        assert this.start_deadline() is deadline
        task = asyncio.current_task()
        assert task is not None
        seen.append((deadline.seconds, task.get_name()))
        return 7

    assert await launch(Table(), work, seconds=3.0).wait(None) == 7
    assert seen == [(3.0, "profile_enrich load")]


@pytest.mark.long
async def test_a_load_that_was_cancelled_ends_as_cancelled_and_leaves_nothing() -> None:
    """A cancelled load leaves no unretrieved exception, and no task in the table."""
    loads, complaints = Table(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def hang(this: FunctionLoad) -> int:
        this.start_deadline()
        await asyncio.Event().wait()
        return 7

    load = launch(loads, hang)
    await settle(1)
    (task,) = own_tasks()
    task.cancel()
    with pytest.raises(ClientClosed):
        await load.wait(30.0)
    await settle()
    assert task.cancelled()
    assert [state.running for state in loads._states.values()] == [set()]
    assert complaints == []


@pytest.mark.long
async def test_L14_closing_waits_no_longer_than_a_grace_for_a_load_that_will_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """L14: closing takes a bounded time, regardless of the source."""
    monkeypatch.setattr("profile_enrich._utils.single_flight.GRACE", 0.02)
    released = asyncio.Event()

    async def stubborn(this: FunctionLoad) -> int:
        this.start_deadline()
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        return 7

    loads = Table()
    launch(loads, stubborn)
    await settle(1)
    try:
        await asyncio.wait_for(loads.aclose(0.01), 30)
    finally:
        released.set()
    await settle()
    assert own_tasks() == set()


class StallOnDemand(StandstillWatch):
    """A stall watch with scripted stalls."""

    lost = 2.0

    def start(self) -> float:
        super().start()
        return self.lost

    def seconds(self) -> float:
        return self.lost


async def test_A27_each_stall_extends_the_deadline_once_and_only_a_few_times() -> None:
    """A27: only the stalls since the last extension count, and a process that always stalls does not wait for ever."""
    load, watch = FunctionLoad(seven, seconds=60.0), StallOnDemand()
    assert not load.excuse_standstill()
    load.watch = watch
    assert not load.excuse_standstill()  # the call to the source has not begun
    deadline = load.start_deadline()
    assert not load.excuse_standstill()  # stalls before the call do not count
    for number in range(1, MAX_EXCUSES + 1):
        watch.lost += 100.0
        assert load.excuse_standstill()
        assert not load.excuse_standstill()
        assert load.excused == 100.0 * number
        assert 59.0 + 100.0 * (number - 1) < deadline.remaining() <= 60.0 + 100.0 * number
        assert deadline.remaining() > 100.0 * number
    watch.lost += 100.0
    assert not load.excuse_standstill()
    assert load.excused == 100.0 * MAX_EXCUSES
    load.stop_deadline()
    assert load.watch is None


async def test_A27_the_first_time_limit_is_void_after_a_stall() -> None:
    """A27: the load ends at the extended deadline, neither at the first one nor never."""
    watch = StallOnDemand()
    load = FunctionLoad(seven, seconds=0.02)
    load.watch = watch
    started = asyncio.get_running_loop().time()
    load.start_deadline()
    watch.lost += 0.3
    assert load.excuse_standstill()
    with pytest.raises(SourceTimeout):
        await load.wait(None)
    assert asyncio.get_running_loop().time() - started > 0.3
    load.stop_deadline()
