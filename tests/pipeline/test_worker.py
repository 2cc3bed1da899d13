"""Workers: a configuration without secrets, and one client per process."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import MemorySource, Reason
from profile_enrich._utils.optional_import import import_extra
from profile_enrich.errors import ConfigurationError, MissingExtraError, MissingVariable, SecretByValue
from profile_enrich.pipeline.workers import ClientConfig, close_worker_clients, worker_async_client, worker_client
from profile_enrich.pipeline.workers.worker_lookup import WorkerLookup, config_of, fields_of
from profile_enrich.sources.base import ProfileSource
from profile_enrich.testing import VendorServer

SECRET = "planted-secret-7fe1"
made: list[dict[str, Any]] = []


def remembered(**arguments: Any) -> ProfileSource:
    """A factory, as a user writes one."""
    made.append(arguments)
    time.sleep(0.02)  # long enough for a second thread to call it
    return MemorySource({"u1": {"tier": "gold"}})


def broken(**arguments: Any) -> ProfileSource:
    raise RuntimeError(f"quotes {arguments}")


def nothing(**arguments: Any) -> Any:
    return None


HERE = f"{__name__}:remembered"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WORKER_KEY", SECRET)
    made.clear()
    yield
    close_worker_clients()


# --- the configuration --------------------------------------------------------------------------------------------


def test_it_travels_by_pickle_and_stays_equal() -> None:
    config = ClientConfig(
        "census",
        options={"entity": "Users", "region": "eu"},
        secrets={"api_key": "WORKER_KEY"},
        client={"ttl": 300, "source_policy": {"retry": {"attempts": 3}, "breaker": {"failures": 0}}},
        rate=500,
        concurrency=32,
        workers=4,
    )
    twin = pickle.loads(pickle.dumps(config))
    assert twin == config
    assert hash(twin) == hash(config)
    assert (twin.worker_rate, twin.worker_concurrency) == (125, 8)
    assert twin.options == {"entity": "Users", "region": "eu"}
    assert twin.secrets == {"api_key": "WORKER_KEY"}
    assert twin.client == {"ttl": 300, "source_policy": {"retry": {"attempts": 3}, "breaker": {"failures": 0}}}
    assert config.shared_by(2).worker_rate == 250
    assert config.shared_by(2) != config
    assert config != "census"
    assert ClientConfig("census", options={"entity": 1}).worker_rate is None


def test_it_cannot_be_changed_neither_itself_nor_through_what_it_was_made_of() -> None:
    options = {"entity": "Users", "base_url": ["x"]}
    config = ClientConfig(HERE, options=options)
    options["base_url"].append("y")  # type: ignore[attr-defined]  # a list, two lines above
    config.options["entity"] = "Others"
    assert config.options == {"entity": "Users", "base_url": ["x"]}
    with pytest.raises(AttributeError, match="immutable"):
        config.rate = 3
    with pytest.raises(AttributeError, match="immutable"):
        del config.source


def test_neither_the_configuration_nor_its_pickle_nor_its_repr_holds_a_secret() -> None:
    config = ClientConfig("census", options={"entity": "Users"}, secrets={"api_key": "WORKER_KEY"}, rate=9)
    worker_client(config)
    assert SECRET.encode() not in pickle.dumps(config)
    assert SECRET not in repr(config) + repr(worker_client(config)) + repr(worker_async_client(config))
    assert repr(config) == "<ClientConfig 'census', api_key=$WORKER_KEY, rate=9, concurrency=64, workers=1>"


@pytest.mark.parametrize(
    "arguments",
    [
        {"options": {"api_key": SECRET}},
        {"options": {"token": SECRET}},
        {"options": {"client_secret": SECRET}},
        {"options": {"db_password": SECRET}},
        {"options": {"base_url": f"https://user:{SECRET}@api.example/v1"}},
        {"secrets": {"api_key": SECRET}},
        {"secrets": {"api_key": 7}},
    ],
)
def test_a_secret_by_value_is_refused_and_not_repeated(arguments: dict[str, Any]) -> None:
    with pytest.raises(SecretByValue) as caught:
        ClientConfig(HERE, **arguments)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"source": "sensus"}, "source"),
        ({"source": "os.path"}, "source"),
        ({"source": 5}, "source"),
        ({"options": {"entity": object()}}, r"options\['entity'\]"),
        ({"options": {"entity": {1: 2}}}, r"options\['entity'\]"),
        ({"options": {"entity": float("nan")}}, r"options\['entity'\]"),
        ({"options": "entity"}, "options"),
        ({"options": {"no such": 1}}, "options"),
        ({"options": {"nosuch": 1}}, "takes no 'nosuch'"),
        ({"secrets": {"nosuch": "WORKER_KEY"}}, "takes no 'nosuch'"),
        ({"options": {"entity": 1}, "secrets": {"entity": "WORKER_KEY"}}, "'entity' is in options and in secrets"),
        ({"client": {"ttl": -1}}, "ttl"),
        ({"client": {"source": 1}}, r"client\['source'\]"),
        ({"client": {"nosuch": 1}}, r"client\['nosuch'\]"),
        ({"client": {"hooks": []}}, r"client\['hooks'\]"),
        ({"client": {"rate_limit": 5}}, r"client\['rate_limit'\]"),
        ({"client": {"max_in_flight": 5}}, r"client\['max_in_flight'\]"),
        ({"client": {"retry": {}}}, r"client\['retry'\]"),
        ({"client": {"source_policy": {"retry": 3}}}, r"client\['source_policy'\]\['retry'\]"),
        ({"client": {"source_policy": {"retry": {"rng": 3}}}}, r"client\['source_policy'\]\['retry'\]"),
        ({"client": {"source_policy": {"breaker": {"failures": -1}}}}, "failures"),
        ({"client": {"cache_policy": {"storage": 3}}}, r"client\['cache_policy'\]\['storage'\]"),
        ({"rate": 0}, "rate"),
        ({"rate": "fast"}, "rate"),
        ({"workers": 0}, "workers"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 3, "workers": 4}, "concurrency"),
    ],
)
def test_a_mistake_is_named_before_the_job_starts(arguments: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        ClientConfig(**{"source": "census", **arguments})


# --- the client ---------------------------------------------------------------------------------------------------


def test_equal_configurations_share_one_client_made_once_under_threads() -> None:
    config = ClientConfig(HERE, secrets={"api_key": "WORKER_KEY"}, options={"n": 1})
    start = threading.Barrier(8)
    got: list[object] = []

    def task() -> None:
        start.wait()
        got.append(worker_client(pickle.loads(pickle.dumps(config))))

    threads = [threading.Thread(target=task) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len({id(client) for client in got}) == 1
    assert made == [{"n": 1, "api_key": SECRET}]
    assert worker_client(config.shared_by(2)) is not got[0]


def test_E4_both_faces_share_cache_and_survive_between_tasks() -> None:
    config = ClientConfig(HERE)
    assert worker_client(config).get("u1")["tier"] == "gold"
    client = worker_async_client(config)
    assert asyncio.run(client.get("u1"))["tier"] == "gold"
    assert client.stats().source_calls == 1
    assert len(made) == 1


def test_after_closing_a_new_client_is_made() -> None:
    config = ClientConfig(HERE)
    first = worker_client(config)
    first.get("u1")
    close_worker_clients()
    close_worker_clients()
    assert worker_client(config) is not first
    assert worker_client(config).get("u1")["tier"] == "gold"


def test_each_source_is_made_of_options_and_of_the_workers_environment(tmp_path: Any) -> None:
    profiles = {"u1": {"tier": "gold"}}
    with VendorServer(profiles, entity="Users", key=SECRET, client_secret=SECRET) as vendor:
        census = ClientConfig(
            "census", options={"entity": "Users", "base_url": vendor.base_url}, secrets={"api_key": "WORKER_KEY"}
        )
        token = ClientConfig(
            "amperity",
            options={"index": vendor.index_id, "tenant": "acme", "base_url": vendor.amperity_url},
            secrets={"token": "WORKER_KEY"},
        )
        credentials = ClientConfig(
            "amperity",
            options={**token.options, "client_id": "client", "token_url": vendor.token_url},
            secrets={"client_secret": "WORKER_KEY"},
        )
        for config in (census, token, credentials):
            assert worker_client(config).get("u1")["tier"] == "gold"
        assert vendor.tokens_issued == 1
        close_worker_clients()
    with pytest.raises(ConfigurationError, match="token_url"):
        worker_client(ClientConfig("amperity", options=token.options, secrets={"client_secret": "WORKER_KEY"}))


def test_a_missing_variable_is_named_and_may_be_set_later(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClientConfig(HERE, secrets={"api_key": "NOT_ON_THIS_WORKER"})
    with pytest.raises(MissingVariable, match="NOT_ON_THIS_WORKER"):
        worker_client(config)
    monkeypatch.setenv("NOT_ON_THIS_WORKER", SECRET)
    assert worker_client(config).get("u1")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nosuch.module:source", r"nosuch\.module:source cannot be imported"),
        (f"{__name__}:nosuch", "AttributeError"),
        (f"{__name__}:broken", r"raised RuntimeError at test_worker\.py:\d+$"),
        (f"{__name__}:nothing", "returned NoneType"),
    ],
)
def test_a_factory_that_fails_is_named_without_the_text_of_its_error(source: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        worker_client(ClientConfig(source, secrets={"api_key": "WORKER_KEY"}))
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_factorys_own_typed_error_comes_through() -> None:
    with pytest.raises(ConfigurationError, match="mapping"):
        worker_client(ClientConfig("profile_enrich:MemorySource", options={"profiles": 3}))


def test_an_argument_that_the_source_needs_is_missed_by_name() -> None:
    with pytest.raises(ConfigurationError, match="entity") as caught:
        worker_client(ClientConfig("census", secrets={"api_key": "WORKER_KEY"}))
    assert caught.value.__context__ is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_worker_makes_its_own_client() -> None:
    program = f"""
