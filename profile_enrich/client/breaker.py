"""Circuit breaker: stops calls to a source that keeps failing."""

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
"""Errors that say something about the source rather than about one key."""


class Permit:
    """The permission to make one call, whose outcome is reported to the breaker once."""

    __slots__ = ("_breaker", "_reported", "generation")

    def __init__(self, breaker: Breaker, generation: int) -> None:
        self._breaker = breaker
        self._reported = False
        self.generation = generation

    def end(self, error: ProfileEnrichError | None) -> None:
        """Report how the call ended. Outcomes unrelated to the source (a cancellation, an invalid key) do not count."""
        if self._reported:
            return
        self._reported = True
        if error is None:
            self._breaker.succeeded(self.generation)
        elif isinstance(error, _FAILURES):
            self._breaker.failed(self.generation, getattr(error, "retry_after", None))
        else:
            self._breaker.released(self.generation)


class Breaker:
    """A circuit breaker: after several failures in a row it stops the calls for a while, then lets exactly one through.

    A `Retry-After` of the vendor opens it at once, for as long as it says.

    Args:
        failures: the number of consecutive failures that open it. Default 5; 0 for never (except `Retry-After`).
        open_for: seconds until the first trial call. It doubles with each one that fails. Default 5.
        max_open: the longest time that it stays open, in seconds, also for a `Retry-After`. Default 60.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
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
        self._in_a_row = 0
        self._opened = 0
        self._until = 0.0
        self._generation = 0

    @property
    def state(self) -> BreakerState:
        """`closed`: calls are made. `open`: none is made. `half_open`: one trial call is under way."""
        return self._state

    def ask(self) -> Permit | None:
        """Return the permission to make one call now, or `None`."""
        with self._lock:
            if self._state == "closed":
                return Permit(self, self._generation)
            if self._state == "half_open" or self._timer() < self._until:
                return None
            self._change("half_open")
            permit = Permit(self, self._generation)
        self._notify("half_open")
        return permit

    def trial(self) -> Permit:
        """Return the permission to make one call even if the circuit breaker is open.

        Pipelines use it for a record whose waiting time is over, instead of failing the record without a call. The call
        counts as the trial of a half-open breaker.
        """
        with self._lock:
            if self._state != "open":
                return Permit(self, self._generation)
            self._change("half_open")
            permit = Permit(self, self._generation)
        self._notify("half_open")
        return permit

    def pause(self) -> float:
        """Return the seconds until `ask` may permit a call; 0.0 also while a trial call is under way."""
        with self._lock:
            return max(0.0, self._until - self._timer()) if self._state == "open" else 0.0

    def succeeded(self, generation: int) -> None:
        """Count a success. A call that began before the last change of state does not count."""
        with self._lock:
            if generation != self._generation:
                return
            self._in_a_row = 0
            if self._state != "half_open":
                return
            self._opened = 0
            self._change("closed")
        self._notify("closed")

    def failed(self, generation: int, retry_after: float | None = None) -> None:
        """Count a failure; `retry_after` is how many seconds the vendor asked to wait."""
        with self._lock:
            if generation != self._generation:
                return
            self._in_a_row += 1
            tripped = self._state == "half_open" or 0 < self._threshold <= self._in_a_row
            asked = min(max(0.0, retry_after or 0.0), self._max_open)
            if not tripped and not asked:
                return
            # The vendor's time takes precedence over the doubled one.
            pause = asked or min(self._open_for * 2 ** min(self._opened, 30), self._max_open)
            self._opened += 1
            self._until = self._timer() + pause
            self._change("open")
        self._notify("open")

    def released(self, generation: int) -> None:
        """Count neither success nor failure, and allow the next call."""
        with self._lock:
            if generation != self._generation or self._state != "half_open":
                return
            self._change("open")
        self._notify("open")

    def after_fork(self) -> None:
        """Replace the lock, in a forked child; a trial call that was under way is the parent's."""
        self._lock = threading.Lock()
        if self._state == "half_open":
            self._change("open")

    def _change(self, state: BreakerState) -> None:
        self._state = state
        self._in_a_row = 0
        self._generation += 1

    def _notify(self, state: BreakerState) -> None:
        if self.on_change is not None:
            self.on_change(state)

    def __repr__(self) -> str:
        return f"<Breaker {self._state}>"
