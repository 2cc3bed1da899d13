"""Records violations, and counts events."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

__all__ = ["Checker", "frames_of", "say"]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def frames_of(error: BaseException) -> str:
    """Return the origin of an exception, without its message."""
    return " > ".join(f"{Path(each.filename).name}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__))


class Checker:
    """Violations by rule, with the first case of each, and counters. Thread-safe.

    All arguments are printed, so they must contain no personal data.
    """

    def __init__(self, *, loud: bool = True) -> None:
        self.violations: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0
        """Of all pages, in seconds."""
        self.stalest = 0.0
        """Seconds since the vendor replaced what was shown, at most."""
        self.lag = 0.0
        """How late the main loop was at most, in seconds."""
        self._loud = loud
        self._lock = threading.Lock()
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def check(self, holds: bool, rule: str, detail: object = "") -> None:
        """Record a violation of a rule unless it holds."""
        if holds:
            return
        with self._lock:
            cases = self.violations.setdefault(rule, [])
            cases.append(f"after {self.seconds:.2f} s: {detail}" if len(cases) < 5 else "")
            first = len(cases) == 1
        if first and self._loud:
            say(f"VIOLATION: {rule}: {cases[0]}")

    def count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.counts[what] += by

    def took(self, seconds: float) -> None:
        with self._lock:
            self.slowest = max(self.slowest, seconds)

    def lagged(self, seconds: float) -> None:
        with self._lock:
            self.lag = max(self.lag, seconds)

    def staleness(self, seconds: float) -> None:
        with self._lock:
            self.stalest = max(self.stalest, seconds)

    def total(self, prefix: str) -> int:
        with self._lock:
            return sum(number for name, number in self.counts.items() if name.startswith(prefix))

    def part(self, prefix: str) -> dict[str, int]:
        """Return the counts under a prefix, largest first."""
        with self._lock:
            found = [(name[len(prefix) :], number) for name, number in self.counts.items() if name.startswith(prefix)]
        return dict(sorted(found, key=lambda item: (-item[1], item[0])))
