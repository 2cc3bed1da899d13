"""Spark: an arrow UDF with a call a row and `mapInPandas` with threads, beside `enrich_dataframe`.

`.venv-engines/spark/bin/python -m benchmarks.engines.spark`: 50,000 rows, 5,000 keys, an upstream 5 ms away, two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.engines._contest import (
    FIELDS,
    IN_FLIGHT,
    VARIABLE,
    WORKERS,
    Contest,
    ask,
    base_url,
    config,
    orders,
    timed,
)

ALONE, UDF, THREADED = "Spark alone, no lookup", "arrow UDF + httpx", f"mapInPandas + httpx, {IN_FLIGHT} threads"
OURS, UNKEYED = "enrich_dataframe", "enrich_dataframe, keyed=False"

_client: Any = None


def _httpx() -> Any:
    """One client a Python worker."""
    global _client
    if _client is None:
        import httpx

        _client = httpx.Client(timeout=5, limits=httpx.Limits(max_connections=IN_FLIGHT))
    return _client


def contend(name: str, transport: str, records: int, keys: int, port: int) -> float:
    import pyarrow as pa
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import arrow_udf

    from profile_enrich.pipeline.spark import enrich_dataframe

    session = (
        SparkSession.builder.master(f"local[{WORKERS}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", str(WORKERS))
        .config(f"spark.executorEnv.{VARIABLE}", "key")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    url = base_url(port)
    columns = orders(records, keys)
    rows = list(zip(*columns.values(), strict=True))
    frame = session.createDataFrame(rows, "user_id string, n bigint").repartition(WORKERS).cache()
    frame.mapInArrow(_same, frame.schema).count()  # warm: the workers are there, and the rows in memory

    def udf(keys: Any) -> Any:
        return pa.array([ask(_httpx(), url, key)["tier"] for key in keys.to_pylist()])

    udf.__annotations__ = {"keys": pa.Array, "return": pa.Array}  # Spark reads them as types, not as text

    def threads(frames: Iterator[Any]) -> Iterator[Any]:
        with ThreadPoolExecutor(IN_FLIGHT // WORKERS) as pool:
            for each in frames:
                found = list(pool.map(lambda key: ask(_httpx(), url, key), each["user_id"]))
                yield each.assign(**{field: [profile[field] for profile in found] for field in FIELDS})

    out: dict[str, Any] = {
        ALONE: lambda: frame.mapInArrow(_same, frame.schema),
        UDF: lambda: frame.withColumn("tier", arrow_udf(udf, "string")(frame["user_id"])),
        THREADED: lambda: frame.mapInPandas(
            threads, "user_id string, n bigint, tier string, score bigint, city string"
        ),
        OURS: lambda: enrich_dataframe(frame, config=config(port, transport), key="user_id", fields=FIELDS),
        UNKEYED: lambda: enrich_dataframe(
            frame, config=config(port, transport), key="user_id", fields=FIELDS, keyed=False
        ),
    }

    def work() -> int:
        written = out[name]().toArrow()
        if name != ALONE:
            tier = "profile_tier" if name in (OURS, UNKEYED) else "tier"
            assert written[tier].null_count == 0
        return int(written.num_rows)

    try:
        return timed(work, records)
    finally:
        session.stop()


def _same(batches: Iterator[Any]) -> Iterator[Any]:
    yield from batches


CONTEST = Contest("spark", alone=ALONE, own=UDF, naive=[UDF, THREADED], ours=[OURS, UNKEYED], contend=contend)


def run(quick: bool = False) -> list[Any]:
    """Spark's own patterns beside the adapter."""
    return list(CONTEST.run(quick))


if __name__ == "__main__":
    CONTEST.main()
