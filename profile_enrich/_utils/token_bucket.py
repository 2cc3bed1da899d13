"""Token bucket, the algorithm of rate limits."""

from __future__ import annotations

__all__ = ["TokenBucket"]

_TOLERANCE = 1e-6
"""The tolerance for rounding errors, in tokens."""


class TokenBucket:
    """A bucket that refills at a constant rate. It is not thread-safe.

    Args:
        rate: tokens per second.
        size: the capacity, and the initial number of tokens.
        now: the time of a monotonic clock, in seconds.
    """

    __slots__ = ("_at", "level", "rate", "size")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self.rate = rate
        self.size = size
        self.level = size
        self._at = now

    def take(self, now: float, cost: float = 1.0, *, reserve: float = 0.0) -> float:
        """Take `cost` tokens if that leaves at least `reserve`.

        Returns:
            0.0 if they were taken, otherwise the seconds until there are enough.
        """
        self.level = min(self.size, self.level + max(0.0, now - self._at) * self.rate)
        self._at = now
        needed = min(cost + reserve, self.size)
        if self.level >= needed - _TOLERANCE:
            self.level = max(0.0, self.level - cost)
            return 0.0
        return (needed - self.level) / self.rate
