"""10,000 gets at once: of one cold key, and of 10,000 cold keys. The upstream takes 50 ms, in process.

Each round starts every contender with an empty cache. What counts first is the number of upstream calls.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from profile_enrich import MemorySource, ProfileClient, ProfileKey, SourcePolicy

from ._measure import Stopwatch, number
from ._peers import Build, Get, async_peers, by_hand, note_on_missing
from ._profiles import attributes
from ._table import Table, Verdict, main

OURS = "profile_enrich"
BY_HAND = "TTLCache by hand"
UPSTREAM_SECONDS = 0.05
TIMEOUT = 60.0


class Upstream:
    """Counts its calls and answers late."""

    def __init__(self) -> None:
        self.calls = 0
        self._profile = attributes("u1")

    async def load(self, key: str) -> dict[str, Any]:
        self.calls += 1
        await asyncio.sleep(UPSTREAM_SECONDS)
        return self._profile


@dataclass
class Found:
    calls: list[int] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    gave_up: bool = False


def _ours(upstream: Upstream, size: int) -> tuple[ProfileClient, Get]:
    async def load(key: ProfileKey) -> dict[str, Any]:
        return await upstream.load(key.value)

    client = ProfileClient(
        MemorySource(load), source_policy=SourcePolicy(max_in_flight=size)
    )  # the peers have no bound
    return client, client.get


async def _round(name: str, peers: dict[str, Build], keys: list[str], found: Found) -> None:
    upstream = Upstream()
    client: ProfileClient | None = None
    if name == OURS:
        client, get = _ours(upstream, len(keys))
    else:
        get = peers[name](upstream.load)
    with Stopwatch(collect=True) as watch:
        try:
            async with asyncio.timeout(TIMEOUT):
                answers = await asyncio.gather(*[get(key) for key in keys])
        except TimeoutError:
            found.gave_up = True
            return
    if not all(answer["first_name"] == "Ada" for answer in answers):
        raise RuntimeError(f"{name} gave a wrong answer")
    found.calls.append(upstream.calls)
    found.wall.append(watch.wall * 1e3)
    found.cpu.append(watch.cpu * 1e3)
    if client is not None:
        await client.aclose()


async def measure(title: str, keys: list[str], rounds: int, check: Callable[[dict[str, Found]], Verdict]) -> Table:
    peers = {BY_HAND: by_hand, **async_peers()}
    names = [OURS, *peers]
    found = {name: Found() for name in names}
    for _ in range(rounds):
        for name in names:
            if not found[name].gave_up:
                await _round(name, peers, keys, found[name])
    table = Table(title, ("contender", "upstream calls", "wall ms", "CPU ms", "min … max", "× ours"))
    ours = statistics.median(found[OURS].cpu)
    for name, figures in found.items():
        if figures.gave_up:
            table.add(name, "-", f"over {TIMEOUT * 1e3:,.0f}", "-", "-", "-")
            continue
        cpu = statistics.median(figures.cpu)
        table.add(
            name,
            f"{max(figures.calls):,}",
            number(statistics.median(figures.wall)),
            number(cpu),
            f"{number(min(figures.cpu))} … {number(max(figures.cpu))}",
            f"{cpu / max(ours, 1e-9):.2f}",
        )
    table.verdicts.append(check(found))
    table.notes.extend(
        [
            "CPU includes creating and gathering the tasks, which is the same for all. The other libraries do not "
            "limit concurrent calls, so our limit is raised accordingly; its default is 100.",
            *note_on_missing(),
        ]
    )
    return table


def run(quick: bool) -> list[Table]:
    """Ten thousand gets at once."""
    size, rounds = (100, 1) if quick else (10_000, 5)

    def exactly(calls: int) -> Callable[[dict[str, Found]], Verdict]:
        def check(found: dict[str, Found]) -> Verdict:
            made = max(found[OURS].calls, default=0)
            return Verdict(f"exactly {calls:,} upstream calls", f"{made:,}", made == calls)

        return check

    async def both() -> list[Table]:
        one = await measure(f"{size:,} concurrent gets of one cold key", ["u1"] * size, rounds, exactly(1))
        keys = [f"u{number}" for number in range(size)]
        return [one, await measure(f"{size:,} concurrent gets of as many cold keys", keys, rounds, exactly(size))]

    return asyncio.run(both())


if __name__ == "__main__":
    main(run)
