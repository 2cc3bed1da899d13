"""The Ray Data adapter, on two cores of this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import ConfigurationError
from profile_enrich.testing import VendorServer, faults

from . import needs
from .conftest import KEY, VARIABLE, Job, config_for, lookups
from .tables import (
    BRISK,
    FIELDS,
    break_some,
    by_position,
    children,
    columns,
    core,
    distinct,
    expected_of_page,
    key_columns,
    most_in_a_second,
    run_page,
    say,
    wait_until,
)

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would report over the network
needs("ray", "ray.data")

import pyarrow as pa  # noqa: E402  # after the skip where it is not installed
import ray  # noqa: E402
import ray.data  # noqa: E402

from profile_enrich.pipeline import EnrichOptions  # noqa: E402
from profile_enrich.pipeline.ray import enrich_dataset  # noqa: E402

TYPES = {"text": pa.string(), "whole": pa.int64(), "fraction": pa.float64()}

# Ray opens sockets, files and processes that it leaves to the end of the process.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two cores; the actors read the vendor's key from their environment."""
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {VARIABLE: KEY}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    yield
    ray.shutdown()


def dataset_of(job: Job, kind: str = "text") -> Any:
    table = pa.table(columns(job, kind))
    return ray.data.from_arrow(table.set_column(1, "user_id", table["user_id"].cast(TYPES[kind]))).repartition(4)


def collected(dataset: Any) -> dict[int, tuple[object, ...]]:
    tables = [ray.get(block) for block in dataset.to_arrow_refs()]
    return by_position(row for table in tables for row in table.to_pylist())


@pytest.mark.parametrize("kind", ["text", "whole"])
def test_E1_E2_E4_the_output_is_the_cores_and_each_key_costs_one_call(
    job: Job, vendor: VendorServer, kind: str
) -> None:
    """E1, E2, E4: 5,000 rows with repeated, null, unknown, empty and non-text keys."""
    enriched = enrich_dataset(
        dataset_of(job, kind), config=config_for(vendor), key="user_id", fields=FIELDS
    ).materialize()
    schema = enriched.schema()
    assert dict(zip(schema.names, map(str, schema.types), strict=True)) == {
        "position": "int64",
        "user_id": str(TYPES[kind]),
        "amount": "double",
        "profile_tier": "string",
        "profile_score": "double",
        "profile_tags": "string",
        "profile_reason": "string",
    }
    keys = key_columns(job)[kind]
    assert collected(enriched) == core(job, keys)
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys in {len(keys)} rows")
    assert lookups(vendor) == distinct(keys)


def test_E2_without_the_shuffle_each_actor_asks_at_most_once(job: Job, vendor: VendorServer) -> None:
    """E2: at most actors × distinct keys."""
    enriched = enrich_dataset(
        dataset_of(job),
        config=config_for(vendor),
        key="user_id",
        fields=FIELDS,
        keyed=False,
        workers=2,
        batch_size=None,
    )
    keys = key_columns(job)["text"]
    assert collected(enriched) == core(job, keys)
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys of 2 actors that share none")
    assert distinct(keys) <= lookups(vendor) <= 2 * distinct(keys)


def test_E3_the_budget_is_the_jobs_not_each_actors(vendor: VendorServer, job: Job) -> None:
    """E3: calls at the same time and calls a second, of two actors together."""
    vendor.always(faults.Latency(0.05))
    config = config_for(vendor, rate=150, concurrency=6)
    enriched = enrich_dataset(dataset_of(job), config=config, key="user_id", fields=FIELDS, workers=2, batch_size=200)
    assert len(collected(enriched)) == len(job.records)
    say(f"at most {vendor.max_in_flight} in flight of 6, {most_in_a_second(vendor)} in a second of 150")
    assert 3 < vendor.max_in_flight <= 6  # more than one actor's share: both worked
    assert most_in_a_second(vendor) <= 150 * 1.1 + 2 * 4  # and each actor's burst


def test_E1_faults_land_in_their_rows(job: Job, vendor: VendorServer) -> None:
    """E1: 404, 500, 429 with Retry-After, a hang and an invalid response; all other rows have their profiles."""
    reasons = break_some(vendor)
    keys = key_columns(job)["text"]
    expected = core(job, keys)
    for position, key in enumerate(keys):
        if reasons.get(key) is not None:
            expected[position] = (None, None, None, reasons[key])
    enriched = enrich_dataset(
        dataset_of(job),
        config=config_for(vendor, client=BRISK),
        key="user_id",
        fields=FIELDS,
        options=EnrichOptions(retry_timeout=30),
    )
    assert collected(enriched) == expected


def test_E1_an_actor_that_is_killed_loses_and_doubles_nothing(vendor: VendorServer, job: Job) -> None:
    """E1: Ray restarts the actor, which repeats its blocks."""
    vendor.always(faults.Latency(0.1))
    config = config_for(vendor, concurrency=8)
    enriched = enrich_dataset(dataset_of(job), config=config, key="user_id", fields=FIELDS, workers=2)
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: lookups(vendor) > 60)
        killed.append(next(pid for pid, line in children(os.getpid()).items() if "ProfileActor" in line))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = collected(enriched)
    killer.join()
    keys = key_columns(job)["text"]
    assert killed
    assert rows == core(job, keys)
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys, one of two actors killed")
    assert distinct(keys) <= lookups(vendor) <= 2 * distinct(keys)


def test_refused_credentials_fail_the_job_at_once_and_say_so(vendor: VendorServer, job: Job) -> None:
    """E1: the error concerns no single row."""
    vendor.always(faults.Unauthorized())
    enriched = enrich_dataset(dataset_of(job), config=config_for(vendor), key="user_id", fields=FIELDS)
    with pytest.raises(Exception, match="refused the credentials") as caught:
        enriched.materialize()
    assert KEY not in str(caught.value)
    say(f"{lookups(vendor)} calls before the job failed")
    assert lookups(vendor) < 64 * 2 * 4  # the first calls of each actor's batches


def test_rows_without_a_profile_can_be_dropped_and_own_columns_win(vendor: VendorServer) -> None:
    """E1: `on_missing="drop"` drops rows, and existing columns keep their values."""
    dataset = ray.data.from_arrow(pa.table({"user_id": ["1", "nobody"], "profile_tier": ["own", "own"]}))
    enriched = enrich_dataset(
        dataset, config=config_for(vendor), key="user_id", fields=FIELDS, options=EnrichOptions(on_missing="drop")
    )
    assert [tuple(row.values()) for row in enriched.take_all()] == [("1", "own", 0.125, '["a", 1]', None)]


def test_arguments_are_checked_before_the_job_runs(vendor: VendorServer) -> None:
    """E1: on the driver, not on an actor."""
    dataset = ray.data.range(1)
    config = config_for(vendor)
    with pytest.raises(ConfigurationError, match="Ray Data needs to know the columns"):
        enrich_dataset(dataset, config=config, key="id", fields=["tier"])  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ConfigurationError, match="ClientConfig"):
        enrich_dataset(dataset, config="census", key="id", fields=FIELDS)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ConfigurationError, match="workers"):
        enrich_dataset(dataset, config=config, key="id", fields=FIELDS, workers=0)
    with pytest.raises(ConfigurationError, match="batch_size"):
        enrich_dataset(dataset, config=config, key="id", fields=FIELDS, batch_size=0)


def test_the_code_of_the_page_runs(vendor: VendorServer, tmp_path: Path) -> None:
    """The documentation."""
    assert run_page("ray.md", vendor, tmp_path) == expected_of_page()
