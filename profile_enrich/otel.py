"""OpenTelemetry hook: metrics and spans for lookups and loads.

```python
telemetry = OpenTelemetryHook()
profiles = ProfileClient(source, hooks=[telemetry])
```

OpenTelemetry has no semantic convention for lookups and caches, so the names start with `profile_enrich.`. Naming,
durations in seconds, `error.type` and the form of state metrics follow the general conventions
(https://opentelemetry.io/docs/specs/semconv/general/). Metrics and spans hold no identifier and no attribute value.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ._utils.optional_import import needs_extra
from ._version import __version__
from .client.hooks import BreakerDetails, Details, LoadDetails, LookupDetails
from .client.tracked_clients import BREAKER_STATES, ClientTotals, TrackedClients
from .profile import Status

with needs_extra("opentelemetry", "profile_enrich.otel", "otel"):
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
    from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TracerProvider, get_tracer

if TYPE_CHECKING:
    from .client.client import ProfileClient

__all__ = ["OpenTelemetryHook"]

SCOPE = "profile_enrich"

LOOKUP_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Bucket boundaries in seconds: from a hit (microseconds) over the default page budget (50 ms) to the longest load."""

LOAD_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Those of `http.client.request.duration`."""

ANSWERS = frozenset({"found", "not_found", "excluded", "not_modified"})
"""The outcomes of a load that are not error codes."""

WAITED = frozenset({Status.MISS, Status.COALESCED, Status.TIMEOUT, Status.ERROR})
"""The statuses that get a span. The others take microseconds, less than a span costs."""

LINKED_FLIGHTS = 1024
"""The number of recent loads kept as link targets for the lookups that waited for them."""

Labels = dict[str, str]

_watched: WeakKeyDictionary[MeterProvider, TrackedClients] = WeakKeyDictionary()
_watched_globally = TrackedClients()


class OpenTelemetryHook:
    """Report each lookup, load and circuit breaker change to OpenTelemetry.

    One hook can serve several clients. The metrics are `profile_enrich.lookup.duration` (a histogram in seconds,
    without fresh hits, which take a microsecond), `profile_enrich.load.duration` and
    `profile_enrich.breaker.changes`. Those of the clients' state are `profile_enrich.lookups`, which counts every
    lookup, `profile_enrich.cache.entries`, `profile_enrich.cache.usage`, `profile_enrich.load.active` and
    `profile_enrich.breaker.status`.

    Each load has a root span, because several lookups share it. Each lookup that had to wait has a span within the
    request's span, linked to its load.

    Args:
        tracer_provider: the provider of spans; the global one by default.
        meter_provider: the provider of metrics; the global one by default.
        include_key: whether spans have `profile_enrich.key.hash`, the salted hash of the key. Default false.

    Raises:
        MissingExtraError: on import of this module, when opentelemetry-api is not installed.
    """

    hits = False
    """It need not be called for fresh hits: a collection reads their number from the clients."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        include_key: bool = False,
    ) -> None:
        self._include_key = include_key
        self._tracer = get_tracer(SCOPE, __version__, tracer_provider)
        meter = get_meter(SCOPE, __version__, meter_provider)
        self._lookups = meter.create_histogram(
            "profile_enrich.lookup.duration",
            unit="s",
            description="How long lookups took, by how they were answered.",
            explicit_bucket_boundaries_advisory=LOOKUP_BUCKETS,
        )
        self._loads = meter.create_histogram(
            "profile_enrich.load.duration",
            unit="s",
            description="How long loads from the source took, by outcome.",
            explicit_bucket_boundaries_advisory=LOAD_BUCKETS,
        )
        self._changes = meter.create_counter(
            "profile_enrich.breaker.changes",
            unit="{change}",
            description="Changes of the circuit breaker, by the new state.",
        )
        self._labels: dict[tuple[str, str, str | None, str | None], Labels] = {}
        self._landed: OrderedDict[tuple[str, str], tuple[str, SpanContext]] = OrderedDict()
        # Hooks on one provider share the instruments and clients: an SDK registers the callbacks of an observable
        # instrument only once.
        self._watched = (
            _watched_globally if meter_provider is None else _watched.setdefault(meter_provider, TrackedClients())
        )
        for name, unit, description, observe in (
            ("cache.entries", "{entry}", "Answers in the cache.", _entries),
            ("cache.usage", "By", "Roughly the memory of the profiles in the cache.", _usage),
            ("load.active", "{load}", "Loads under way.", _active),
            ("breaker.status", "1", "Circuit breakers in the state: 1 or 0 for one client.", _breakers),
            ("shared_cache.available", "{client}", "Clients whose shared second level is in use.", _available),
            ("shared_cache.waiting", "{event}", "Invalidations not acknowledged by every process yet.", _waiting),
        ):
            meter.create_observable_up_down_counter(
                f"profile_enrich.{name}",
                [_callback(self._watched, observe)],
                unit=unit,
                description=description,
            )
        for name, unit, description, observe in (
            ("lookups", "{lookup}", "Lookups, by how they were answered.", _answered),
            ("shared_cache.events", "{event}", "What the shared second level did, by kind.", _shared),
        ):
            meter.create_observable_counter(
                f"profile_enrich.{name}", [_callback(self._watched, observe)], unit=unit, description=description
            )

    def watch(self, client: ProfileClient) -> None:
        """Report the client's counters, cache, loads and breaker at each collection of metrics.

        A client that has this hook calls it itself. The values of several clients of one source are summed. Lookups do
        not become slower, and the client is not kept alive.

        Raises:
            ConfigurationError: `client` is not a `ProfileClient`.
        """
        self._watched.add(client)

    def __call__(self, details: Details) -> None:
        """Record one event of a client."""
        if isinstance(details, LookupDetails):
            self._lookup(details)
        elif isinstance(details, LoadDetails):
            self._load(details)
        else:
            self._breaker(details)

    def _lookup(self, details: LookupDetails) -> None:
        status = details.status
        # A handled error, as with stale data, has no `error.type` by the conventions.
        error = details.error if status in (Status.TIMEOUT, Status.ERROR) else None
        identity = (details.source, status.value, details.reason and details.reason.value, error)
        labels = self._labels.get(identity)
        if labels is None:
            labels = self._labels[identity] = _labelled(
                details.source, error, {"lookup.status": status.value, "lookup.reason": identity[2]}
            )
        self._lookups.record(details.seconds, labels)
        if status in WAITED:
            landed = self._landed.get((details.source, details.key))
            # A lookup that failed without a load (open circuit, invalid key) must not link to an older one.
            links = [Link(landed[1])] if landed is not None and _answers(landed[0], status, error) else []
            self._span("lookup", details, labels, error, SpanKind.INTERNAL, None, links)

    def _load(self, details: LoadDetails) -> None:
        error = None if details.outcome in ANSWERS else details.outcome
        labels = _labelled(details.source, error, {"load.outcome": details.outcome})
        self._loads.record(details.seconds, labels)
        # An empty context, because a shared load is not a child of the request that started it.
        span = self._span("fetch", details, labels, error, SpanKind.CLIENT, Context(), [])
        if span.is_valid:
            self._landed[(details.source, details.key)] = (details.outcome, span)
            if len(self._landed) > LINKED_FLIGHTS:
                self._landed.popitem(last=False)

    def _breaker(self, details: BreakerDetails) -> None:
        self._changes.add(1, _labelled(details.source, None, {"breaker.state": details.state}))

    def _span(
        self,
        verb: str,
        details: LookupDetails | LoadDetails,
        labels: Labels,
        error: str | None,
        kind: SpanKind,
        context: Context | None,
        links: list[Link],
    ) -> SpanContext:
        if self._include_key and details.key:
            labels = {**labels, "profile_enrich.key.hash": details.key}
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{verb} {details.source}",
            context=context,
            kind=kind,
            attributes=labels,
            links=links,
            start_time=end - int(details.seconds * 1e9),
        )
        if error is not None:
            span.set_status(StatusCode.ERROR)
        span.end(end)
        return span.get_span_context()


