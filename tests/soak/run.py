"""The complete run: all chapters, a line each minute, and a table at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from profile_enrich.testing import VendorServer

from .chapter import Chapter
from .checker import Checker, say
from .expected_state import ExpectedState
from .faults import DECK, FaultSchedule
from .settings import COMBINATIONS, Settings
from .watch import Held, LogWatcher

__all__ = ["Outcome", "soak"]

BLOCKS_TOLERANCE = (0.03, 5_000)
"""How many more memory blocks Python may hold at the end than after the warm-up: a fraction, and a number."""

RSS_TOLERANCE = (0.10, 16 * 2**20)
"""How much more memory the process may hold: a fraction, and bytes for the allocator's fragments."""

LONG_RUN = 100.0
"""Seconds from which on each fault must have been played, and the last chapter waits until all has expired."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run.

    Args:
        checker: violations and counts.
        warm: what was held after the warm-up; `None` when the run was too short for one.
        final: what was held at the end.
    """

    checker: Checker
    warm: Held | None
    final: Held


async def soak(settings: Settings, *, loud: bool = True) -> Outcome:
    """Plays all chapters.

    Args:
        settings: how long, how many.
        loud: prints violations as they happen, and a line each minute.
    """
    checker = Checker(loud=loud)
    expected = ExpectedState(settings, checker)
    warm: Held | None = None
    long = settings.chapters * settings.chapter_seconds >= LONG_RUN
    # The vendor serves the data that the run changes.
    with (
        LogWatcher(expected, checker),
        VendorServer(expected.profiles, key="secret", etags=True, seed=settings.seed) as vendor,
    ):
        fault_schedule = FaultSchedule(vendor, settings, checker)
        reporter = asyncio.create_task(_report(checker)) if loud else None
        first = held = Held.now()
        for number in range(settings.chapters):
            expire = long and number == settings.chapters - 1
            await _chapter(number, vendor, fault_schedule, expected, settings, checker, expire)
            held = await _settled(first, vendor, checker)
            if number == len(COMBINATIONS) - 1 and settings.chapters > len(COMBINATIONS):
                warm = held
        if reporter is not None:
            reporter.cancel()
    if warm is not None:
        _judge_memory(warm, held, checker)
    if long:
        missing = [name for name in DECK if not checker.counts[f"fault: {name}"]]
        checker.check(not missing, "the soak itself: faults that were never played", missing)
    return Outcome(checker, warm, held)


async def _chapter(
    number: int,
    vendor: VendorServer,
    fault_schedule: FaultSchedule,
    expected: ExpectedState,
    settings: Settings,
    checker: Checker,
    expire: bool,
) -> None:
    # A separate function, so that no variable here keeps the chapter alive.
    chapter = Chapter(number, vendor, fault_schedule, expected, settings, checker, expire=expire)
    checker.count(f"chapter: {chapter.name}")
    try:
        await chapter.run()
    except Exception as error:
        checker.check(False, "the soak itself: a chapter broke off", f"{chapter.name}: {error!r}")
        raise
    finally:
        expected.new_chapter()


async def _settled(first: Held, vendor: VendorServer, checker: Checker) -> Held:
    """Return the resources held after a chapter, which must equal those before the first."""
    retry_timeout = time.monotonic() + 5
    while True:
        vendor.reset_calls()
        held = Held.now()
        # Fewer is possible: the vendor's loop reopens its own at each restart.
        if (held.tasks, held.threads) == (first.tasks, first.threads) and held.sockets <= first.sockets:
            return held
        if time.monotonic() > retry_timeout:
            break
        await asyncio.sleep(0.1)
    checker.check(held.tasks <= first.tasks, "L14: tasks are left", f"{held.tasks}, {first.tasks} before")
    checker.check(held.threads == first.threads, "L14: threads are left", f"{held.threads}, {first.threads} before")
    checker.check(held.sockets <= first.sockets, "L14: sockets are left", f"{held.sockets}, {first.sockets} before")
    return held


def _judge_memory(warm: Held, final: Held, checker: Checker) -> None:
    blocks = warm.blocks * (1 + BLOCKS_TOLERANCE[0]) + BLOCKS_TOLERANCE[1]
    checker.check(final.blocks <= blocks, "memory: Python's blocks grow", f"{warm.blocks:,} to {final.blocks:,}")
    rss = warm.rss * (1 + RSS_TOLERANCE[0]) + RSS_TOLERANCE[1]
    checker.check(final.rss <= rss, "memory: the process grows", f"{_mib(warm.rss)} to {_mib(final.rss)}")


async def _report(checker: Checker) -> None:
    minute = 0
    while True:
        await asyncio.sleep(60)
        minute += 1
        responses = checker.part("response: ")
        say(
            f"minute {minute}: {sum(responses.values()):,} responses {responses}, {checker.counts['upstream']:,} calls "
            f"at the vendor, {checker.total('fault: '):,} faults, slowest page {1000 * checker.slowest:.0f} ms, "
            f"{len(checker.violations)} rules violated"
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def table(outcome: Outcome, settings: Settings) -> str:
    """Return all counts as text."""
    checker, warm, final = outcome.checker, outcome.warm, outcome.final
    counts = checker.counts
    loads, retries = counts["loads"], counts["retries"]

    def listed(prefix: str) -> str:
        return ", ".join(f"{name} {number:,}" for name, number in checker.part(prefix).items()) or "none"

    rows = [
        ("seed", str(settings.seed)),
        ("time", f"{checker.seconds:.0f} s"),
        ("chapters", listed("chapter: ")),
        ("visitors", f"{settings.visitors} in process, {settings.socket_visitors} through uvicorn"),
        ("responses, by status", listed("response: ")),
        ("left in mid-request", listed("left: ")),
        ("profiles on pages", listed("page status: ")),
        ("lookups elsewhere", f"{checker.total('elsewhere: '):,}"),
        ("lookups", listed("lookup: ")),
        ("operator", listed("operator: ")),
        ("loads of the source", f"{loads:,}, and {retries:,} retries ({100 * retries / max(1, loads):.1f} %)"),
        ("errors of the source", listed("source error: ")),
        ("tries of the breaker", f"{counts['breaker: tries']:,}"),
        ("calls at the vendor", f"{counts['upstream']:,}"),
        ("faults played", f"{checker.total('fault: '):,}: {listed('fault: ')}"),
        ("fault_schedule", listed("fault_schedule: ")),
        ("slowest page", f"{1000 * checker.slowest:.0f} ms; the loop was late by {1000 * checker.lag:.0f} ms at most"),
        ("stalest profile", f"{checker.stalest:.2f} s behind the vendor; allowed are {settings.oldest:.2f} s"),
        ("log messages", listed("log: ")),
        ("held at the end", f"{final.tasks} tasks, {len(final.threads)} threads, {final.sockets} sockets"),
    ]
    if warm is None:
        rows.append(("memory", f"{_mib(final.rss)}, {final.blocks:,} blocks; too short a run to judge"))
    else:
        rows.append(("memory", f"{_mib(warm.rss)} and {warm.blocks:,} blocks after the first turn; "
                               f"{_mib(final.rss)} and {final.blocks:,} at the end"))  # fmt: skip
        rows.append(("allowed", f"{RSS_TOLERANCE[0]:.0%} and {_mib(RSS_TOLERANCE[1])} more; "
                                f"{BLOCKS_TOLERANCE[0]:.0%} and {BLOCKS_TOLERANCE[1]:,} blocks more"))  # fmt: skip
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)
