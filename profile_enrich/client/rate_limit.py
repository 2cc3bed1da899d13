"""Client-side rate limit: a token bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .._utils.token_bucket import TokenBucket
from .._utils.validation import check_number

__all__ = ["RateLimit"]

_RESERVE = 0.1
"""The part of the burst that callers who can wait leave to those who cannot."""


class RateLimit:
    """A client-side rate limit: a bound on the calls a second, as a token bucket.

    Args:
        rate: calls a second.
        burst: calls at once, after a quiet period. Default: the rate, and at least 1.
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
            yields: the caller can wait, as pipelines do. It leaves a tenth of the burst to callers who cannot, so that
                a pipeline at full rate does not turn all pages away.

        Returns:
            0.0 when it was taken, else the seconds until there will be one.
        """
        with self._lock:
            return self._bucket.take(self._timer(), reserve=self.burst * _RESERVE if yields else 0.0)

    def after_fork(self) -> None:
        """Replace the lock, in a forked child: another thread of the parent may hold it."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RateLimit({self.rate:g}/s, burst={self.burst:g})"
