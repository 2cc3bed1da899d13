"""Prometheus metrics of the server (extra `prometheus`). No label holds personal data or a key."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..._utils.optional_import import import_extra
from ...store import ProfileStore
from ..auth.api_keys import NOBODY, ApiKey
from ..counters import BUCKETS, SharedCounters
from .change_feed import ChangeFeed

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class Metrics:
    """Render the metrics: requests and durations of all workers, sizes and ages of the collections.

    Args:
        totals: the counters of this process and its siblings.
        store: the served store.
        feed: the change feed of this process.
        refreshing: state of scheduled refreshing, if there is any.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(
        self,
        totals: SharedCounters,
        store: ProfileStore,
        feed: ChangeFeed,
        refreshing: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        import_extra("prometheus_client", "metrics of the server", "prometheus")
        from prometheus_client import CollectorRegistry, core, exposition

        self._core: Any = core
        self._exposition: Any = exposition
        registry: Any = CollectorRegistry(auto_describe=False)
        self._totals = totals
        self._store = store
        self._feed = feed
        self._refreshing = refreshing
        self._registry = registry
        self._key = NOBODY
        registry.register(self)

    def text(self, key: ApiKey) -> bytes:
        """Return the current metrics, with the collections that the key may read."""
        self._key = key
        made: bytes = self._exposition.generate_latest(self._registry)
        return made

    def collect(self) -> Iterator[Any]:
        """Yield the metric families; the registry calls it."""
        core, totals = self._core, self._totals.all()
        requests = core.CounterMetricFamily(
            "profile_api_requests", "Requests, by kind and status class.", labels=["kind", "status"]
        )
        for (kind, family), count in totals["requests"].items():
            requests.add_metric([kind, family], count)
        yield requests
        seconds = core.HistogramMetricFamily(
            "profile_api_request_seconds", "Time from the request to the end of its response.", labels=["kind"]
        )
        for kind, counts in totals["buckets"].items():
            summed, buckets = 0, list[tuple[str, int]]()
            for end, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                summed += count
                buckets.append((end, summed))
            seconds.add_metric([kind], buckets, sum_value=totals["seconds"].get(kind, 0.0))
        yield seconds
        rows = core.GaugeMetricFamily("profile_api_records", "Records of a collection.", labels=["collection"])
        ages = core.GaugeMetricFamily(
            "profile_api_age_seconds", "Seconds since a collection last changed.", labels=["collection"]
        )
        for collection in self._key.visible(self._store.collections()):
            rows.add_metric([collection.name], collection.rows)
            ages.add_metric([collection.name], max(0.0, time.time() - collection.updated_at.timestamp()))
        yield rows
        yield ages
        streams = core.GaugeMetricFamily("profile_api_streams", "Open streams, of one worker.", labels=["process"])
        streams.add_metric([str(os.getpid())], self._feed.streams)
        yield streams
        if self._key.sees_everything:
            yield core.GaugeMetricFamily("profile_api_generation", "Of the store.", value=self._store.generation)
        if self._refreshing is not None:
            failed = self._refreshing()["last_error"] is not None
            yield core.GaugeMetricFamily("profile_api_refresh_failed", "1: the last refresh failed.", value=failed)
