"""`LookupQueue`: a bounded queue of records with one lookup per key and no task per record."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Iterator
from typing import Generic, TypeVar

from ...client.client import ProfileClient
from ...errors import ConfigurationError, InvalidKeyError
from ...profile import Profile, ProfileKey, Reason
from ..keys import KeyOf, key_of, key_reader
from ..options import EnrichOptions
from .outcome import Outcome

__all__ = ["LookupQueue"]

R = TypeVar("R")

_GATHER = 0.02
"""Seconds without a new record after which an incomplete batch is looked up."""

_GATHER_MOST = 0.1
"""The longest that a key waits for its batch to fill, in seconds."""

_SLICE = 0.001
"""Seconds of reading after which the event loop runs other tasks."""


class LookupQueue(Generic[R]):
    """Accept records, and return their outcomes.

    Args:
        client: looks up.
        key: returns the key of a record.
        options: `ordered`, `window`, `concurrency` and `retry_timeout` apply.
        remember: the largest number of results kept until the end of the run, independent of the client's cache.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    def __init__(self, client: ProfileClient, key: KeyOf, options: EnrichOptions, *, remember: int = 0) -> None:
        if not isinstance(client, ProfileClient):
            raise ConfigurationError(f"client must be a ProfileClient, not {type(client).__name__}")
        self._client = client
        self._key = key_reader(key)
        self._ordered = options.ordered
        self._window = options.window
        self._concurrency = options.concurrency
        self._retry_timeout = options.retry_timeout
        self._remember = remember
        self._remembered: dict[str | ProfileKey, Profile] = {}
        self.read = 0
        """Records taken in."""
        self.held = 0
        """Records accepted whose outcome was not taken yet."""
        self.hits = 0
        """Records that did not wait for a lookup."""
        self.lookups = 0
        """Keys looked up in the source."""
        self.ended = False
        """Whether the input has ended."""
        self._low = self._window - max(1, self._window // 8)
        self._closed = False
        self._broken: BaseException | None = None  # the input raised it
        self._fatal: BaseException | None = None
        self._order: deque[Outcome[R]] = deque()  # all records in order, or the finished ones
        self._waiting: dict[str | ProfileKey, list[Outcome[R]]] = {}
        self._queue: deque[str | ProfileKey] = deque()
        self._size = client._waiting.batch_size
        self._gathering: asyncio.TimerHandle | None = None
        self._partly = False
        self._workers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._has_capacity: asyncio.Future[None] | None = None

    # --- in ---------------------------------------------------------------------------------------------------------

    @property
    def wants_input(self) -> bool:
        """Whether an eighth of the window is free, so that records are read in groups."""
        return self.held <= self._low

    @property
    def capacity(self) -> int:
        """The number of records that can be accepted now."""
        return self._window - self.held

    @property
    def busy(self) -> bool:
        """Whether a task of this queue is running."""
        return bool(self._workers) or (self._reader is not None and not self._reader.done())

    def accept(self, row: R) -> None:
        """Accept one record, and finish it immediately if its profile is cached."""
        outcome = Outcome(self.read, row)
        self.read += 1
        self.held += 1
        if self._ordered:
            self._order.append(outcome)
        try:
            value = self._key(row)
            key = value if type(value) is str and value else key_of(value)
        except InvalidKeyError as error:
            outcome.problem = error.with_traceback(None)
            self._finish(outcome)
            return
        client = self._client
        others = self._waiting.get(key)
        if others is not None:
            others.append(outcome)
            return
        remembered = self._remembered.get(key)
        profile = client.find(key) if remembered is None else remembered
        if not isinstance(profile, Profile):
            self._waiting[key] = [outcome]
            self._queue.append(key)
            self.lookups += 1
            if len(self._queue) >= self._size:
                if len(self._workers) < self._concurrency:
                    self._start_worker()
            elif self._gathering is None:
                self._gather(time.monotonic() + _GATHER_MOST)
            return
        if profile.reason is Reason.UNAVAILABLE:
            outcome.problem = profile.error
            self._finish(outcome)
            return
        self.hits += 1
        self._keep(key, profile)
        outcome.profile = profile
        self._finish(outcome)

    def read_some(self, rows: Iterator[R]) -> None:
        """Accept records for about a millisecond, or until the window is full."""
        end = time.perf_counter() + _SLICE
        while self.held < self._window:
            try:
                row = next(rows)
            except StopIteration:
                self.ended = True
                return
            except Exception as error:  # noqa: BLE001  # the user's own: raised as it is, after the records before it
                self.ended = True
                self._broken = error
                return
            self.accept(row)
            if time.perf_counter() > end:
                return

    def start(self, rows: AsyncIterable[R]) -> None:
        """Start a task that accepts records while the window has space, until the input ends."""
        self._reader = asyncio.create_task(self._read(rows), name="profile_enrich reader")

    async def _read(self, rows: AsyncIterable[R]) -> None:
        try:
            end = time.perf_counter() + _SLICE
            async for row in rows:
                self.accept(row)
                if self.held >= self._window:
                    self._send()
                    self._has_capacity = asyncio.get_running_loop().create_future()
                    await self._has_capacity
                elif time.perf_counter() > end:  # yield, because an input that never waits would block the loop
                    await asyncio.sleep(0)
                    end = time.perf_counter() + _SLICE
        except BaseException as error:  # exceptions of the user's input, including a cancellation that it raises itself
            if self._closed:
                raise
            self._broken = error
        finally:
            self.ended = True
            if not self._closed:
                self._send()
            self._notify()

    # --- between ----------------------------------------------------------------------------------------------------

    def _gather(self, until: float) -> None:
        read = self.read

        def look() -> None:
            if self.read != read and time.monotonic() < until:
                self._gather(until)
            else:
                self._send()

        self._gathering = asyncio.get_running_loop().call_later(_GATHER, look)

    def _send(self) -> None:
        """Look up an incomplete batch."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._partly = bool(self._queue)
        for _ in range(min(-(-len(self._queue) // self._size), self._concurrency - len(self._workers))):
            self._start_worker()

    def _start_worker(self) -> None:
        worker = asyncio.create_task(self._work(), name="profile_enrich lookups")
        self._workers.add(worker)
        worker.add_done_callback(self._worker_ended)

    async def _work(self) -> None:
        queue, waiting = self._queue, self._client._waiting
        while len(queue) >= self._size or (queue and self._partly):
            keys = [queue.popleft() for _ in range(min(self._size, len(queue)))]
            self._partly = self._partly and bool(queue)
            profiles = await waiting.lookup([ProfileKey.of(key) for key in keys], self._retry_timeout)
            for key, profile in zip(keys, profiles, strict=True):
                self._answer(key, profile)
        if queue and self._gathering is None:
            self._gather(time.monotonic() + _GATHER_MOST)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None and self._fatal is None:
            self._fatal = error
            self._notify()

    def _answer(self, key: str | ProfileKey, profile: Profile) -> None:
        problem = profile.error if profile.reason is Reason.UNAVAILABLE else None
        if problem is None:
            self._keep(key, profile)
        for outcome in self._waiting.pop(key):
            if problem is None:
                outcome.profile = profile
            else:
                outcome.problem = problem
            self._finish(outcome)

    def _keep(self, key: str | ProfileKey, profile: Profile) -> None:
        if len(self._remembered) < self._remember:
            self._remembered[key] = profile

    def _finish(self, outcome: Outcome[R]) -> None:
        if not self._ordered:
            self._order.append(outcome)
        if self._wake is not None:
            self._notify()

    # --- out --------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the input has ended and all outcomes were taken."""
        return self.ended and not self.held

    def take(self) -> Outcome[R] | None:
        """Return the next outcome; `None` if it is not ready."""
        order = self._order
        if not order:
            return None
        outcome = order[0]
        if outcome.profile is None and outcome.problem is None:
            return None
        order.popleft()
        self.held -= 1
        if self._has_capacity is not None and self.held <= self._low:
            waiter, self._has_capacity = self._has_capacity, None
            if not waiter.done():
                waiter.set_result(None)
        return outcome

    async def ready(self) -> None:
        """Wait until `take` has an outcome, the input has ended, or the run must end."""
        if self.ended or not self.wants_input:
            self._send()
        if not self._is_ready():
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def check(self) -> None:
        """Raise an error that ends the run: immediately if it affects every key, at the end if it is the input's."""
        error = self._fatal or (self._broken if self.done else None)
        if error is not None:
            raise error

    def _is_ready(self) -> bool:
        if self._fatal is not None or self.done:
            return True
        if not self._order:
            return False
        head = self._order[0]
        return head.profile is not None or head.problem is not None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done() and self._is_ready():
            self._wake.set_result(None)

    async def aclose(self) -> None:
        """Stop reading and waiting. Running loads belong to the client, and continue."""
        self._closed = True
        if self._gathering is not None:
            self._gathering.cancel()
        tasks = [*self._workers] if self._reader is None else [*self._workers, self._reader]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
