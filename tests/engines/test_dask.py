"""The Dask adapter, on two worker processes of this machine and on threads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import ConfigurationError, SourceAuthError
from profile_enrich.testing import VendorServer, faults

from . import needs
from .conftest import KEY, VARIABLE, Job, config_for, lookups
from .recipe import check_recipe
from .tables import (
    BRISK,
    FIELDS,
    break_some,
    by_position,
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

needs("dask", "dask.dataframe")

import dask  # noqa: E402  # after the skip where it is not installed
import dask.dataframe as dd  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

from profile_enrich.pipeline import EnrichOptions  # noqa: E402
from profile_enrich.pipeline.dask import enrich_dataframe  # noqa: E402

TYPES = {"text": "string[pyarrow]", "whole": "Int64", "fraction": "float64"}

# Dask's workers end a moment after they are told to.
pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two processes of one thread, which find the vendor's key in their environment."""
    os.environ[VARIABLE] = KEY
    with (
        dask.config.set({"distributed.scheduler.active-memory-manager.start": False}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
    ):
        yield cluster
    del os.environ[VARIABLE]


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        client.wait_for_workers(2)
        yield client


def frame_of(job: Job, kind: str = "text") -> Any:
    frame = pd.DataFrame(columns(job, kind))
    return dd.from_pandas(frame.astype({"user_id": TYPES[kind]}), npartitions=4)


def collected(frame: Any) -> dict[int, tuple[object, ...]]:
    return by_position(pa.Table.from_pandas(frame.compute(), preserve_index=False).to_pylist())


@pytest.mark.parametrize("kind", ["text", "whole", "fraction"])
def test_E1_E2_E4_the_output_is_the_cores_and_each_key_costs_one_call(
    client: Client, job: Job, vendor: VendorServer, kind: str
) -> None:
    """E1, E2, E4: 5,000 rows with repeated, null, unknown, empty and non-text keys."""
    enriched = enrich_dataframe(frame_of(job, kind), config=config_for(vendor), key="user_id", fields=FIELDS)
    declared = {name: str(kind) for name, kind in enriched.dtypes.items() if name.startswith("profile_")}
    assert declared == {
        "profile_tier": "string[pyarrow]",
        "profile_score": "double[pyarrow]",
        "profile_tags": "string[pyarrow]",
        "profile_reason": "string[pyarrow]",
    }
    done = enriched.compute()
    assert {name: str(kind) for name, kind in done.dtypes.items() if name.startswith("profile_")} == declared
    keys = key_columns(job)[kind]
    table = pa.Table.from_pandas(done, preserve_index=False)
    assert by_position(table.to_pylist()) == core(job, keys)
    assert list(done.index) == list(done["position"])  # rows keep their index
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys in {len(keys)} rows")
    assert lookups(vendor) == distinct(keys)


def test_E2_threads_of_one_process_share_its_client(job: Job, vendor: VendorServer) -> None:
    """E2: Dask's own scheduler needs no shuffle for it."""
    enriched = enrich_dataframe(frame_of(job), config=config_for(vendor), key="user_id", fields=FIELDS, keyed=False)
    with dask.config.set(scheduler="threads"):
        assert collected(enriched) == core(job, key_columns(job)["text"])
    assert lookups(vendor) == distinct(key_columns(job)["text"])


def test_E2_without_the_shuffle_each_worker_asks_at_most_once(client: Client, job: Job, vendor: VendorServer) -> None:
    """E2: at most workers × distinct keys."""
    enriched = enrich_dataframe(frame_of(job), config=config_for(vendor), key="user_id", fields=FIELDS, keyed=False)
    keys = key_columns(job)["text"]
    assert collected(enriched) == core(job, keys)
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys of 2 workers that share none")
    assert distinct(keys) <= lookups(vendor) <= 2 * distinct(keys)


def test_E3_the_budget_is_the_jobs_not_each_workers(client: Client, vendor: VendorServer, job: Job) -> None:
    """E3: calls at the same time and calls a second, of two workers together."""
    vendor.always(faults.Latency(0.05))
    config = config_for(vendor, rate=150, concurrency=6)
    enriched = enrich_dataframe(frame_of(job), config=config, key="user_id", fields=FIELDS)
    assert len(collected(enriched)) == len(job.records)
    say(f"at most {vendor.max_in_flight} in flight of 6, {most_in_a_second(vendor)} in a second of 150")
    assert 3 < vendor.max_in_flight <= 6  # more than one worker's share: both worked
    assert most_in_a_second(vendor) <= 150 * 1.1 + 2 * 4  # and each worker's burst


def test_E1_faults_land_in_their_rows(client: Client, job: Job, vendor: VendorServer) -> None:
    """E1: 404, 500, 429 with Retry-After, a hang and an invalid response; all other rows have their profiles."""
    reasons = break_some(vendor)
    keys = key_columns(job)["text"]
    expected = core(job, keys)
    for position, key in enumerate(keys):
        if reasons.get(key) is not None:
            expected[position] = (None, None, None, reasons[key])
    enriched = enrich_dataframe(
        frame_of(job),
        config=config_for(vendor, client=BRISK),
        key="user_id",
        fields=FIELDS,
        options=EnrichOptions(retry_timeout=30),
    )
    assert collected(enriched) == expected


def test_E1_a_worker_that_is_killed_loses_and_doubles_nothing(client: Client, vendor: VendorServer, job: Job) -> None:
    """E1: Dask starts another worker, which repeats the partitions."""
    vendor.always(faults.Latency(0.1))
    config = config_for(vendor, concurrency=8)
    enriched = enrich_dataframe(frame_of(job), config=config, key="user_id", fields=FIELDS)
    pids: dict[str, int] = client.run(os.getpid)
    victim = min(pids.values())

    def kill() -> None:
        wait_until(lambda: lookups(vendor) > 60)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = collected(enriched)
    killer.join()
    keys = key_columns(job)["text"]
    assert rows == core(job, keys)
    assert victim not in client.run(os.getpid).values()
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys, one of two workers killed")
    assert distinct(keys) <= lookups(vendor) <= 2 * distinct(keys)


def test_refused_credentials_fail_the_job_at_once_and_say_so(client: Client, vendor: VendorServer, job: Job) -> None:
    """E1: an error that affects all rows ends the job."""
    vendor.always(faults.Unauthorized())
    enriched = enrich_dataframe(frame_of(job), config=config_for(vendor), key="user_id", fields=FIELDS)
    with pytest.raises(SourceAuthError, match="refused the credentials") as caught:
        enriched.compute()
    assert KEY not in str(caught.value)
    say(f"{lookups(vendor)} calls before the job failed")
    assert lookups(vendor) < 64 * 2 * 4  # the first calls of each partition


def test_rows_without_a_profile_can_be_dropped_and_own_columns_win(vendor: VendorServer) -> None:
    """E1: `on_missing="drop"` drops rows, and existing columns keep their values."""
    frame = dd.from_pandas(pd.DataFrame({"user_id": ["1", "nobody"], "profile_tier": ["own", "own"]}), npartitions=1)
    enriched = enrich_dataframe(
        frame, config=config_for(vendor), key="user_id", fields=FIELDS, options=EnrichOptions(on_missing="drop")
    )
    table = pa.Table.from_pandas(enriched.compute(scheduler="threads"), preserve_index=False)
    assert [tuple(row.values()) for row in table.to_pylist()] == [("1", "own", 0.125, '["a", 1]', None)]


def test_arguments_are_checked_before_the_job_runs(vendor: VendorServer) -> None:
    """E1: when the graph is made."""
    frame = dd.from_pandas(pd.DataFrame({"id": ["1"]}), npartitions=1)
    config = config_for(vendor)
    with pytest.raises(ConfigurationError, match="Dask needs to know the columns"):
        enrich_dataframe(frame, config=config, key="id", fields=["tier"])  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ConfigurationError, match="ClientConfig"):
        enrich_dataframe(frame, config="census", key="id", fields=FIELDS)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ConfigurationError, match="workers"):
        enrich_dataframe(frame, config=config, key="id", fields=FIELDS, workers=0)


def test_how_many_workers_share_the_budget(client: Client, vendor: VendorServer) -> None:
    """E3: the number of workers is the given one, or that of the cluster's processes."""
    from profile_enrich.pipeline.dask import _processes

    assert _processes(config_for(vendor)) == 2
    assert _processes(config_for(vendor, workers=5)) == 5


def test_without_a_cluster_threads_share_the_budget(vendor: VendorServer) -> None:
    """E3: one process."""
    from profile_enrich.pipeline.dask import _processes

    assert _processes(config_for(vendor)) == 1


def test_the_code_of_the_page_runs(client: Client, vendor: VendorServer, tmp_path: Path) -> None:
    """The code of the documentation page runs."""
    assert run_page("dask.md", vendor, tmp_path) == expected_of_page()


def test_D6_a_table_is_filled_in_parallel_and_swapped_in(client: Client) -> None:
    """The recipe of the page on scaling, also where Dask repeats a partition."""
    orders = pd.array([None if n == 7 else n for n in range(400)], dtype="Int64")
    rows = pd.DataFrame({"id": [f"u{n}" for n in range(400)], "tier": "silver", "orders": orders})
    frame = dd.from_pandas(rows, npartitions=4)
    check_recipe("fill_from_dask", frame, frame.partitions[1])
