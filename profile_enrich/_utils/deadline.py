"""`Deadline`: an absolute deadline, passed to every step of one load."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Deadline"]


class Deadline:
    """A point in time by which a load must be done.

    Args:
        seconds: the seconds from now.
        timer: the monotonic clock, in seconds; injectable for tests.
    """

    __slots__ = ("_at", "_timer", "seconds")

    def __init__(self, seconds: float, *, timer: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._timer = timer
        self._at = timer() + seconds

    def extend(self, seconds: float) -> None:
        """Move the deadline into the future."""
        self._at += seconds

    def remaining(self) -> float:
        """Return the seconds left; 0.0 if it has passed."""
        return max(0.0, self._at - self._timer())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self._timer() >= self._at

    def __repr__(self) -> str:
        return f"Deadline({self.seconds:g} s, {self.remaining():.3f} s left)"
