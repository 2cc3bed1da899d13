"""`enrich`: asynchronous enrichment of records."""

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
from .records.dead_letters import DeadLetter, Sink
from .records.record_run import Progress, RecordRun, Row

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

    Concurrent records of one key share a lookup. The run waits for the rate limit, and retries a failing source for
    `retry_timeout` seconds. A record without a profile is not an error.

    Args:
        rows: mappings, dataclasses, named tuples or objects with attributes. They are not modified.
        client: the client. It stays open, and its cache keeps the profiles.
        key: a field's name, or a function of the record that returns the key (see `key_of` for valid keys).
        fields: the attributes to add, in this order; missing ones are null. Default: all.
        into: the field for the attributes, a dict or null. Default `"profile"`.
        prefix: add one field per attribute instead of `into`, with this prefix; `""` for no prefix.
        options: the handling of records without a profile, and the limits of the run. Default `EnrichOptions()`.
        dead_letter: a function, async or not, that takes each `DeadLetter`, or a list. Default: up to `options.window`
            of them are kept in `.dead_letters`.
        progress: a function that takes a `Progress`, at intervals and at the end.
        progress_every: the interval, in seconds. Default 0.5.

    Returns:
        An asynchronous iterator of dicts: the record's fields, then the profile's. An existing field keeps its value;
        clashes are counted and logged once.

    Raises:
        ConfigurationError: an argument is invalid.
        TooManyErrors: during the run, if more records failed than `max_errors` allows.
        ProfileMissing, ProfileEnrichError: during the run, with `on_missing="raise"` or `on_error="raise"`.
        SourceAuthError: during the run, if the vendor rejects the credentials. It ends the run immediately.
        InputError: during the run, if a record has no fields.
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
    """A run of `enrich`, which can be iterated over once.

    Leaving the loop early ends the run. `await run.aclose()` ends it immediately, and returns when all tasks have
    ended.
    """

    def __init__(self, state: RecordRun, rows: AsyncGenerator[Row]) -> None:
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

    def __aiter__(self) -> AsyncGenerator[Row]:
        # Return the generator itself, so that an early `break` closes it.
        return self._rows

    async def __anext__(self) -> Row:
        return await anext(self._rows)

    async def aclose(self) -> None:
        """End the run. Records that were read but not returned are dropped."""
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
                    taken = state.dead_letters.write(result)
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
    """Report the progress at intervals, also while the run waits."""

    def __init__(self, state: RecordRun) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(state.every, self._tick)

    def _tick(self) -> None:
        self._state.report()
        self._next = self._loop.call_later(self._state.every, self._tick)

    def stop(self) -> None:
        self._next.cancel()
