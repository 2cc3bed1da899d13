"""One outcome for each record of the input: its profile, or why there is none. What all pipelines stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import TypeVar

from ..client.client import ProfileClient
from ..errors import ConfigurationError
from .keys import KeyOf
from .records.outcome import Outcome
from .records.queue import LookupQueue

__all__ = ["Outcome", "outcomes"]

R = TypeVar("R")


def outcomes(
    rows: Iterable[R] | AsyncIterable[R],
    *,
    client: ProfileClient,
    key: KeyOf,
    ordered: bool = True,
    window: int = 4096,
    concurrency: int = 64,
    retry_timeout: float = 60.0,
) -> AsyncGenerator[Outcome[R]]:
    """Looks the profile of each record up.

    A record whose profile is in the cache waits for nothing. Records of the same key wait for one lookup. The input is
    read no further than `window` records ahead, so that a slow consumer slows it down. Leaving the loop early ends the
    run; loads that are under way end by the client's `deadline` and fill its cache.

    Args:
        rows: records of any kind; an iterable that blocks holds up the event loop, an async one does not.
        client: looks up. A run that takes longer than its `ttl` asks for a key again.
        key: a field's name (of a mapping, else an attribute), or a function of the record. Text, a `ProfileKey`, a
            whole number or a UUID is looked up; null, empty and NaN are a missing key; all else is an unusable one.
        ordered: whether outcomes come in the order of the records. Default true; false lets no record wait for another.
        window: records held at most, finished or not. Default 4,096.
        concurrency: calls of the source at the same time, at most; the client's `max_in_flight` bounds them, too.
            Default 64.
        retry_timeout: seconds for which a source that fails is waited for, since it last answered. Default 60.

    Returns:
        A generator of one `Outcome` for each record, whatever fails. What the input raises is raised after the outcomes
        of the records before it.

    Raises:
        ConfigurationError: an argument makes no sense; or, while it runs, the source is set up wrong.
        SourceAuthError: while it runs: the vendor refuses the credentials. It ends the run at once.
        ClientClosed: while it runs: the client was closed.
    """
    desk: LookupQueue[R] = LookupQueue(
        client, key, ordered=ordered, window=window, concurrency=concurrency, retry_timeout=retry_timeout
    )
    if not isinstance(rows, AsyncIterable | Iterable):
        raise ConfigurationError(f"rows must be an iterable or an async iterable, not {type(rows).__name__}")
    return run(desk, rows)


async def run(desk: LookupQueue[R], rows: Iterable[R] | AsyncIterable[R]) -> AsyncGenerator[Outcome[R]]:
    """The outcomes of a desk that takes in these records."""
    rest = None
    try:
        if isinstance(rows, AsyncIterable):
            desk.start(rows)
        else:
            rest = iter(rows)
        while not desk.done:
            if rest is not None and not desk.ended and desk.hungry:
                desk.read_some(rest)
                await asyncio.sleep(0)  # the lookups that this started, and whoever else is on this loop
            desk.check()
            while (outcome := desk.take()) is not None:
                yield outcome
            if rest is None or desk.ended or not desk.hungry:
                await desk.ready()
        desk.check()
    finally:
        await desk.aclose()
