"""The Spark adapter, on two cores of this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import ConfigurationError
from profile_enrich.testing import VendorServer, faults

from . import needs
from .conftest import KEY, VARIABLE, Job, config_for, lookups
from .recipe import check_recipe
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

needs("spark", "pyspark.sql")

from pyspark.sql import DataFrame, SparkSession  # noqa: E402  # after the skip where it is not installed

from profile_enrich.pipeline import EnrichOptions  # noqa: E402
from profile_enrich.pipeline.spark import enrich_dataframe  # noqa: E402

TYPES = {"text": "string", "whole": "bigint", "fraction": "double"}


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """Two cores; a failed task is tried again, as on a cluster."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2, 4]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.shuffle.partitions", "2")
        .config(f"spark.executorEnv.{VARIABLE}", KEY)
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


def frame_of(spark: SparkSession, job: Job, kind: str = "text") -> DataFrame:
    data = columns(job, kind)
    rows = list(zip(*data.values(), strict=True))
    return spark.createDataFrame(rows, f"position bigint, user_id {TYPES[kind]}, amount double").repartition(4)


def collected(frame: DataFrame) -> dict[int, tuple[object, ...]]:
    return by_position(row.asDict() for row in frame.collect())


@pytest.mark.parametrize("kind", ["text", "whole", "fraction"])
def test_E1_E2_E4_the_output_is_the_cores_and_each_key_costs_one_call(
    spark: SparkSession, job: Job, vendor: VendorServer, kind: str
) -> None:
    """E1, E2, E4: 5,000 rows with repeated, null, unknown, empty and non-text keys."""
    enriched = enrich_dataframe(frame_of(spark, job, kind), config=config_for(vendor), key="user_id", fields=FIELDS)
    assert enriched.schema.simpleString() == (
        f"struct<position:bigint,user_id:{TYPES[kind]},amount:double,profile_tier:string,profile_score:double,"
        "profile_tags:string,profile_reason:string>"
    )
    keys = key_columns(job)[kind]
    assert collected(enriched) == core(job, keys)
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys in {len(keys)} rows")
    assert lookups(vendor) == distinct(keys)


def test_E2_without_the_shuffle_each_worker_asks_at_most_once(
    spark: SparkSession, job: Job, vendor: VendorServer
) -> None:
    """E2: at most workers × distinct keys."""
    enriched = enrich_dataframe(
        frame_of(spark, job), config=config_for(vendor), key="user_id", fields=FIELDS, keyed=False, workers=2
    )
    keys = key_columns(job)["text"]
    assert collected(enriched) == core(job, keys)
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys of 2 workers that share none")
    assert distinct(keys) <= lookups(vendor) <= 2 * distinct(keys)


def test_E3_the_budget_is_the_jobs_not_each_workers(spark: SparkSession, vendor: VendorServer, job: Job) -> None:
    """E3: calls at the same time and calls a second, of two workers together."""
    vendor.always(faults.Latency(0.05))
    config = config_for(vendor, rate=150, concurrency=6)
    enriched = enrich_dataframe(frame_of(spark, job), config=config, key="user_id", fields=FIELDS, workers=2)
    assert len(collected(enriched)) == len(job.records)
    say(f"at most {vendor.max_in_flight} in flight of 6, {most_in_a_second(vendor)} in a second of 150")
    assert 3 < vendor.max_in_flight <= 6  # more than one worker's share: both worked
    assert most_in_a_second(vendor) <= 150 * 1.1 + 2 * 4  # and each worker's burst


def test_E1_faults_land_in_their_rows(spark: SparkSession, job: Job, vendor: VendorServer) -> None:
    """E1: 404, 500, 429 with Retry-After, a hang and an invalid response; all other rows have their profiles."""
    reasons = break_some(vendor)
    keys = key_columns(job)["text"]
    expected = core(job, keys)
    for position, key in enumerate(keys):
        if reasons.get(key) is not None:
            expected[position] = (None, None, None, reasons[key])
    enriched = enrich_dataframe(
        frame_of(spark, job),
        config=config_for(vendor, client=BRISK),
        key="user_id",
        fields=FIELDS,
        options=EnrichOptions(retry_timeout=30),
    )
    assert collected(enriched) == expected


