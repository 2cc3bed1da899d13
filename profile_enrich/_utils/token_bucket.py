"""A token bucket, the usual algorithm of rate limits."""

from __future__ import annotations

__all__ = ["TokenBucket"]

_TOLERANCE = 1e-6
"""What floating-point sums may lose of a token before it counts as missing."""


class TokenBucket:
    """A bucket that refills at a constant rate. It is not locked: callers in several threads lock it.

    Args:
        rate: tokens a second.
        size: tokens that it holds at most, and at first.
        now: the time, on any monotonic clock in seconds.
    """

    __slots__ = ("_at", "level", "rate", "size")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self.rate = rate
        self.size = size
        self.level = size
        self._at = now

    def take(self, now: float, cost: float = 1.0, *, reserve: float = 0.0) -> float:
        """Take `cost` tokens if there are that many beyond the `reserve`.

        Returns:
            0.0 when they were taken, else the seconds until there are enough.
        """
        self.level = min(self.size, self.level + max(0.0, now - self._at) * self.rate)
        self._at = now
        needed = min(cost + reserve, self.size)
        if self.level >= needed - _TOLERANCE:
            self.level = max(0.0, self.level - cost)
            return 0.0
        return (needed - self.level) / self.rate
