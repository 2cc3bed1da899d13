"""Helpers of the pipeline tests: a scripted source that counts its calls."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from profile_enrich import BatchSource, Breaker, NotFound, ProfileClient, ProfileKey, Record
from profile_enrich._utils.deadline import Deadline
from profile_enrich.pipeline import EnrichOptions
from profile_enrich.sources.base import Found, SourceResult, Validators
from tests.helpers import with_policies

Behaviour = Callable[[ProfileKey, int], SourceResult]
"""From the key and the number of its call, from 1, to an answer; it may raise."""


def healthy(key: ProfileKey, call: int) -> SourceResult:
    return NotFound() if key.value.startswith("nobody") else Found(Record({"id": key.value, "tier": "gold"}))


class CountingSource:
    """A source with scripted results, after some seconds or iterations of the loop."""

    name = "counting"
    namespace = "counting"

    def __init__(self, behaviour: Behaviour = healthy, *, delay: float = 0.0, turns: int = 0) -> None:
        self.behaviour = behaviour
        self.delay = delay
        self.turns = turns
        self.calls: Counter[str] = Counter()
        self.times: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        self.calls[key.value] += 1
        await self._take_time()
        return self.behaviour(key, self.calls[key.value])

    async def _take_time(self) -> None:
        self.times.append(time.monotonic())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            if self.delay:
                await asyncio.sleep(self.delay)
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        pass


class CountingBatches(CountingSource):
    """The same with a batch endpoint."""

    def __init__(self, behaviour: Behaviour = healthy, *, delay: float = 0.0, turns: int = 0, size: int = 100) -> None:
        super().__init__(behaviour, delay=delay, turns=turns)
        self.batch_size = size
        self.batches: list[int] = []

    async def fetch_many(self, keys: Sequence[ProfileKey], *, deadline: Deadline) -> Mapping[ProfileKey, SourceResult]:
        self.batches.append(len(keys))
        self.calls.update(key.value for key in keys)
        await self._take_time()
        return {key: self.behaviour(key, self.calls[key.value]) for key in keys}


def client_for(source: CountingSource, **settings: Any) -> ProfileClient:
    """A client with short pauses between loads, and by default without a circuit breaker."""
    client = ProfileClient(source, **with_policies({"breaker": Breaker(failures=0), "ttl": 3600.0, **settings}))
    client._waiting._rng = lambda: 0.0
    return client


async def as_stream(rows: Iterable[Any], pause: float | None = 0.0) -> AsyncIterator[Any]:
    """Yield the rows; sleep `pause` seconds before each, or never suspend if it is `None`."""
    for row in rows:
        if pause is not None:
            await asyncio.sleep(pause)
        yield row


assert isinstance(CountingBatches(), BatchSource)


_OPTIONS = {field.name for field in dataclasses.fields(EnrichOptions)}


def with_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Group the arguments that belong to `EnrichOptions` into one object."""
    chosen = {name: value for name, value in settings.items() if name in _OPTIONS}
    rest = {name: value for name, value in settings.items() if name not in _OPTIONS}
    return {**rest, "options": EnrichOptions(**chosen)} if chosen else rest