def test_E1_a_worker_that_is_killed_loses_and_doubles_nothing(
    spark: SparkSession, vendor: VendorServer, job: Job
) -> None:
    """E1: Spark repeats the partition, and discards rows of the first attempt."""
    vendor.always(faults.Latency(0.1))
    config = config_for(vendor, concurrency=8)
    enriched = enrich_dataframe(frame_of(spark, job), config=config, key="user_id", fields=FIELDS, workers=2)
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: lookups(vendor) > 60)
        workers = [pid for pid, line in children(os.getpid()).items() if "pyspark.daemon" in line]
        daemon = min(workers)  # forks the others
        killed.append(next(pid for pid in workers if pid in children(daemon)))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = collected(enriched)
    killer.join()
    keys = key_columns(job)["text"]
    assert killed
    assert rows == core(job, keys)
    say(f"{lookups(vendor)} calls for {distinct(keys)} keys, one of two workers killed")
    assert distinct(keys) <= lookups(vendor) <= 2 * distinct(keys)


def test_refused_credentials_fail_the_job_at_once_and_say_so(
    spark: SparkSession, vendor: VendorServer, job: Job
) -> None:
    """E1: the error concerns no single row."""
    vendor.always(faults.Unauthorized())
    enriched = enrich_dataframe(frame_of(spark, job), config=config_for(vendor), key="user_id", fields=FIELDS)
    with pytest.raises(Exception, match="SourceAuthError") as caught:
        enriched.collect()
    assert KEY not in str(caught.value)
    assert lookups(vendor) < 64 * 2 * 4  # the first calls of each attempt, of each worker


def test_rows_without_a_profile_can_be_dropped_and_own_columns_win(spark: SparkSession, vendor: VendorServer) -> None:
    """E1: `on_missing="drop"` drops rows, and existing columns keep their values."""
    frame = spark.createDataFrame([("1", "own"), ("nobody", "own")], "user_id string, profile_tier string")
    enriched = enrich_dataframe(
        frame, config=config_for(vendor), key="user_id", fields=FIELDS, options=EnrichOptions(on_missing="drop")
    )
    assert [tuple(row) for row in enriched.collect()] == [("1", "own", 0.125, '["a", 1]', None)]


def test_types_are_declared_and_become_sparks(spark: SparkSession, vendor: VendorServer) -> None:
    """E1: the schema is known before the job runs."""
    frame = spark.createDataFrame([("1",), ("2",)], "user_id string")
    declared: dict[str, Any] = {"tags": "large_string", "score": "float32", "id": "uint8"}
    config = config_for(vendor)
    with pytest.raises(ConfigurationError, match="Spark has no type for 'id'"):
        enrich_dataframe(frame, config=config, key="user_id", fields={**declared, "id": "uint64"})
    del declared["id"]
    enriched = enrich_dataframe(frame, config=config, key="user_id", fields=declared, partitions=1)
    assert enriched.schema.simpleString().endswith("profile_tags:string,profile_score:float,profile_reason:string>")
    assert [tuple(row) for row in enriched.collect()] == [("1", '["a", 1]', 0.125, None), ("2", '["a", 2]', 0.25, None)]
    with pytest.raises(ConfigurationError, match="Spark needs to know the columns"):
        enrich_dataframe(frame, config=config, key="user_id", fields=["tier"])  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ConfigurationError, match="no columns 'nope'"):
        enrich_dataframe(frame, config=config, key="nope", fields=FIELDS)
    with pytest.raises(ConfigurationError, match="ClientConfig"):
        enrich_dataframe(frame, config="census", key="user_id", fields=FIELDS)  # type: ignore[arg-type]  # that is the test


def test_how_many_workers_share_the_budget(spark: SparkSession, vendor: VendorServer) -> None:
    """E3: the number of workers is the given one, or Spark's; Spark Connect does not report one."""
    from profile_enrich.pipeline.spark import _parallelism

    frame = spark.range(1)
    assert _parallelism(frame, config_for(vendor)) == 2
    assert _parallelism(frame, config_for(vendor, workers=5)) == 5
    with pytest.raises(ConfigurationError, match="workers: this Spark session does not say"):
        _parallelism(object(), config_for(vendor))


def test_the_code_of_the_page_runs(spark: SparkSession, vendor: VendorServer, tmp_path: Path) -> None:
    """The documentation."""
    assert run_page("spark.md", vendor, tmp_path) == expected_of_page()


def test_D6_a_table_is_filled_in_parallel_and_swapped_in(spark: SparkSession) -> None:
    """The recipe of the page on scaling, also where Spark repeats a task."""
    rows = [(f"u{n}", "silver", None if n == 7 else n) for n in range(400)]
    frame = spark.createDataFrame(rows, "id string, tier string, orders bigint").repartition(6)
    check_recipe("fill_from_spark", frame, frame.limit(50))