def _labelled(source: str, error: str | None, more: dict[str, str | None]) -> Labels:
    labels = {"profile_enrich.source": source}
    labels.update({f"profile_enrich.{name}": value for name, value in more.items() if value is not None})
    if error is not None:
        labels["error.type"] = error
    return labels


def _answers(outcome: str, status: Status, error: str | None) -> bool:
    """Return whether a load with this outcome can have produced a lookup with this status."""
    if status in (Status.MISS, Status.COALESCED):
        return outcome in ANSWERS
    return outcome == error


Observe = Callable[[ClientTotals], Iterable[tuple[int, Labels]]]


def _callback(watched: TrackedClients, observe: Observe) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        for source, totals in watched.totals().items():
            for value, more in observe(totals):
                yield Observation(value, {"profile_enrich.source": source, **more})

    return callback


def _entries(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    yield totals.entries, {"profile_enrich.entry.kind": "known"}
    yield totals.negative_entries, {"profile_enrich.entry.kind": "unknown"}


def _usage(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    yield totals.bytes, {}


def _active(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    yield totals.in_flight, {}


def _breakers(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    for state in BREAKER_STATES:
        yield totals.breakers[state], {"profile_enrich.breaker.state": state}


def _answered(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    for status, count in totals.lookups.items():
        yield count, {"profile_enrich.lookup.status": status}


def _shared(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    for event, count in totals.shared.items():
        yield count, {"profile_enrich.event": event}


def _available(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    if totals.shared:
        yield totals.shared_available, {}


def _waiting(totals: ClientTotals) -> Iterable[tuple[int, Labels]]:
    if totals.shared:
        yield totals.shared_waiting, {}
