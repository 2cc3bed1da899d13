"""Client-side rate limit: a token bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .._utils.token_bucket import TokenBucket
from .._utils.validation import check_number

__all__ = ["RateLimit"]

_RESERVE = 0.1
"""The share of the burst that callers who can wait leave to those who cannot."""


class RateLimit:
    """A client-side limit of calls per second, as a token bucket.

    Args:
        rate: calls per second.
        burst: the largest number of calls at once, after a quiet period. Default: the rate, at least 1.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """

    def __init__(self, rate: float, *, burst: float | None = None, timer: Callable[[], float] = time.monotonic) -> None:
        self.rate = check_number("rate", rate, unit="calls a second", positive=True)
        self.burst = max(1.0, self.rate) if burst is None else check_number("burst", burst, unit="calls", least=1)
        self._timer = timer
        self._lock = threading.Lock()
        self._bucket = TokenBucket(self.rate, self.burst, timer())

    def take(self, *, yields: bool = False) -> float:
        """Take one call if the limit allows it.

        Args:
            yields: whether the caller can wait, as pipelines can. It leaves a tenth of the burst to other callers, so
                that a pipeline at full rate does not block all pages.

        Returns:
            0.0 if it was taken, otherwise the seconds until the next one.
        """
        with self._lock:
            return self._bucket.take(self._timer(), reserve=self.burst * _RESERVE if yields else 0.0)

    def after_fork(self) -> None:
        """Replace the lock, in a forked child: another thread of the parent may hold it."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RateLimit({self.rate:g}/s, burst={self.burst:g})"
