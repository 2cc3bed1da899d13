"""`enrich`: records in, enriched records out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from .._utils.validation import check_number
from ..client.client import ProfileClient
from ..errors import ConfigurationError
from .keys import KeyOf
from .outcome_stream import run
from .records.merge import RecordMerger
from .records.outcome_policy import DeadLetter, How, OnError, OnMissing, OutcomePolicy, Progress, Sink
from .records.queue import LookupQueue

__all__ = ["DeadLetter", "Enrichment", "Progress", "Row", "enrich"]

Row = dict[str, Any]
"""An enriched record: its own fields, then the profile's."""


def enrich(
    rows: Iterable[Any] | AsyncIterable[Any],
    *,
    client: ProfileClient,
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
) -> Enrichment:
    """Adds to each record the profile of its key: `async for row in enrich(rows, client=..., key="user_id")`.

    Each key is looked up once for all records that have it at the time. The rate limit is waited for; a source that
    fails for a moment is waited for, and asked again. A record without a profile is no error.

    Args:
        rows: mappings, dataclasses, named tuples or objects with attributes. They are not changed.
        client: looks up. It stays open, and keeps what was loaded.
        key: a field's name, or a function of the record that returns the key (see `key_of` for what is one).
        fields: the attributes to take, in this order; those that a profile lacks are null. Default: all it has.
        into: the field that gets them as a dict, or null. Default `"profile"`.
        prefix: instead of `into`, a field for each attribute, with this before its name; `""` for nothing before it.
        how: `"left"` passes records without a profile on, `"inner"` leaves them out. Default `"left"`.
        on_missing: what becomes of a record without a profile or without a key: `"null"` passes it on, `"drop"` leaves
            it out, `"dead_letter"` puts it aside, `"raise"` ends the run. Default `"null"`.
        on_error: what becomes of a record that failed: `"dead_letter"`, `"null"` or `"raise"`. Default `"dead_letter"`.
        max_errors: records that may fail before the run ends: a fraction (a `float`) of the records so far, of 1,000 at
            least; or a number (an `int`). Default 0.01.
        ordered: whether records come out in their order. Default true; false lets none wait for a slower one.
        window: records held at most. Default 4,096.
        concurrency: calls of the source at the same time, at most. Default 64.
        retry_timeout: seconds for which a source that fails is waited for, since it last answered. Default 60.
        dead_letter: a function, async or not, that gets each `DeadLetter`, or a list. Default: they are kept in
            `.dead_letters`, at most `window` of them.
        progress: a function that gets a `Progress` now and then and at the end.
        progress_every: seconds between two of these. Default 0.5.

    Returns:
        An asynchronous iterator of dicts: the record's own fields, then the profile's. A field that the record has
        already keeps its value; that is counted, and logged once.

    Raises:
        ConfigurationError: an argument makes no sense.
        TooManyErrors: while it runs: more records failed than `max_errors` allows.
        ProfileMissing, ProfileEnrichError: while it runs: as `on_missing="raise"` and `on_error="raise"` ask for.
        SourceAuthError: while it runs: the vendor refuses the credentials. It ends the run at once.
        InputError: while it runs: a record has no fields.
    """
    desk: LookupQueue[Any] = LookupQueue(
        client, key, ordered=ordered, window=window, concurrency=concurrency, retry_timeout=retry_timeout
    )
    if not isinstance(rows, AsyncIterable | Iterable):
        raise ConfigurationError(f"rows must be an iterable or an async iterable, not {type(rows).__name__}")
    tally = OutcomePolicy(
        client,
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
    return Enrichment(
        tally, _enriched(desk, rows, tally, check_number("progress_every", progress_every, positive=True))
    )


class Enrichment:
    """A run of `enrich`: iterate over it once. Made by `enrich`, not by hand.

    Leaving the loop early ends it; `await run.aclose()` does so at once, and waits until nothing is left.
    """

    def __init__(self, tally: OutcomePolicy, rows: AsyncGenerator[Row]) -> None:
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

    def __aiter__(self) -> AsyncGenerator[Row]:
        # The generator itself: nothing between it and the loop, and an early `break` lets go of it.
        return self._rows

    async def __anext__(self) -> Row:
        return await anext(self._rows)

    async def aclose(self) -> None:
        """Ends the run. What was read and not yet handed on is let go of."""
        await self._rows.aclose()

    def __repr__(self) -> str:
        return f"<Enrichment, {self._tally.progress().rows} records>"


async def _enriched(
    desk: LookupQueue[Any], rows: Iterable[Any] | AsyncIterable[Any], tally: OutcomePolicy, every: float
) -> AsyncGenerator[Row]:
    tally.begin()
    ticker = _Ticker(tally, every) if tally.tells else None
    complete = False
    try:
        async with aclosing(run(desk, rows)) as outcomes:
            async for outcome in outcomes:
                settled = tally.settle(outcome)
                if type(settled) is DeadLetter:
                    taken = tally.deliver(settled)
                    if inspect.isawaitable(taken):
                        await taken
                if outcome.problem is not None:
                    tally.check()
                if type(settled) is dict:
                    yield settled
        complete = True
    finally:
        if ticker is not None:
            ticker.stop()
        tally.end(complete)


class _Ticker:
    """Tells how far a run has come, also while it waits."""

    def __init__(self, tally: OutcomePolicy, every: float) -> None:
        self._tally = tally
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(every, self._tick)

    def _tick(self) -> None:
        self._tally.tell()
        self._next = self._loop.call_later(self._every, self._tick)

    def stop(self) -> None:
        self._next.cancel()
