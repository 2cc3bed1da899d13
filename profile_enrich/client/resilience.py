"""Politeness towards a source: when not to call it, when to call it again, and how often."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Literal

from .._utils.validation import number, whole
from ..errors import (
    ConfigurationError,
    ProfileEnrichError,
    SourceAuthError,
    SourceConnectionError,
    SourceError,
    SourceRateLimited,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
)

__all__ = ["Breaker", "BreakerState", "Permit", "RateLimit", "RetryPolicy"]

BreakerState = Literal["closed", "open", "half_open"]

_FAILURES = (
    SourceTimeout,
    SourceConnectionError,
    SourceUnavailable,
    SourceRateLimited,
    SourceAuthError,
    SourceResponseError,
)
"""What says something about the source rather than about one key."""

_REPEATABLE = (SourceConnectionError, SourceUnavailable, SourceRateLimited)
"""What may go better a moment later. A time-out has used up its time, and a refusal stays one."""

_LEFT_TO_PAGES = 0.1
"""The part of a rate limit's burst that those who wait leave to those who do not."""


class Permit:
    """The right to make one call. Its outcome is told to the breaker once."""

    __slots__ = ("_breaker", "_told", "generation")

    def __init__(self, breaker: Breaker, generation: int) -> None:
        self._breaker = breaker
        self._told = False
        self.generation = generation

    def end(self, error: ProfileEnrichError | None) -> None:
        """Tells how the call ended. What says nothing about the source (a cancellation, a bad key) does not count."""
        if self._told:
            return
        self._told = True
        if error is None:
            self._breaker.succeeded(self.generation)
        elif isinstance(error, _FAILURES):
            self._breaker.failed(self.generation, getattr(error, "retry_after", None))
        else:
            self._breaker.released(self.generation)


class Breaker:
    """A circuit breaker: after so many failures in a row it makes no more calls for a while, then lets exactly one try.

    A `Retry-After` of the vendor opens it at once, for as long as the vendor asked.

    Args:
        failures: in a row, that open it. Default 5; 0 for never (a `Retry-After` still counts).
        open_for: seconds until the first try. It doubles with each try that fails. Default 5.
        max_open: the longest, in seconds, also for a `Retry-After`. Default 60.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: an argument makes no sense.
    """

    def __init__(
        self,
        failures: int = 5,
        *,
        open_for: float = 5.0,
        max_open: float = 60.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        number("open_for", open_for, positive=True)
        number("max_open", max_open, least=open_for)
        self.on_change: Callable[[BreakerState], None] | None = None
        """Called with the new state, after each change."""
        self._threshold = whole("failures", failures, least=0)
        self._open_for = open_for
        self._max_open = max_open
        self._timer = timer
        self._lock = threading.Lock()
        self._state: BreakerState = "closed"
        self._row = 0
        self._opened = 0
        self._until = 0.0
        self._generation = 0

    @property
    def state(self) -> BreakerState:
        """`closed`: calls are made. `open`: none is. `half_open`: one is trying."""
        return self._state

    def ask(self) -> Permit | None:
        """The right to make one call now, or `None`."""
        with self._lock:
            if self._state == "closed":
                return Permit(self, self._generation)
            if self._state == "half_open" or self._timer() < self._until:
                return None
            self._change("half_open")
            permit = Permit(self, self._generation)
        self._tell("half_open")
        return permit

    def pause(self) -> float:
        """Seconds until `ask` may say yes; 0.0 also while one call is trying, which can end any moment."""
        with self._lock:
            return max(0.0, self._until - self._timer()) if self._state == "open" else 0.0

    def succeeded(self, generation: int) -> None:
        """A call went well. One from before the last change says nothing about now."""
        with self._lock:
            if generation != self._generation:
                return
            self._row = 0
            if self._state != "half_open":
                return
            self._opened = 0
            self._change("closed")
        self._tell("closed")

    def failed(self, generation: int, retry_after: float | None = None) -> None:
        """A call failed; `retry_after` is how many seconds the vendor asked to wait."""
        with self._lock:
            if generation != self._generation:
                return
            self._row += 1
            tripped = self._state == "half_open" or 0 < self._threshold <= self._row
            asked = min(max(0.0, retry_after or 0.0), self._max_open)
            if not tripped and not asked:
                return
            # A vendor that says when knows better than a guess that doubles.
            pause = asked or min(self._open_for * 2 ** min(self._opened, 30), self._max_open)
            self._opened += 1
            self._until = self._timer() + pause
            self._change("open")
        self._tell("open")

    def released(self, generation: int) -> None:
        """A call ended without saying anything about the source: the next one may try."""
        with self._lock:
            if generation != self._generation or self._state != "half_open":
                return
            self._change("open")
        self._tell("open")

    def after_fork(self) -> None:
        """In a forked child: a try that was under way belongs to the parent."""
        self._lock = threading.Lock()
        if self._state == "half_open":
            self._change("open")

    def _change(self, state: BreakerState) -> None:
        self._state = state
        self._row = 0
        self._generation += 1

    def _tell(self, state: BreakerState) -> None:
        if self.on_change is not None:
            self.on_change(state)

    def __repr__(self) -> str:
        return f"<Breaker {self._state}>"


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
        self.rate = number("rate", rate, unit="calls a second", positive=True)
        self.burst = max(1.0, self.rate) if burst is None else number("burst", burst, unit="calls", least=1)
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


class RetryPolicy:
    """Whether and when a failed call is repeated: with full jitter, within a budget, and not past the deadline.

    A lookup only reads, so that repeating it is safe.

    Args:
        attempts: calls for one load at most; 1 for no retry. Default 2.
        ratio: retries stay at or below this fraction of calls. Default 0.1.
        base: the longest pause before the first retry, in seconds; it doubles with each. Default 0.05.
        cap: the longest pause at all, in seconds. Default 1. A `Retry-After` of the vendor is the least.
        chance: random numbers in [0, 1).

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
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._attempts = whole("attempts", attempts)
        self._ratio = number("ratio", ratio, unit="retries a call")
        if self._ratio > 1:
            raise ConfigurationError(f"ratio must be a fraction of at most 1, not {ratio!r}")
        self._base = number("base", base, positive=True)
        self._cap = number("cap", cap, positive=True)
        self._chance = chance
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
