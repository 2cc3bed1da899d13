"""Retries: exponential backoff with full jitter, within a budget."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from .._utils.validation import check_int, check_number
from ..errors import SourceConnectionError, SourceError, SourceRateLimited, SourceUnavailable

__all__ = ["RetryPolicy"]

_REPEATABLE = (SourceConnectionError, SourceUnavailable, SourceRateLimited)
"""The errors that are retried. A timeout has used up the deadline, and a rejection would be repeated."""


class RetryPolicy:
    """Retries of failed calls: exponential backoff with full jitter, a retry budget, never past the deadline.

    Lookups are idempotent, so retries are safe.

    Args:
        attempts: the largest number of calls per load; 1 for no retry. Default 2.
        ratio: the largest ratio of retries to calls. Default 0.1.
        wait_initial: the longest wait before the first retry, in seconds. It doubles with each retry. Default 0.05.
        wait_max: the longest wait before any retry, in seconds. Default 1. A vendor's `Retry-After` is the shortest.
        rng: returns random numbers in [0, 1). Default `random.random`.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """

    MOST_SAVED = 10.0
    """The largest number of retries saved up in the budget."""

    def __init__(
        self,
        attempts: int = 2,
        *,
        ratio: float = 0.1,
        wait_initial: float = 0.05,
        wait_max: float = 1.0,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._attempts = check_int("attempts", attempts)
        self._ratio = check_number("ratio", ratio, most=1, unit="retries a call")
        self._wait_initial = check_number("wait_initial", wait_initial, positive=True)
        self._wait_max = check_number("wait_max", wait_max, positive=True)
        self._rng = rng
        self._lock = threading.Lock()
        self._saved = 0.0

    def began(self) -> None:
        """Count the first call of a load, which adds a fraction of a retry to the budget."""
        with self._lock:
            self._saved = min(self.MOST_SAVED, self._saved + self._ratio)

    def pause(self, error: SourceError, attempt: int, remaining: float) -> float | None:
        """Return the seconds to wait before a retry; `None` for no retry.

        Args:
            error: how it failed.
            attempt: the number of calls of this load so far.
            remaining: seconds left of the load's deadline.
        """
        if attempt >= self._attempts or not isinstance(error, _REPEATABLE):
            return None
        if isinstance(error, SourceRateLimited) and error.retry_after is None:
            return None  # the vendor rejects calls without a Retry-After
        longest: float = min(self._wait_max, self._wait_initial * 2.0 ** min(attempt - 1, 60))
        pause = self._rng() * longest
        pause = max(pause, error.retry_after or 0.0)
        if pause >= remaining:
            return None
        with self._lock:
            if self._saved < 1.0 - 1e-9:
                return None
            self._saved -= 1.0
        return pause

    def after_fork(self) -> None:
        """Replace the lock, in a forked child: another thread of the parent may hold it."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RetryPolicy(attempts={self._attempts}, ratio={self._ratio:g})"