import os, warnings
from profile_enrich.pipeline.workers import ClientConfig, worker_client
from tests.pipeline import test_worker as factory
warnings.simplefilter("ignore", DeprecationWarning)  # of forking while the client's thread runs
config = ClientConfig({HERE!r})
parent = worker_client(config)
assert parent.get("u1")["tier"] == "gold"
child = os.fork()
if not child:
    fresh = worker_client(config)
    ok = fresh is not parent and fresh.get("u1")["tier"] == "gold" and len(factory.made) == 2
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert worker_client(config) is parent
print("both")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("both\n", "", 0)


def test_E2_a_job_remembers_for_an_hour_what_it_has_asked_unless_told_otherwise() -> None:
    for config, ttl in ((ClientConfig(HERE), 3600), (ClientConfig(HERE, client={"ttl": 5, "negative_ttl": 5}), 5)):
        expiry = worker_async_client(config)._loader.expiry
        assert (expiry._ttl, expiry.negative_ttl) == (ttl, ttl)


def test_E3_the_rate_is_split_and_the_burst_is_small() -> None:
    config = ClientConfig(HERE, rate=1000, workers=2)
    assert repr(worker_async_client(config)._loader.calls._rate_limit) == "RateLimit(500/s, burst=25)"
    slow = ClientConfig(HERE, rate=1, workers=2)
    assert repr(worker_async_client(slow)._loader.calls._rate_limit) == "RateLimit(0.5/s, burst=1)"


