"""Signals at random moments."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.cli.signal_rounds import NUMBERS, Commands

__all__ = ["signal_rounds"]


def signal_rounds(directory: Path, command: str, tries: int) -> tuple[bool, str]:
    """Send a command `tries` signals, one a start."""
    wrong: Counter[str] = Counter()
    slowest = busiest = 0.0
    place = directory / "commands"
    place.mkdir(exist_ok=True)
    with Commands.prepared(place) as commands:
        for number in range(tries):
            sent = NUMBERS[number % len(NUMBERS)]
            struck = commands.strike(command, sent)
            slowest = max(slowest, struck.seconds)
            busiest = max(busiest, struck.cpu)
            if problem := struck.wrong(sent):
                wrong[problem] += 1
    return (
        not wrong and slowest < 5,
        f"{tries} signals, {wrong.total()} wrong {dict(wrong) or ''}; slowest end {slowest:.1f} s,"
        f" most work after a signal {busiest:.1f} s of CPU",
    )
