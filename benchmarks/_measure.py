"""How everything here is measured: contenders take turns, several rounds, and medians count.

Other processes, clock speed and caches drift while a benchmark runs. Contenders that take turns in each round, every
round in another order, all see the same drift; a ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["Spread", "Stopwatch", "interleave", "number"]


class Stopwatch:
    """CPU and wall seconds of a `with` block, of this process alone.

    Garbage of what ran before is collected first, and what is alive then is left out of collections during the block.

    Args:
        collect: whether Python's garbage collector runs during the block. It is part of the cost where objects are
            made; where none should be made it only adds noise.
    """

    def __init__(self, *, collect: bool) -> None:
        self._collect = collect
        self.cpu = 0.0
        self.wall = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()
        if not self._collect:
            gc.disable()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.cpu = time.process_time() - self._cpu
        self.wall = time.perf_counter() - self._wall
        gc.enable()


@dataclass(frozen=True)
class Spread:
    """One figure a round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def over(self, base: Spread) -> float:
        """How many times the base: the median of the rounds' ratios."""
        return statistics.median(one / max(other, 1e-9) for one, other in zip(self.values, base.values, strict=True))

    def above(self, base: Spread) -> float:
        """How much more than the base: the median of the rounds' differences."""
        return statistics.median(one - other for one, other in zip(self.values, base.values, strict=True))

    @property
    def range(self) -> str:
        return f"{number(min(self.values))} … {number(max(self.values))}"

    def __str__(self) -> str:
        return number(self.median)


def number(value: float) -> str:
    """Three significant digits; no decimals from 100 on."""
    if value == 0 or abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


async def interleave(contenders: Mapping[str, Callable[[], Awaitable[float]]], rounds: int) -> dict[str, Spread]:
    """Measures each contender once a round, after one round that warms up and does not count.

    Args:
        contenders: by name: does its work once and returns the figure.
        rounds: how many count.

    Returns:
        The figures by name, in the order given.
    """
    names = list(contenders)
    values: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        gc.unfreeze()  # once a round: collecting everything before each measurement would take longer than measuring
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            value = await contenders[name]()
            if turn:
                values[name].append(value)
    gc.unfreeze()
    return {name: Spread(tuple(figures)) for name, figures in values.items()}
