"""Retries: exponential backoff with full jitter, within a budget."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from .._utils.validation import check_int, check_number
from ..errors import (
    ConfigurationError,
    SourceError,
    SourceRateLimited,
)
from .breaker import _REPEATABLE

__all__ = ["RetryPolicy"]


class RetryPolicy:
    """Whether and when a failed call is repeated: with full jitter, within a budget, and not past the deadline.

    A lookup only reads, so that repeating it is safe.

    Args:
        attempts: calls for one load at most; 1 for no retry. Default 2.
        ratio: retries stay at or below this fraction of calls. Default 0.1.
        base: the longest pause before the first retry, in seconds; it doubles with each. Default 0.05.
        cap: the longest pause at all, in seconds. Default 1. A `Retry-After` of the vendor is the least.
        rng: random numbers in [0, 1).

    Raises:
        ConfigurationError: an argument makes no sense.
    """

    MOST_SAVED = 10.0
    """Retries that quiet times may save up."""

    def __init__(
        self,
        attempts: int = 2,
        *,
        ratio: float = 0.1,
        base: float = 0.05,
        cap: float = 1.0,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._attempts = check_int("attempts", attempts)
        self._ratio = check_number("ratio", ratio, unit="retries a call")
        if self._ratio > 1:
            raise ConfigurationError(f"ratio must be a fraction of at most 1, not {ratio!r}")
        self._base = check_number("base", base, positive=True)
        self._cap = check_number("cap", cap, positive=True)
        self._chance = rng
        self._lock = threading.Lock()
        self._saved = 0.0

    def began(self) -> None:
        """A load makes its first call: that earns a fraction of a retry."""
        with self._lock:
            self._saved = min(self.MOST_SAVED, self._saved + self._ratio)

    def pause(self, error: SourceError, attempt: int, remaining: float) -> float | None:
        """How many seconds to wait before the call is repeated; `None` when it must not be.

        Args:
            error: how it failed.
            attempt: how many calls this load has made.
            remaining: seconds left of the load's deadline.
        """
        if attempt >= self._attempts or not isinstance(error, _REPEATABLE):
            return None
        if isinstance(error, SourceRateLimited) and error.retry_after is None:
            return None  # the vendor has enough of us and does not say for how long
        longest: float = min(self._cap, self._base * 2.0 ** min(attempt - 1, 60))
        pause = self._chance() * longest
        pause = max(pause, error.retry_after or 0.0)
        if pause >= remaining:
            return None
        with self._lock:
            if self._saved < 1.0 - 1e-9:
                return None
            self._saved -= 1.0
        return pause

    def after_fork(self) -> None:
        """In a forked child: the lock may have been held."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RetryPolicy(attempts={self._attempts}, ratio={self._ratio:g})"
