"""`outcomes`: one outcome per record, its profile or the reason why there is none."""

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

    A cached profile is returned without waiting. Records of one key share a lookup. The input is read up to `window`
    records ahead, which applies backpressure. Leaving the loop early ends the run; running loads end by the client's
    `deadline` and fill its cache.

    Args:
        rows: records of any kind. A blocking iterable blocks the event loop; use an async one instead.
        client: the client. A run longer than its `ttl` looks up repeated keys again.
        key: a field's name (of a mapping, else an attribute), or a function of the record. See `key_of` for valid keys.
        options: `ordered`, `window`, `concurrency` and `retry_timeout` apply. Default `EnrichOptions()`.

    Returns:
        A generator with one `Outcome` per record, even for failures. An exception of the input is raised after the
        outcomes of the records before it.

    Raises:
        ConfigurationError: an argument is invalid; or, during the run, the source is misconfigured.
        SourceAuthError: during the run, if the vendor rejects the credentials. It ends the run immediately.
        ClientClosed: during the run, if the client was closed.
    """
    queue: LookupQueue[R] = LookupQueue(client, key, options_of(options))
    if not isinstance(rows, AsyncIterable | Iterable):
        raise ConfigurationError(f"rows must be an iterable or an async iterable, not {type(rows).__name__}")
    return run(queue, rows)


async def run(queue: LookupQueue[R], rows: Iterable[R] | AsyncIterable[R]) -> AsyncGenerator[Outcome[R]]:
    """Yield the outcomes of these records from a queue."""
    rest = None
    try:
        if isinstance(rows, AsyncIterable):
            queue.start(rows)
        else:
            rest = iter(rows)
        while not queue.done:
            if rest is not None and not queue.ended and queue.wants_input:
                queue.read_some(rest)
                await asyncio.sleep(0)  # let the started lookups and other tasks run
            queue.check()
            while (outcome := queue.take()) is not None:
                yield outcome
            if rest is None or queue.ended or not queue.wants_input:
                await queue.ready()
        queue.check()
    finally:
        await queue.aclose()
