"""`enrich`: records in, enriched records out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from ..client.client import ProfileClient
from ..errors import ConfigurationError
from .keys import KeyOf
from .options import EnrichOptions
from .outcome_stream import run
from .records.record_run import DeadLetter, Progress, RecordRun, Row, Sink

__all__ = ["DeadLetter", "Enrichment", "Progress", "Row", "enrich"]


def enrich(
    rows: Iterable[Any] | AsyncIterable[Any],
    *,
    client: ProfileClient,
    key: KeyOf,
    fields: Iterable[str] | None = None,
    into: str = "profile",
    prefix: str | None = None,
    options: EnrichOptions | None = None,
    dead_letter: Sink | None = None,
    progress: Callable[[Progress], object] | None = None,
    progress_every: float = 0.5,
) -> Enrichment:
    """Add to each record the profile of its key: `async for row in enrich(rows, client=..., key="user_id")`.

    Each key is looked up once for all records that have it at the time. A rate limit is waited for; a
    failing source is retried for `retry_timeout` seconds. A record without a profile is not an error.

    Args:
        rows: mappings, dataclasses, named tuples or objects with attributes. They are not changed.
        client: looks up. It stays open, and keeps what was loaded.
        key: a field's name, or a function of the record that returns the key (see `key_of` for what is one).
        fields: the attributes to take, in this order; those that a profile lacks are null. Default: all it has.
        into: the field that gets them as a dict, or null. Default `"profile"`.
        prefix: instead of `into`, one field per attribute, with this before its name; `""` for nothing before it.
        options: what becomes of records without a profile, and the limits of the run. Default `EnrichOptions()`.
        dead_letter: a function, async or not, that gets each `DeadLetter`, or a list. Default: they are kept in
            `.dead_letters`, at most `options.window` of them.
        progress: a function that gets a `Progress` now and then and at the end.
        progress_every: seconds between two of these. Default 0.5.

    Returns:
        An asynchronous iterator of dicts: the record's own fields, then the profile's. A field that the record has
        already keeps its value; that is counted, and logged once.

    Raises:
        ConfigurationError: an argument is not usable.
        TooManyErrors: while it runs: more records failed than `max_errors` allows.
        ProfileMissing, ProfileEnrichError: while it runs: as `on_missing="raise"` and `on_error="raise"` ask for.
        SourceAuthError: while it runs: the vendor refuses the credentials. It ends the run at once.
        InputError: while it runs: a record has no fields.
    """
    if not isinstance(rows, AsyncIterable | Iterable):
        raise ConfigurationError(f"rows must be an iterable or an async iterable, not {type(rows).__name__}")
    state = RecordRun(
        client,
        key,
        fields=fields,
        into=into,
        prefix=prefix,
        options=options,
        dead_letter=dead_letter,
        progress=progress,
        progress_every=progress_every,
    )
    return Enrichment(state, _enriched(state, rows))


class Enrichment:
    """A run of `enrich`: iterate over it once. Made by `enrich`, not by hand.

    Leaving the loop early ends the run; `await run.aclose()` ends it at once, and returns when no task is left.
    """

    def __init__(self, state: RecordRun, rows: AsyncGenerator[Row]) -> None:
        self._state = state
        self._rows = rows

    @property
    def progress(self) -> Progress:
        """How far the run is; after the loop, the summary."""
        return self._state.progress()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, where no `dead_letter` took them."""
        return self._state.dead_letters

    def __aiter__(self) -> AsyncGenerator[Row]:
        # The generator itself: nothing stands between it and the loop, so an early `break` frees it.
        return self._rows

    async def __anext__(self) -> Row:
        return await anext(self._rows)

    async def aclose(self) -> None:
        """End the run. Records that were read and have not left are dropped."""
        await self._rows.aclose()

    def __repr__(self) -> str:
        return f"<Enrichment, {self._state.progress().rows} records>"


async def _enriched(state: RecordRun, rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Row]:
    state.begin()
    ticker = _Ticker(state) if state.reports else None
    complete = False
    try:
        async with aclosing(run(state.queue, rows)) as outcomes:
            async for outcome in outcomes:
                result = state.apply(outcome)
                if type(result) is DeadLetter:
                    taken = state.deliver(result)
                    if inspect.isawaitable(taken):
                        await taken
                if outcome.problem is not None:
                    state.check()
                if type(result) is dict:
                    yield result
        complete = True
    finally:
        if ticker is not None:
            ticker.stop()
        state.end(complete)


class _Ticker:
    """Reports the progress at intervals, also while the run waits."""

    def __init__(self, state: RecordRun) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(state.every, self._tick)

    def _tick(self) -> None:
        self._state.report()
        self._next = self._loop.call_later(self._state.every, self._tick)

    def stop(self) -> None:
        self._next.cancel()
