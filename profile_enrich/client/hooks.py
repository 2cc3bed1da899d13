"""Counters, hooks and logging of a client's lookups.

No object that a hook receives holds an identifier, an attribute value or a secret; keys appear as salted hashes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .._utils.log_once import LogOnce
from ..cache.shared.second_level import SharedStats
from ..errors import ConfigurationError
from ..profile import Reason, Status

__all__ = [
    "BreakerDetails",
    "Details",
    "FeedStats",
    "Health",
    "Hook",
    "LoadDetails",
    "LookupDetails",
    "Observer",
    "Stats",
]

logger = logging.getLogger("profile_enrich")

QUIET_SECONDS = 60.0
"""Failures of one kind are logged once in this many seconds."""


class LookupDetails(NamedTuple):
    """One lookup.

    Args:
        source: the source's name.
        key: a salted hash of the key (see `ProfileKey.digest`); empty for an invalid key.
        status: how it was answered.
        reason: why the profile is empty; `None` if it was found.
        seconds: how long the caller waited.
        error: the `code` of the error, if any.
    """

    source: str
    key: str
    status: Status
    reason: Reason | None
    seconds: float
    error: str | None


class LoadDetails(NamedTuple):
    """One load from the source: a call, and its retries.

    Args:
        source: the source's name.
        key: a salted hash of the key.
        outcome: `found`, `not_found`, `excluded`, `not_modified`, or the `code` of the error.
        seconds: how long the load took.
    """

    source: str
    key: str
    outcome: str
    seconds: float


class BreakerDetails(NamedTuple):
    """A change of the circuit breaker's state.

    Args:
        source: the source's name.
        state: the new state.
    """

    source: str
    state: Literal["closed", "open", "half_open"]


Details = LookupDetails | LoadDetails | BreakerDetails

Hook = Callable[[Details], None]
"""A function that receives each event of a client.

A hook that is an object can have two attributes: the method `watch(client)`, which each client that it is passed to
calls once, and `hits = False`, so that it is not called for fresh hits, which `ProfileClient.stats` counts anyway.
"""


@dataclass(frozen=True, slots=True)
class FeedStats:
    """The state of following the source's change feed.

    Args:
        state: `idle` before the first load, then `connecting`, `live`, or `lost` (only `ttl` applies); `closed` after
            `aclose`.
        connections: the number of opened streams.
        keys: the number of keys received.
        resets: how often the cache was cleared because too many keys had changed.
        last_error: the `code` of the error that ended the feed; `None` while it is open.
    """

    state: Literal["idle", "connecting", "live", "lost", "closed"] = "idle"
    connections: int = 0
    keys: int = 0
    resets: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters and current sizes of a `ProfileClient`.

    Args:
        lookups: the number of lookups by status.
        source_calls: calls to the source, including retries.
        source_errors: failed loads, by the `code` of the error.
        breaker: the state of the circuit breaker.
        in_flight: running loads.
        entries: known profiles in the cache.
        negative_entries: unknown keys in the cache.
        bytes: the approximate memory of the known profiles, in bytes.
        feed: the state of the change feed; `None` without one.
        shared: the counters of the shared second level; `None` without one.
    """

    lookups: dict[Status, int]
    source_calls: int
    source_errors: dict[str, int]
    breaker: Literal["closed", "open", "half_open"]
    in_flight: int
    entries: int
    negative_entries: int
    bytes: int
    feed: FeedStats | None = None
    shared: SharedStats | None = None

    @property
    def total(self) -> int:
        """The number of all lookups."""
        return sum(self.lookups.values())


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a client.

    Args:
        ok: the client is open and its circuit breaker is closed.
        closed: the client was closed.
        breaker: the circuit breaker's state.
        last_error: the `code` of the last load's error; `None` after a success or without loads.
        feed: the state of the change feed (see `FeedStats`); `None` without one. It does not affect `ok`.
    """

    ok: bool
    closed: bool
    breaker: Literal["closed", "open", "half_open"]
    last_error: str | None
    feed: Literal["idle", "connecting", "live", "lost", "closed"] | None = None


class Observer:
    """Count lookups and loads, call the hooks, and log failures of the source at a limited rate.

    Args:
        source: the source's name.
        hooks: the hooks, called in order. An exception of a hook is logged once and does not affect the lookup.
    """

    def __init__(self, source: str, hooks: Sequence[Hook] = ()) -> None:
        self.source = source
        if callable(hooks) or not all(callable(hook) for hook in hooks):
            raise ConfigurationError("hooks must be a sequence of functions")
        self.hooks = tuple(hooks)
        self.hit_hooks = tuple(hook for hook in hooks if getattr(hook, "hits", True))
        self.lookups: dict[Status, int] = dict.fromkeys(Status, 0)
        self.source_calls = 0
        self.source_errors: dict[str, int] = {}
        self.last_error: str | None = None
        self._lock = threading.Lock()
        self._failures = LogOnce(QUIET_SECONDS)
        self._broken_hooks = LogOnce()

    def lookup(self, key: str, status: Status, reason: Reason | None, seconds: float, error: str | None) -> None:
        """Call the hooks for one lookup."""
        hooks = self.hit_hooks if status is Status.HIT else self.hooks
        self._call_hooks(LookupDetails(self.source, key, status, reason, seconds, error), hooks)

    def count(self, status: Status) -> None:
        """Count one lookup."""
        with self._lock:
            self.lookups[status] += 1

    def called(self) -> None:
        """Count one call of the source."""
        with self._lock:
            self.source_calls += 1

    def load(self, key: str, outcome: str, seconds: float, failure: str | None) -> None:
        """Count and log the end of a load; `failure` is the message when it failed."""
        self.last_error = None if failure is None else outcome
        if failure is not None:
            with self._lock:
                self.source_errors[outcome] = self.source_errors.get(outcome, 0) + 1
                first = self._failures.first(outcome)
            if first:
                logger.warning("%s: %s [%s]; pages are served without fresh profiles", self.source, failure, outcome)
        if self.hooks:
            self._call_hooks(LoadDetails(self.source, key, outcome, seconds), self.hooks)

    def breaker(self, state: Literal["closed", "open", "half_open"]) -> None:
        """Log a change of the circuit breaker, and call the hooks."""
        if state == "open":
            logger.warning("%s: circuit breaker opened; pages are served without new profiles", self.source)
        elif state == "closed":
            logger.warning("%s: answers again", self.source)
        self._call_hooks(BreakerDetails(self.source, state), self.hooks)

    def renew_lock(self) -> None:
        """Replace the lock, in a forked child: a thread that exists only in the parent may hold it."""
        self._lock = threading.Lock()

    def _call_hooks(self, details: Details, hooks: Sequence[Hook]) -> None:
        for hook in hooks:
            try:
                hook(details)
            except Exception as error:  # noqa: BLE001  # a hook is the user's code: it must not break a page
                if self._broken_hooks.first(id(hook)):
                    logger.error(
                        "a hook raised %s; lookups go on, and its further failures are not logged", type(error).__name__
                    )
