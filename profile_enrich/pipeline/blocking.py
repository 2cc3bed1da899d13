"""`enrich_blocking`: enrichment of records in synchronous code."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

from ..client.blocking import BlockingProfileClient
from ..client.client import ProfileClient
from ..errors import ConfigurationError
from .keys import KeyOf
from .options import EnrichOptions
from .records.dead_letters import DeadLetter, Sink
from .records.outcome import Outcome
from .records.queue import LookupQueue
from .records.record_run import Progress, RecordRun, Row

__all__ = ["BlockingEnrichment", "enrich_blocking"]

_SLICE = 0.005
"""Seconds of reading between two calls into the client's thread, each of which takes a tenth of a millisecond."""


def enrich_blocking(
    rows: Iterable[Any],
    *,
    client: BlockingProfileClient,
    key: KeyOf,
    fields: Iterable[str] | None = None,
    into: str = "profile",
    prefix: str | None = None,
    options: EnrichOptions | None = None,
    dead_letter: Sink | None = None,
    progress: Callable[[Progress], object] | None = None,
    progress_every: float = 0.5,
) -> BlockingEnrichment:
    """Enrich in synchronous code: `for row in enrich_blocking(rows, client=profiles.blocking(), key="user_id")`.

    The calling thread reads the records and calls `dead_letter` and `progress`. The client's thread calls a `key`
    function and makes the lookups while the caller works.

    Args:
        rows: as for `enrich`; not an asynchronous iterable.
        client: the client, made with `client.blocking()`. It stays open.
        key, fields, into, prefix, options, progress, progress_every: as for `enrich`.
        dead_letter: as for `enrich`, but not async.

    Returns:
        An iterator of dicts.

    Raises:
        ProfileEnrichError: as `enrich` does.
    """
    inner = client._client if isinstance(client, BlockingProfileClient) else None
    if not isinstance(inner, ProfileClient):
        raise ConfigurationError(
            f"client must be a BlockingProfileClient, made with profiles.blocking(), not {type(client).__name__}"
        )
    if not isinstance(rows, Iterable):
        raise ConfigurationError(f"rows must be an iterable, not {type(rows).__name__}")
    state = RecordRun(
        inner,
        key,
        fields=fields,
        into=into,
        prefix=prefix,
        options=options,
        dead_letter=dead_letter,
        progress=progress,
        progress_every=progress_every,
    )
    return BlockingEnrichment(state, _enriched_blocking(client, state, rows))


class BlockingEnrichment:
    """A run of `enrich_blocking`, which can be iterated over once."""

    def __init__(self, state: RecordRun, rows: Generator[Row]) -> None:
        self._state = state
        self._rows = rows

    @property
    def progress(self) -> Progress:
        """The progress of the run; after the loop, the summary."""
        return self._state.progress()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, if no `dead_letter` was given."""
        return self._state.dead_letters.kept

    def __iter__(self) -> Generator[Row]:
        return self._rows

    def __next__(self) -> Row:
        return next(self._rows)

    def close(self) -> None:
        """End the run. Records that were read but not returned are dropped."""
        self._rows.close()

    def __repr__(self) -> str:
        return f"<BlockingEnrichment, {self._state.progress().rows} records>"


def _enriched_blocking(client: BlockingProfileClient, state: RecordRun, rows: Iterable[Any]) -> Generator[Row]:
    queue = state.queue
    state.begin()
    reported = time.monotonic()
    complete = False
    rest = iter(rows)
    broken: Exception | None = None
    ended = False
    try:
        while not queue.done:
            some: list[Any] = []
            capacity, end = queue.capacity if queue.wants_input else 0, time.perf_counter() + _SLICE
            while not ended and len(some) < capacity:
                try:
                    some.append(next(rest))
                except StopIteration:
                    ended = True
                except Exception as error:  # noqa: BLE001  # the user's own: raised as it is, after the records before it
                    ended, broken = True, error
                if time.perf_counter() > end:
                    break
            for outcome in client._run(_exchange(queue, some, ended)):
                result = state.apply(outcome)
                if type(result) is DeadLetter:
                    state.dead_letters.write(result)
                if outcome.problem is not None:
                    state.check()
                if type(result) is dict:
                    yield result
            if time.monotonic() - reported >= state.every:
                reported = time.monotonic()
                state.report()
        if broken is not None:
            raise broken
        complete = True
    finally:
        if queue.busy:
            client._run(queue.aclose())
        state.end(complete)


async def _exchange(queue: LookupQueue[Any], rows: list[Any], last: bool) -> list[Outcome[Any]]:
    """Put records into the queue and take finished outcomes; wait for an outcome if no record is left."""
    for row in rows:
        queue.accept(row)
    queue.ended = last
    if last or not queue.wants_input:
        await queue.ready()
    queue.check()
    ready: list[Outcome[Any]] = []
    while (outcome := queue.take()) is not None:
        ready.append(outcome)
    return ready
