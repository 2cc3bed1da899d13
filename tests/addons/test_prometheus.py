"""Prometheus metrics, read back from a registry and from a scrape."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import Any
from weakref import ref

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from profile_enrich import ConfigurationError, MissingExtraError, SharedCache, SourceConnectionError
from profile_enrich.client.hooks import BreakerDetails
from profile_enrich.profile import Reason
from profile_enrich.prometheus import PrometheusHook
from tests.helpers import ScriptedSource, Switch, client_of, found

PLANTED = "ann.planted@shop.example"


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"profile_enrich_{name}", {"source": "scripted", **labels})


async def test_L11_each_lookup_and_load_is_counted() -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    switch = Switch()
    client = client_of(ScriptedSource(switch, delay=0.02), hooks=[hook])
    for _ in range(3):
        await client.lookup("u1")
    switch.error = SourceConnectionError("down")
    await client.lookup("u2")
    client.skip(Reason.ANONYMOUS)
    counts = {"hit": 2, "miss": 1, "error": 1, "skipped": 1}
    for status, count in counts.items():
        timed = None if status == "hit" else count  # a hit takes a microsecond, less than an observation
        assert sample(registry, "lookup_duration_seconds_count", status=status) == timed
        assert sample(registry, "lookups_total", status=status) == count
    assert sample(registry, "lookups_total", status="stale") == 0
    assert 0.02 <= (sample(registry, "lookup_duration_seconds_sum", status="miss") or 0) < 2
    assert sample(registry, "lookup_duration_seconds_bucket", status="miss", le="0.01") == 0
    assert sample(registry, "load_duration_seconds_count", outcome="found") == 1
    assert sample(registry, "load_duration_seconds_count", outcome="source_connection") == 1
    assert sample(registry, "source_errors_total", code="source_connection") == 1
    assert (sample(registry, "source_calls_total") or 0) >= 2


async def test_L11_the_workers_of_a_multiprocess_registry_time_hits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """L11: in that mode, only metrics that are written at the event are read."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "set")
    registry = CollectorRegistry()
    client = client_of(ScriptedSource(), hooks=[PrometheusHook(registry)])
    for _ in range(3):
        await client.lookup("u1")
    assert sample(registry, "lookup_duration_seconds_count", status="hit") == 2


async def test_state_is_read_at_the_scrape_without_a_hook() -> None:
    registry = CollectorRegistry()
    client = client_of(ScriptedSource())
    PrometheusHook(registry).watch(client)
    assert sample(registry, "cache_entries", kind="known") == 0
    await client.get("u1")
    await client.get("u1")
    assert sample(registry, "cache_entries", kind="known") == 1
    assert sample(registry, "cache_entries", kind="unknown") == 0
    assert sample(registry, "cache_bytes") == client.stats().bytes > 0
    assert sample(registry, "loads_in_progress") == 0
    assert sample(registry, "lookups_total", status="hit") == 1
    assert sample(registry, "lookup_duration_seconds_count", status="hit") is None


async def test_the_shared_level_has_metrics_of_its_own() -> None:
    registry = CollectorRegistry()
    shared = SharedCache("redis://127.0.0.1:1/0", secrets=["a secret of more than thirty-two characters"])
    async with client_of(ScriptedSource(), shared=shared) as client, client_of(ScriptedSource()) as plain:
        PrometheusHook(registry).watch(client)
        PrometheusHook(registry).watch(plain)
        await client.get("u1")
        await plain.get("u1")
        assert sample(registry, "shared_cache_events_total", source="scripted", event="skipped") == 1
        assert sample(registry, "shared_cache_events_total", source="scripted", event="hits") == 0
        assert sample(registry, "shared_cache_available", source="scripted") == 0
        client.invalidate("u1")
        assert sample(registry, "shared_cache_waiting", source="scripted") == 1


async def test_breaker_changes_and_state() -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    client = client_of(ScriptedSource(Switch(SourceConnectionError("down"))), hooks=[hook])
    assert sample(registry, "breaker_state", state="closed") == 1
    for number in range(30):
        await client.lookup(f"u{number}")
    states = {state: sample(registry, "breaker_state", state=state) for state in ("closed", "open", "half_open")}
    assert states == {"closed": 0, "open": 1, "half_open": 0}
    assert sample(registry, "breaker_changes_total", state="open") == 1


