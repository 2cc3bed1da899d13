"""Prometheus hook: metrics for lookups and loads.

```python
metrics = PrometheusHook()
profiles = ProfileClient(source, hooks=[metrics])
```

The names follow https://prometheus.io/docs/practices/naming/: seconds, bytes, `_total`. Labels hold no identifier and
no attribute value, only statuses, error codes and the names of sources.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ._utils.optional_import import needs_extra
from .client.hooks import Details, LoadDetails, LookupDetails
from .client.tracked_clients import BREAKER_STATES, TrackedClients
from .errors import ConfigurationError

with needs_extra("prometheus_client", "profile_enrich.prometheus", "prometheus"):
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .client.client import ProfileClient

__all__ = ["PrometheusHook"]

LOOKUP_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bucket boundaries in seconds: from a hit (microseconds) over the default page budget (50 ms) to the longest load."""

LOAD_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_NAMESPACE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class _State(Collector):
    """Collector of the clients' state."""

    def __init__(self, namespace: str) -> None:
        self.watched = TrackedClients()
        self._namespace = namespace

    def describe(self) -> Iterable[Metric]:
        """Return the metric families without samples, for the registry's check of names."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """Return one sample per source, summed over its clients."""
        families = self._families()
        lookups, calls, errors, breakers, active, entries, size, events, available, waiting = families
        for source, totals in self.watched.totals().items():
            for status, count in totals.lookups.items():
                lookups.add_metric([source, status], count)
            calls.add_metric([source], totals.source_calls)
            for code, count in totals.source_errors.items():
                errors.add_metric([source, code], count)
            for state in BREAKER_STATES:
                breakers.add_metric([source, state], totals.breakers[state])
            active.add_metric([source], totals.in_flight)
            entries.add_metric([source, "known"], totals.entries)
            entries.add_metric([source, "unknown"], totals.negative_entries)
            size.add_metric([source], totals.bytes)
            for event, count in totals.shared.items():
                events.add_metric([source, event], count)
            if totals.shared:
                available.add_metric([source], totals.shared_available)
                waiting.add_metric([source], totals.shared_waiting)
        return families

    def _families(self) -> list[CounterMetricFamily | GaugeMetricFamily]:
        def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"{self._namespace}_{name}", text, labels=["source", *labels])

        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"{self._namespace}_{name}", text, labels=["source", *labels])

        return [
            counter("lookups", "Lookups, by how they were answered.", "status"),
            counter("source_calls", "Calls to the source, including retries."),
            counter("source_errors", "Loads that failed, by the code of the error.", "code"),
            gauge("breaker_state", "Circuit breakers in the state: 1 or 0 for one client.", "state"),
            gauge("loads_in_progress", "Loads under way."),
            gauge("cache_entries", "Answers in the cache: known profiles, and keys known to have none.", "kind"),
            gauge("cache_bytes", "Roughly the memory of the profiles in the cache."),
            counter("shared_cache_events", "What the shared second level did, by kind.", "event"),
            gauge("shared_cache_available", "Clients whose shared second level is in use."),
            gauge("shared_cache_waiting", "Invalidations that not every process has acknowledged yet."),
        ]


class _Instruments:
    """The metrics of one registry and namespace, shared by their hooks."""

    def __init__(self, registry: CollectorRegistry, namespace: str) -> None:
        self.state = _State(namespace)
        registry.register(self.state)
        made: list[Collector] = [self.state]
        try:
            self.lookups = Histogram(
                "lookup_duration_seconds",
                "How long lookups took, by how they were answered.",
                ["source", "status"],
                namespace=namespace,
                registry=registry,
                buckets=LOOKUP_BUCKETS,
            )
            made.append(self.lookups)
            self.loads = Histogram(
                "load_duration_seconds",
                "How long loads from the source took, by outcome.",
                ["source", "outcome"],
                namespace=namespace,
                registry=registry,
                buckets=LOAD_BUCKETS,
            )
            made.append(self.loads)
            self.changes = Counter(
                "breaker_changes_total",
                "Changes of the circuit breaker, by the new state.",
                ["source", "state"],
                namespace=namespace,
                registry=registry,
            )
        except ValueError:
            for collector in made:
                registry.unregister(collector)
            raise


_shared: WeakKeyDictionary[CollectorRegistry, dict[str, _Instruments]] = WeakKeyDictionary()
_sharing = threading.Lock()


class PrometheusHook:
    """Report each lookup, load and circuit breaker change to a Prometheus registry.

    One hook can serve several clients, and several hooks on one registry share their metrics. The durations are without
    fresh hits, which take a microsecond: a scrape reads their number from the clients. In prometheus_client's
    multiprocess mode, which cannot read it, they are included.

    Args:
        registry: the registry of the metrics; by default prometheus_client's global one.
        namespace: the prefix of the metrics' names: letters, digits and underscores. Default `profile_enrich`.

    Raises:
        ConfigurationError: the namespace is invalid, or other metrics in the registry have these names.
        MissingExtraError: on import of this module, when prometheus-client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None, namespace: str = "profile_enrich") -> None:
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise ConfigurationError("namespace must consist of letters, digits and underscores, as in 'shop_profiles'")
        self._instruments = _instruments(REGISTRY if registry is None else registry, namespace)
        self.hits = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        """Whether it must be called for fresh hits."""
        # `labels()` takes longer than the observation, so its result is cached.
        self._lookups: dict[tuple[str, str], Histogram] = {}

    def watch(self, client: ProfileClient) -> None:
        """Report the client's counters, cache and breaker at each collection of the registry.

        A client that has this hook calls it itself. The values of several clients of one source are summed. Lookups do
        not become slower, and the client is not kept alive.

        Raises:
            ConfigurationError: `client` is not a `ProfileClient`.
        """
        self._instruments.state.watched.add(client)

    def __call__(self, details: Details) -> None:
        """Record one event of a client."""
        if isinstance(details, LookupDetails):
            labels = (details.source, details.status.value)
            histogram = self._lookups.get(labels)
            if histogram is None:
                histogram = self._lookups[labels] = self._instruments.lookups.labels(*labels)
            histogram.observe(details.seconds)
        elif isinstance(details, LoadDetails):
            self._instruments.loads.labels(details.source, details.outcome).observe(details.seconds)
        else:
            self._instruments.changes.labels(details.source, details.state).inc()


def _instruments(registry: CollectorRegistry, namespace: str) -> _Instruments:
    with _sharing:
        mine = _shared.setdefault(registry, {})
        if namespace not in mine:
            taken = False
            try:
                mine[namespace] = _Instruments(registry, namespace)
            except ValueError:  # prometheus_client's DuplicateTimeseries; older versions lack the class
                taken = True
            if taken:
                raise ConfigurationError(
                    f"namespace: the registry already has metrics named {namespace}_...; choose another namespace"
                )
        return mine[namespace]
