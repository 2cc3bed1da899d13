"""Totals of the clients of a process, by source, for metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from weakref import ref

from ..errors import ConfigurationError
from .client import ProfileClient

__all__ = ["BREAKER_STATES", "SHARED_EVENTS", "ClientTotals", "TrackedClients"]

BREAKER_STATES = ("closed", "open", "half_open")


SHARED_EVENTS = ("hits", "stale", "misses", "refused", "errors", "skipped", "stored", "waits", "missed")
"""Counters of `SharedStats` that only grow."""


@dataclass(slots=True)
class ClientTotals:
    """The summed `Stats` of all clients of one source.

    Args:
        lookups: the number of lookups by status.
        source_calls: calls to the source.
        source_errors: failed loads, by the `code` of the error.
        breakers: the number of circuit breakers by state.
        in_flight: running loads.
        entries: known profiles cached.
        negative_entries: unknown keys cached.
        bytes: the approximate memory of the known profiles, in bytes.
        shared: what the second level did, by the names of the counters in `SharedStats`; empty without one.
        shared_available: the number of clients that have a second level in use now.
        shared_waiting: invalidations that not every process has acknowledged yet.
    """

    lookups: Counter[str] = field(default_factory=Counter[str])
    source_calls: int = 0
    source_errors: Counter[str] = field(default_factory=Counter[str])
    breakers: Counter[str] = field(default_factory=Counter[str])
    in_flight: int = 0
    entries: int = 0
    negative_entries: int = 0
    bytes: int = 0
    shared: Counter[str] = field(default_factory=Counter[str])
    shared_available: int = 0
    shared_waiting: int = 0


class TrackedClients:
    """Weak references to the clients whose state is reported."""

    def __init__(self) -> None:
        # Replaced, never modified, because the collecting thread may be reading it.
        self._clients: tuple[ref[ProfileClient], ...] = ()

    def add(self, client: ProfileClient) -> None:
        """Report a client from now on; a second call changes nothing.

        Raises:
            ConfigurationError: it is not a `ProfileClient`.
        """
        if not isinstance(client, ProfileClient):
            raise ConfigurationError(f"client must be a ProfileClient, not {type(client).__name__}")
        alive = tuple(watched for watched in self._clients if watched() is not None)
        if all(watched() is not client for watched in alive):
            self._clients = (*alive, ref(client))

    def totals(self) -> dict[str, ClientTotals]:
        """Return the totals by name of the source, since two samples with one name would be invalid."""
        totals: dict[str, ClientTotals] = {}
        for watched in self._clients:
            client = watched()
            if client is None:
                continue
            stats = client.stats()
            total = totals.setdefault(client.source.name, ClientTotals())
            total.lookups.update({status.value: count for status, count in stats.lookups.items()})
            total.source_calls += stats.source_calls
            total.source_errors.update(stats.source_errors)
            total.breakers[stats.breaker] += 1
            total.in_flight += stats.in_flight
            total.entries += stats.entries
            total.negative_entries += stats.negative_entries
            total.bytes += stats.bytes
            if (shared := stats.shared) is not None:
                total.shared.update({name: getattr(shared, name) for name in SHARED_EVENTS})
                total.shared_available += shared.available
                total.shared_waiting += shared.waiting
        return totals
