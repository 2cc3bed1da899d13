"""OpenTelemetry metrics and spans, read back through the SDK's in-memory reader and exporter."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from profile_enrich import (
    ConfigurationError,
    MissingExtraError,
    ProfileClient,
    ProfileKey,
    ProfileMiddleware,
    SharedCache,
    SourceConnectionError,
    SourceTimeout,
    from_header,
)
from profile_enrich.client.hooks import BreakerDetails, LoadDetails, LookupDetails
from profile_enrich.otel import LINKED_FLIGHTS, OpenTelemetryHook
from profile_enrich.profile import Reason, Status
from tests.helpers import ScriptedSource, Switch, client_of, found, nobody

PLANTED = "ann.planted@shop.example"


class Backend:
    """An OpenTelemetry SDK with in-memory exporters."""

    def __init__(self, **arguments: Any) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])
        self.hook = OpenTelemetryHook(self.tracers, self.meters, **arguments)

    @property
    def spans(self) -> dict[str, list[ReadableSpan]]:
        spans: dict[str, list[ReadableSpan]] = {}
        for span in self._exporter.get_finished_spans():
            spans.setdefault(span.name, []).append(span)
        return spans

    @property
    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """Return the count of a histogram, or the value of another metric, by attributes."""
        metric = self.metrics[f"profile_enrich.{name}"]
        return {
            frozenset((key.removeprefix("profile_enrich."), value) for key, value in point.attributes.items()): getattr(
                point, "count", None
            )
            if hasattr(point, "count")
            else point.value
            for point in metric.data.data_points
        }

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def backend() -> Any:
    made: list[Backend] = []

    def make(**arguments: Any) -> Backend:
        made.append(Backend(**arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Backend]


def links_of(span: ReadableSpan) -> list[SpanContext]:
    return [link.context for link in span.links]


def labels(**more: str) -> frozenset[tuple[str, str]]:
    return frozenset({("source", "scripted"), *((key.replace("__", "."), value) for key, value in more.items())})


async def test_L11_each_lookup_and_load_is_counted(backend: Make) -> None:
    one = backend()
    switch = Switch()
    client = client_of(ScriptedSource(switch), hooks=[one.hook])
    for _ in range(3):
        await client.lookup("u1")
    source = ScriptedSource(nobody)
    other = client_of(source, hooks=[one.hook])
    for _ in range(2):
        await other.lookup("u2")
    switch.error = SourceConnectionError("down")
    await client.lookup("u3")
    client.skip(Reason.ANONYMOUS)
    await client.lookup("")
    assert one.points("lookup.duration") == {
        labels(lookup__status="miss"): 1,
        labels(lookup__status="miss", lookup__reason="not_found"): 1,
        labels(lookup__status="negative", lookup__reason="not_found"): 1,
        labels(lookup__status="error", lookup__reason="unavailable", error__type="source_connection"): 1,
        labels(lookup__status="error", lookup__reason="unavailable", error__type="invalid_key"): 1,
        labels(lookup__status="skipped", lookup__reason="anonymous"): 1,
    }
    counted = {"hit": 2, "miss": 2, "negative": 1, "error": 2, "skipped": 1}
    assert {labels(lookup__status=status): count for status, count in counted.items()} == {
        point: count for point, count in one.points("lookups").items() if count
    }
    assert one.points("load.duration") == {
        labels(load__outcome="found"): 1,
        labels(load__outcome="not_found"): 1,
        labels(load__outcome="source_connection", error__type="source_connection"): 1,
    }


async def test_units_and_buckets_follow_the_conventions(backend: Make) -> None:
    one = backend()
    client = client_of(ScriptedSource(delay=0.02), hooks=[one.hook])
    await client.get("u1")
    one.hook(BreakerDetails("scripted", "open"))
    metrics = one.metrics
    assert {name: metric.unit for name, metric in metrics.items()} == {
        "profile_enrich.lookups": "{lookup}",
        "profile_enrich.lookup.duration": "s",
        "profile_enrich.load.duration": "s",
        "profile_enrich.breaker.changes": "{change}",
        "profile_enrich.breaker.status": "1",
        "profile_enrich.cache.entries": "{entry}",
        "profile_enrich.cache.usage": "By",
        "profile_enrich.load.active": "{load}",
    }
    for name in ("lookup", "load"):
        [point] = metrics[f"profile_enrich.{name}.duration"].data.data_points
        assert 0.02 <= point.sum < 2
        assert point.explicit_bounds[-1] <= 10
    assert all(metric.description.endswith(".") for metric in metrics.values())


async def test_a_handled_error_is_not_an_error_of_the_lookup(backend: Make) -> None:
    one = backend()
    one.hook(LookupDetails("scripted", "k", Status.STALE, None, 0.1, "source_timeout"))
    assert one.points("lookup.duration") == {labels(lookup__status="stale"): 1}
    assert one.spans == {}


async def test_a_load_is_a_root_span_with_its_times(backend: Make) -> None:
    one = backend()
    client = client_of(ScriptedSource(delay=0.02), hooks=[one.hook])
    with one.tracers.get_tracer("app").start_as_current_span("request") as request:
        await client.get("u1")
    [load] = one.spans["fetch scripted"]
    [lookup] = one.spans["lookup scripted"]
    assert (load.kind, lookup.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
    assert load.parent is None
    assert lookup.parent is not None
    assert lookup.parent == request.get_span_context()
    assert links_of(lookup) == [load.context]
    for span in (load, lookup):
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0.02e9 <= span.end_time - span.start_time < 2e9
        assert span.status.status_code is StatusCode.UNSET
    assert dict(load.attributes or {}) == {
        "profile_enrich.source": "scripted",
        "profile_enrich.load.outcome": "found",
    }


async def test_L9_a_load_that_overran_is_not_in_the_trace_of_who_asked_first(backend: Make) -> None:
    one = backend()
    source = ScriptedSource()
    source.gate = asyncio.Event()
    client = client_of(source, hooks=[one.hook], deadline=0.03)
    with one.tracers.get_tracer("app").start_as_current_span("request"):
        await client.lookup("u1")
    source.gate.set()
    [load] = one.spans["fetch scripted"]
    assert load.parent is None
    assert load.status.status_code is StatusCode.ERROR
    assert (load.attributes or {})["error.type"] == "source_timeout"
    [lookup] = one.spans["lookup scripted"]
    assert lookup.status.status_code is StatusCode.ERROR
    assert links_of(lookup) == [load.context]


async def test_only_lookups_that_waited_have_a_span(backend: Make) -> None:
    one = backend()
    source = ScriptedSource()
    source.gate = asyncio.Event()
    client = client_of(source, hooks=[one.hook])
    waiting = [asyncio.create_task(client.lookup("u1")) for _ in range(3)]
    await asyncio.sleep(0.01)
    await client.lookup("u1", budget=0.01)
    source.gate.set()
    await asyncio.gather(*waiting)
    for _ in range(4):
        await client.lookup("u1")
    spans = one.spans["lookup scripted"]
    statuses = [str((span.attributes or {})["profile_enrich.lookup.status"]) for span in spans]
    assert sorted(statuses) == ["coalesced", "coalesced", "miss", "timeout"]
    timed_out = spans[statuses.index("timeout")]
    assert (timed_out.attributes or {})["error.type"] == "budget_exceeded"
    assert not timed_out.links  # the load was still running
    assert len(one.spans["fetch scripted"]) == 1


async def test_a_failed_lookup_links_to_its_own_load_only(backend: Make) -> None:
    one = backend()
    one.hook(LoadDetails("s", "k", "found", 0.1))
    one.hook(LookupDetails("s", "k", Status.ERROR, Reason.UNAVAILABLE, 0.0, "circuit_open"))
    one.hook(LoadDetails("s", "k", "source_connection", 0.1))
    one.hook(LookupDetails("s", "k", Status.ERROR, Reason.UNAVAILABLE, 0.1, "source_connection"))
    one.hook(LookupDetails("s", "k", Status.MISS, None, 0.1, None))
    assert [len(span.links) for span in one.spans["lookup s"]] == [0, 1, 0]


def test_the_memory_of_loads_is_bounded(backend: Make) -> None:
    one = backend()
    for number in range(LINKED_FLIGHTS + 50):
        one.hook(LoadDetails("s", str(number), "found", 0.0))
    assert len(one.hook._landed) == LINKED_FLIGHTS
    one.hook(LookupDetails("s", "0", Status.MISS, None, 0.0, None))
    one.hook(LookupDetails("s", "60", Status.MISS, None, 0.0, None))
    assert [len(span.links) for span in one.spans["lookup s"]] == [0, 1]


async def test_key_hashes_only_when_asked_for_and_never_in_metrics(backend: Make) -> None:
    for include in (False, True):
        one = backend(include_key=include)
        client = client_of(ScriptedSource(), hooks=[one.hook])
        await client.get("u1")
        client.skip(Reason.ANONYMOUS)
        await client.lookup("")
        digest = ProfileKey("u1").digest()
        hashes = [
            (span.attributes or {}).get("profile_enrich.key.hash")
            for name in ("fetch scripted", "lookup scripted")
            for span in one.spans[name]
        ]
        assert hashes == ([digest, digest, None] if include else [None, None, None])
        assert digest not in str({name: metric.to_json() for name, metric in one.metrics.items()})


async def test_breaker_changes_and_state(backend: Make) -> None:
    one = backend()
    switch = Switch(SourceTimeout("late"))
    client = client_of(ScriptedSource(switch), hooks=[one.hook])

    def status() -> dict[str, int]:
        return {dict(point)["breaker.state"]: value for point, value in one.points("breaker.status").items()}

    assert status() == {"closed": 1, "open": 0, "half_open": 0}
    for number in range(30):
        await client.lookup(f"u{number}")
    assert status() == {"closed": 0, "open": 1, "half_open": 0}
    assert one.points("breaker.changes") == {labels(breaker__state="open"): 1}


async def test_watched_clients_of_one_source_are_added_up(backend: Make) -> None:
    one = backend()
    another = OpenTelemetryHook(one.tracers, one.meters)  # the same instruments
    clients = [client_of(ScriptedSource()) for _ in range(2)]
    one.hook.watch(clients[0])
    one.hook.watch(clients[0])
    another.watch(clients[1])
    for client in clients:
        await client.get("u1")
    await clients[0].get("u2")
    assert one.points("cache.entries") == {labels(entry__kind="known"): 3, labels(entry__kind="unknown"): 0}
    assert one.points("load.active") == {labels(): 0}
    assert one.points("cache.usage") == {labels(): sum(client.stats().bytes for client in clients)}
    client = clients.pop(0)
    del client
    gc.collect()
    assert one.points("cache.entries")[labels(entry__kind="known")] == 1


async def test_the_shared_level_has_metrics_of_its_own(backend: Make) -> None:
    one = backend()
    shared = SharedCache("redis://127.0.0.1:1/0", secrets=["a secret of more than thirty-two characters"])
    async with client_of(ScriptedSource(), shared=shared) as client:
        one.hook.watch(client)
        await client.get("u1")
        client.invalidate("u1")
        events = one.points("shared_cache.events")
        assert (events[labels(event="skipped")], events[labels(event="hits")]) == (1, 0)
        assert (one.points("shared_cache.available"), one.points("shared_cache.waiting")) == (
            {labels(): 0},
            {labels(): 1},
        )


def test_only_clients_can_be_watched(backend: Make) -> None:
    with pytest.raises(ConfigurationError, match="client must be a ProfileClient"):
        backend().hook.watch(object())  # type: ignore[arg-type]  # the mistake under test


async def test_without_an_sdk_it_does_nothing() -> None:
    hook = OpenTelemetryHook()
    client = client_of(ScriptedSource(), hooks=[hook])
    await client.get("u1")
    await client.get("u1")
    hook(BreakerDetails("scripted", "open"))
    assert client.stats().total == 2
    assert not hook._landed  # no span was recorded, so there is none to link to


def test_A18_nothing_personal_is_exported(backend: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    one = backend(include_key=True)
    source = ScriptedSource(lambda key: found(email=key.value, city="plantedville"))
    client = client_of(source, hooks=[one.hook])

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.profile.get("city", ""))

    app = Starlette(
        routes=[Route("/", page)],
        middleware=[
            Middleware(ProfileMiddleware, client=client, identify=from_header("x-user", trusted=True), budget=1)
        ],
    )
    with TestClient(app) as http:
        for _ in range(2):
            assert http.get("/", headers={"x-user": PLANTED}).text == "plantedville"
        source.answer = Switch(SourceConnectionError("down"))
        http.get("/", headers={"x-user": PLANTED + "2"})
    exported = [span.to_json() for spans in one.spans.values() for span in spans]
    exported += [metric.to_json() for metric in one.metrics.values()]
    exported += [repr(vars(one.hook)), *(record.getMessage() for record in caplog.records if record.name != "httpx")]
    assert len(exported) > 8
    assert "planted" not in "\n".join(exported)


def test_without_the_extra_the_import_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "profile_enrich.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[otel\]") as caught:
        importlib.import_module("profile_enrich.otel")
    assert caught.value.code == "missing_extra"


def test_the_hook_fits_the_client() -> None:
    ProfileClient(ScriptedSource(), hooks=[OpenTelemetryHook()])
