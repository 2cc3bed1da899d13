"""Rows are read in a thread: completely, in order, without blocking the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from profile_enrich.pipeline.records.thread_reader import iterate_in_thread


async def test_all_rows_come_in_order() -> None:
    assert [row async for row in iterate_in_thread(range(10_000), ahead=7)] == list(range(10_000))


async def test_the_loop_runs_while_the_input_waits() -> None:
    go = threading.Event()

    def rows() -> Iterator[int]:
        yield 1
        go.wait(30)
        yield 2

    read = iterate_in_thread(rows())
    assert await anext(read) == 1
    second = asyncio.ensure_future(anext(read))
    for _ in range(3):
        await asyncio.sleep(0.01)
    assert not second.done()
    go.set()
    assert await second == 2
    assert [row async for row in read] == []


async def test_it_does_not_read_far_ahead() -> None:
    taken = 0

    def rows() -> Iterator[int]:
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield taken

    read = iterate_in_thread(rows(), ahead=5)
    assert await anext(read) == 1
    await asyncio.sleep(0.05)
    assert taken <= 7  # five queued, one delivered, and one that the thread holds
    await read.aclose()


async def test_what_the_rows_raise_comes_after_the_rows_before_it() -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    read = iterate_in_thread(rows())
    assert await anext(read) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(read)


async def test_left_early_its_thread_ends() -> None:
    read = iterate_in_thread(iter(range(10**9)), ahead=3)
    assert await anext(read) == 0
    await read.aclose()
    for _ in range(3000):
        if not any(thread.name == "profile_enrich input" for thread in threading.enumerate()):
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("its thread is still there")


def test_a_loop_that_was_closed_meanwhile_is_no_error() -> None:
    go = threading.Event()

    def rows() -> Iterator[int]:
        go.wait(30)
        yield 1

    async def leave() -> None:
        first = asyncio.ensure_future(anext(iterate_in_thread(rows())))
        await asyncio.sleep(0.01)
        first.cancel()

    asyncio.run(leave())
    threads = [thread for thread in threading.enumerate() if thread.name == "profile_enrich input"]
    go.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
