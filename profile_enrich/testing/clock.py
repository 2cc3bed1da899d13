"""`ManualClock`: a clock that only the test advances."""

from __future__ import annotations

import threading

__all__ = ["ManualClock"]


class ManualClock:
    """A monotonic clock that only `advance` moves.

    Pass it as a clock or timer argument; calling it returns the time in seconds.

    Args:
        start: the first reading, in seconds.
    """

    __slots__ = ("_lock", "_now")

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = float(start)
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """The current reading, in seconds."""
        return self._now

    @property
    def now(self) -> float:
        """The current reading, in seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Advance the clock and return the new reading.

        Args:
            seconds: the seconds to add, 0.0 or more.

        Raises:
            ValueError: `seconds` is negative.
        """
        if not seconds >= 0:
            raise ValueError("a monotonic clock does not go back: seconds must be 0 or more")
        with self._lock:
            self._now += seconds
            return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now:.3f} s)"