# --- shared by the adapters -------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingExtraError, match=r"the Nosuch adapter needs an extra: .*profile-enrich\[nosuch\]"
    ) as caught:
        import_extra("nosuch_engine", "the Nosuch adapter", "nosuch")
    assert caught.value.__context__ is None
    assert import_extra("json", "the JSON adapter", "json").loads("1") == 1


def test_an_engine_that_lacks_something_itself_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_engine.py").write_text("import nosuch_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nosuch_dependency"):
        import_extra("half_engine", "the adapter", "half")


@pytest.mark.parametrize("adapter", ["beam", "beam_enrichment", "faststream"])
def test_an_adapter_without_its_engine_names_the_extra(adapter: str) -> None:
    if importlib.util.find_spec("apache_beam" if adapter.startswith("beam") else adapter):
        pytest.skip("its engine is here")
    with pytest.raises(MissingExtraError, match=adapter.partition("_")[0]):
        importlib.import_module(f"profile_enrich.pipeline.{adapter}")


def test_what_a_worker_asks_and_takes_over() -> None:
    config = ClientConfig(HERE)
    asking = WorkerLookup(config_of(config), fields_of(["tier", "nosuch"]), 1.0)
    asking.open()
    profiles = asking.profiles(["u1", "u2"])
    assert asking.attributes(profiles["u1"]) == {"tier": "gold", "nosuch": None}
    assert WorkerLookup(config, fields_of(None), 1.0).attributes(profiles["u1"]) == {"tier": "gold"}
    assert profiles["u2"].reason is Reason.NOT_FOUND
    with pytest.raises(ConfigurationError, match="config must be a ClientConfig, not dict"):
        config_of({})
    for fields in ("tier", [], [""], [3], {"tier": "string"}):
        with pytest.raises(ConfigurationError, match="fields"):
            fields_of(fields)
