"""Client-side rate limit: a token bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .._utils.validation import check_number
from .breaker import _LEFT_TO_PAGES

__all__ = ["RateLimit"]


class RateLimit:
    """A token bucket: so many calls a second on average, and so many at once.

    Args:
        rate: calls a second.
        burst: calls at once, after a quiet while; the rate, at least 1, when not given.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: an argument makes no sense.
    """

    def __init__(self, rate: float, *, burst: float | None = None, timer: Callable[[], float] = time.monotonic) -> None:
        self.rate = check_number("rate", rate, unit="calls a second", positive=True)
        self.burst = max(1.0, self.rate) if burst is None else check_number("burst", burst, unit="calls", least=1)
        self._timer = timer
        self._lock = threading.Lock()
        self._tokens = self.burst
        self._at = timer()

    def take(self, *, patient: bool = False) -> float:
        """Takes a token if there is one.

        Args:
            patient: for a caller who waits, as pipelines do. It leaves up to a tenth of the burst to those who do not,
                so that a pipeline at full rate does not turn all pages away.

        Returns:
            0.0 when it was taken, else the seconds until there will be one.
        """
        with self._lock:
            now = self._timer()
            self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.rate)
            self._at = now
            least = min(1.0 + self.burst * _LEFT_TO_PAGES, self.burst) if patient else 1.0
            if self._tokens >= least - 1e-9:
                self._tokens -= 1.0
                return 0.0
            return (least - self._tokens) / self.rate

    def after_fork(self) -> None:
        """In a forked child: the lock may have been held."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RateLimit({self.rate:g}/s, burst={self.burst:g})"