@pytest.mark.long
async def test_two_hooks_on_one_registry_share_their_metrics() -> None:
    registry = CollectorRegistry()
    hooks = [PrometheusHook(registry) for _ in range(2)]
    clients = [client_of(ScriptedSource(), hooks=[hook]) for hook in hooks]
    for hook, client in zip(hooks, clients, strict=True):
        hook.watch(client)
        hook.watch(client)
        await client.get("u1")
    assert sample(registry, "lookup_duration_seconds_count", status="miss") == 2
    assert sample(registry, "lookups_total", status="miss") == 2
    assert sample(registry, "cache_entries", kind="known") == 2
    hook, client = hooks[0], clients[0]
    clients.pop()
    gc.collect()
    assert sample(registry, "cache_entries", kind="known") == 1


def test_names_that_are_taken_are_a_clear_error_and_leave_nothing_behind() -> None:
    for taken in ("cache_bytes", "lookup_duration_seconds_count", "load_duration_seconds", "breaker_changes_total"):
        registry = CollectorRegistry()
        gauge = Gauge(f"shop_{taken}", "somebody else's", registry=registry)
        with pytest.raises(
            ConfigurationError, match="namespace: the registry already has metrics named shop_"
        ) as caught:
            PrometheusHook(registry, "shop")
        assert caught.value.__context__ is None
        assert list(registry.collect()) == list(gauge.collect())
        registry.unregister(gauge)
        PrometheusHook(registry, "shop")


@pytest.mark.parametrize("namespace", ["", "9lives", "shop-profiles", "shop profiles", "shöp", None])
def test_the_namespace_is_checked(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match="namespace must consist"):
        PrometheusHook(CollectorRegistry(), namespace)


def test_two_namespaces_stand_side_by_side() -> None:
    registry = CollectorRegistry()
    for namespace in ("one", "two"):
        PrometheusHook(registry, namespace)(BreakerDetails("s", "open"))
    for namespace in ("one", "two"):
        labels = {"source": "s", "state": "open"}
        assert registry.get_sample_value(f"{namespace}_breaker_changes_total", labels) == 1


def test_only_clients_can_be_watched() -> None:
    with pytest.raises(ConfigurationError, match="client must be a ProfileClient"):
        PrometheusHook(CollectorRegistry()).watch(object())  # type: ignore[arg-type]  # the mistake under test


def test_the_registry_of_prometheus_client_is_the_default() -> None:
    PrometheusHook(namespace="by_default")(BreakerDetails("s", "closed"))
    labels = {"source": "s", "state": "closed"}
    assert REGISTRY.get_sample_value("by_default_breaker_changes_total", labels) == 1


async def test_neither_client_nor_registry_is_kept_alive() -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    client = client_of(ScriptedSource(), hooks=[hook])
    await client.get("u1")
    await client.aclose()
    gone: list[ref[Any]] = [ref(client), ref(registry)]
    del client, registry, hook
    gc.collect()
    assert [thing() for thing in gone] == [None, None]


async def test_A18_a_scrape_is_valid_and_holds_nothing_personal() -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    source = ScriptedSource(lambda key: found(email=key.value, city="plantedville"))
    client = client_of(source, hooks=[hook])
    for _ in range(2):
        await client.lookup(PLANTED)
    source.answer = Switch(SourceConnectionError("down"))
    await client.lookup(PLANTED + "2")
    hook(BreakerDetails("scripted", "open"))
    text = generate_latest(registry).decode()
    assert "planted" not in text + repr(vars(hook))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, family in families.items():
        assert name.startswith("profile_enrich_")
        assert family.documentation
        for one in family.samples:
            assert set(one.labels) <= {"source", "status", "outcome", "state", "code", "kind", "le"}
    units = {name for name, family in families.items() if family.type == "histogram"}
    assert all(name.endswith("_seconds") for name in units)
    assert len(units) == 2
    counters = {one.name for family in families.values() if family.type == "counter" for one in family.samples}
    assert all(name.endswith(("_total", "_created")) for name in counters)


def test_without_the_extra_the_import_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "profile_enrich.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[prometheus\]"):
        importlib.import_module("profile_enrich.prometheus")
