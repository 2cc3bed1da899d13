"""Circuit breaker: stop calling a source that keeps failing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from .._utils.validation import check_int, check_number
from ..errors import (
    ProfileEnrichError,
    SourceAuthError,
    SourceConnectionError,
    SourceRateLimited,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
)

__all__ = ["Breaker", "BreakerState", "Permit"]

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
        check_number("open_for", open_for, positive=True)
        check_number("max_open", max_open, least=open_for)
        self.on_change: Callable[[BreakerState], None] | None = None
        """Called with the new state, after each change."""
        self._threshold = check_int("failures", failures, least=0)
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
