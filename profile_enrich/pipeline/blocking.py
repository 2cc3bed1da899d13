"""`enrich_blocking`: the same enrichment for synchronous code."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

from .._utils.validation import check_number
from ..client.blocking import BlockingProfileClient
from ..client.client import ProfileClient
from ..errors import ConfigurationError
from .enrich import Row
from .keys import KeyOf
from .records.merge import RecordMerger
from .records.outcome import Outcome
from .records.outcome_policy import DeadLetter, How, OnError, OnMissing, OutcomePolicy, Progress, Sink
from .records.queue import LookupQueue

__all__ = ["BlockingEnrichment", "enrich_blocking"]

_SLICE = 0.005
"""Seconds of reading between two visits to the client's thread, each of which costs a tenth of a millisecond."""


def enrich_blocking(
    rows: Iterable[Any],
    *,
    client: BlockingProfileClient,
    key: KeyOf,
    fields: Iterable[str] | None = None,
    into: str = "profile",
    prefix: str | None = None,
    how: How = "left",
    on_missing: OnMissing = "null",
    on_error: OnError = "dead_letter",
    max_errors: float = 0.01,
    ordered: bool = True,
    window: int = 4096,
    concurrency: int = 64,
    retry_timeout: float = 60.0,
    dead_letter: Sink | None = None,
    progress: Callable[[Progress], object] | None = None,
    progress_every: float = 0.5,
) -> BlockingEnrichment:
    """`enrich` for synchronous code: `for row in enrich_blocking(rows, client=profiles.blocking(), key="user_id")`.

    The records are read, and `key`, `dead_letter` and `progress` called, in the calling thread; lookups go on in the
    client's while the caller works. (`key` is called in the client's thread.)

    Args:
        rows: as for `enrich`; not an asynchronous iterable.
        client: made with `client.blocking()`. It stays open.
        key, fields, into, prefix, how, on_missing, on_error, max_errors, ordered, window, concurrency, patience,
            dead_letter, progress, progress_every: as for `enrich`; `dead_letter` must not be async.

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
    desk: LookupQueue[Any] = LookupQueue(
        inner, key, ordered=ordered, window=window, concurrency=concurrency, retry_timeout=retry_timeout
    )
    if not isinstance(rows, Iterable):
        raise ConfigurationError(f"rows must be an iterable, not {type(rows).__name__}")
    tally = OutcomePolicy(
        inner,
        desk,
        RecordMerger(fields, into, prefix),
        how=how,
        on_missing=on_missing,
        on_error=on_error,
        max_errors=max_errors,
        most_letters=window,
        dead_letter=dead_letter,
        progress=progress,
    )
    every = check_number("progress_every", progress_every, positive=True)
    return BlockingEnrichment(tally, _enriched_blocking(client, desk, rows, tally, every))


class BlockingEnrichment:
    """A run of `enrich_blocking`: iterate over it once. Made by `enrich_blocking`, not by hand."""

    def __init__(self, tally: OutcomePolicy, rows: Generator[Row]) -> None:
        self._tally = tally
        self._rows = rows

    @property
    def progress(self) -> Progress:
        """How far it has come; after the loop, the summary."""
        return self._tally.progress()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The records that were put aside, where no `dead_letter` took them."""
        return self._tally.letters

    def __iter__(self) -> Generator[Row]:
        return self._rows

    def __next__(self) -> Row:
        return next(self._rows)

    def close(self) -> None:
        """Ends the run. What was read and not yet handed on is let go of."""
        self._rows.close()

    def __repr__(self) -> str:
        return f"<BlockingEnrichment, {self._tally.progress().rows} records>"


def _enriched_blocking(
    client: BlockingProfileClient, desk: LookupQueue[Any], rows: Iterable[Any], tally: OutcomePolicy, every: float
) -> Generator[Row]:
    tally.begin()
    told = time.monotonic()
    complete = False
    rest = iter(rows)
    broken: Exception | None = None
    ended = False
    try:
        while not desk.done:
            some: list[Any] = []
            room, end = desk.room if desk.hungry else 0, time.perf_counter() + _SLICE
            while not ended and len(some) < room:
                try:
                    some.append(next(rest))
                except StopIteration:
                    ended = True
                except Exception as error:  # noqa: BLE001  # the user's own: raised as it is, after the records before it
                    ended, broken = True, error
                if time.perf_counter() > end:
                    break
            for outcome in client._run(_exchange(desk, some, ended)):
                settled = tally.settle(outcome)
                if type(settled) is DeadLetter:
                    tally.deliver(settled)
                if outcome.problem is not None:
                    tally.check()
                if type(settled) is dict:
                    yield settled
            if time.monotonic() - told >= every:
                told = time.monotonic()
                tally.tell()
        if broken is not None:
            raise broken
        complete = True
    finally:
        if desk.busy:
            client._run(desk.aclose())
        tally.end(complete)


async def _exchange(desk: LookupQueue[Any], rows: list[Any], last: bool) -> list[Outcome[Any]]:
    """Puts records on the desk, and takes what is ready; waits for something when there is no more to put."""
    for row in rows:
        desk.accept(row)
    desk.ended = last
    if last or not desk.hungry:
        await desk.ready()
    desk.check()
    ready: list[Outcome[Any]] = []
    while (outcome := desk.take()) is not None:
        ready.append(outcome)
    return ready
