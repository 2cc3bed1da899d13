"""`outcomes`: one outcome per record, its profile or why there is none. All pipelines are built on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import TypeVar

from ..client.client import ProfileClient
from ..errors import ConfigurationError
from .keys import KeyOf
from .options import EnrichOptions, options_of
from .records.outcome import Outcome
from .records.queue import LookupQueue

__all__ = ["Outcome", "outcomes"]

R = TypeVar("R")


def outcomes(
    rows: Iterable[R] | AsyncIterable[R],
    *,
    client: ProfileClient,
    key: KeyOf,
    options: EnrichOptions | None = None,
) -> AsyncGenerator[Outcome[R]]:
    """Look up the profile of each record.

    A cached profile is returned without waiting. Records of the same key wait for one lookup. The input is read at most
    `window` records ahead, so a slow consumer slows it down. Leaving the loop early ends the run; loads that are under
    way end by the client's `deadline` and fill its cache.

    Args:
        rows: records of any kind; an iterable that blocks holds up the event loop, an async one does not.
        client: looks up. A run that takes longer than its `ttl` asks for a key again.
        key: a field's name (of a mapping, else an attribute), or a function of the record. Text, a `ProfileKey`, a
            whole number or a UUID is looked up; null, empty and NaN are a missing key; all else is an unusable one.
        options: `ordered`, `window`, `concurrency` and `retry_timeout` count here. Default `EnrichOptions()`.

    Returns:
        A generator of one `Outcome` for each record, whatever fails. What the input raises is raised after the outcomes
        of the records before it.

    Raises:
        ConfigurationError: an argument makes no sense; or, while it runs, the source is set up wrong.
        SourceAuthError: while it runs: the vendor refuses the credentials. It ends the run at once.
        ClientClosed: while it runs: the client was closed.
    """
    queue: LookupQueue[R] = LookupQueue(client, key, options_of(options))
    if not isinstance(rows, AsyncIterable | Iterable):
        raise ConfigurationError(f"rows must be an iterable or an async iterable, not {type(rows).__name__}")
    return run(queue, rows)


async def run(queue: LookupQueue[R], rows: Iterable[R] | AsyncIterable[R]) -> AsyncGenerator[Outcome[R]]:
    """Yield the outcomes of a queue that takes in these records."""
    rest = None
    try:
        if isinstance(rows, AsyncIterable):
            queue.start(rows)
        else:
            rest = iter(rows)
        while not queue.done:
            if rest is not None and not queue.ended and queue.wants_input:
                queue.read_some(rest)
                await asyncio.sleep(0)  # the lookups that this started, and other tasks of the loop
            queue.check()
            while (outcome := queue.take()) is not None:
                yield outcome
            if rest is None or queue.ended or not queue.wants_input:
                await queue.ready()
        queue.check()
    finally:
        await queue.aclose()
