"""Batching: lookups of different keys within one window become one call of a source that has a batch endpoint."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from weakref import WeakKeyDictionary

from .._utils.single_flight import GRACE, Load, cancel_tasks
from ..errors import ClientClosed, ProfileEnrichError, SourceError, SourceResponseError
from ..profile import ProfileKey
from ..sources.base import BatchSource, SourceResult

__all__ = ["Batch", "Batcher"]

Answers = Mapping[ProfileKey, SourceResult]

Slot = Callable[[], AbstractAsyncContextManager[None]]


class Batch:
    """The keys of one call, and the loads that wait for them."""

    __slots__ = ("loads", "reserved", "sent", "timer", "waiting")

    def __init__(self) -> None:
        self.loads: list[Load[Any, Any]] = []
        self.reserved = 0
        self.sent = False
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: dict[ProfileKey, asyncio.Future[SourceResult]] = {}


class Batcher:
    """Collect keys into batches, with one open batch per event loop.

    Args:
        source: the source with the batch endpoint and its batch size.
        window: how long a batch stays open after its first key, in seconds.
        slot: returns a context manager that holds the slot of one call.
    """

    def __init__(self, source: BatchSource, window: float, slot: Slot) -> None:
        self._source = source
        self._window = window
        self._slot = slot
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, Batch] = WeakKeyDictionary()
        self._calls: set[asyncio.Task[None]] = set()

    def reserve(self, take: Callable[[], None] | None = None) -> Batch:
        """Reserve a place in a batch: the open one, or a new one, which costs a call.

        Args:
            take: called before a new batch; if it raises, no batch is opened.
        """
        loop = asyncio.get_running_loop()
        batch = self._open.get(loop)
        if batch is None or batch.sent or batch.reserved >= self._source.batch_size:
            if take is not None:
                take()
            batch = self._open[loop] = Batch()
            batch.timer = loop.call_later(self._window, self._send, loop, batch)
        batch.reserved += 1
        return batch

    async def fetch(self, key: ProfileKey, batch: Batch, load: Load[Any, Any]) -> SourceResult:
        """Fetch one key together with the others of its batch; see `ProfileSource.fetch`."""
        loop = asyncio.get_running_loop()
        if batch.sent:  # the loop was too busy to start this load within the window
            batch = self.reserve()
        batch.loads.append(load)
        answer = batch.waiting.setdefault(key, loop.create_future())
        if len(batch.waiting) >= self._source.batch_size:
            self._send(loop, batch)
        return await asyncio.shield(answer)

    async def aclose(self) -> None:
        """Cancel the running calls, on other event loops, too."""
        await cancel_tasks(list(self._calls), GRACE)

    def after_fork(self) -> None:
        """Forget the batches, in a forked child: they are the parent's."""
        self._open = WeakKeyDictionary()
        self._calls = set()

    def _send(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        if batch.sent:
            return
        batch.sent = True
        if self._open.get(loop) is batch:
            del self._open[loop]
        if batch.timer is not None:
            batch.timer.cancel()
        if not batch.waiting:
            return
        # A fresh context, as for every load: it is shared by loads of many requests.
        task = loop.create_task(self._run(batch), name="profile_enrich batch", context=contextvars.Context())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _run(self, batch: Batch) -> None:
        answers: Answers = {}
        error: ProfileEnrichError = SourceResponseError("the source's answer to a batch lacks a key that was asked for")
        failure = ""
        try:
            async with self._slot():
                deadlines = [load.start_deadline() for load in batch.loads]
                answers = await self._source.fetch_many(list(batch.waiting), deadline=deadlines[0])
        except asyncio.CancelledError:
            self._deliver(batch, {}, ClientClosed("the lookup was ended because its event loop was closed"))
            raise
        except ProfileEnrichError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001  # its text may quote a key: only its type is passed on
            failure = type(raised).__name__
        if failure:
            error = SourceError(f"the source failed with an unexpected {failure}")
        self._deliver(batch, answers, error)

    def _deliver(self, batch: Batch, answers: Answers, error: ProfileEnrichError) -> None:
        for key, waiting in batch.waiting.items():
            if waiting.done():
                continue
            answer = answers.get(key)
            if answer is not None:
                waiting.set_result(answer)
            else:
                waiting.set_exception(copy.copy(error))
                waiting.exception()  # mark the exception as retrieved, in case the load was cancelled
