"""Dask: `apply` with a call a row and `map_partitions` with threads, beside `enrich_dataframe`.

`.venv-engines/dask/bin/python -m benchmarks.engines.dask`; 50,000 rows, 5,000 keys, an upstream 5 ms away, 2 processes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.engines._contest import FIELDS, IN_FLIGHT, WORKERS, Contest, ask, base_url, config, orders, timed

ALONE, ROWS, THREADED = "Dask alone, no lookup", "apply + httpx", f"map_partitions + httpx, {IN_FLIGHT} threads"
OURS, UNKEYED = "enrich_dataframe", "enrich_dataframe, keyed=False"

_client: Any = None


def _httpx() -> Any:
    """One client a worker process."""
    global _client
    if _client is None:
        import httpx

        _client = httpx.Client(timeout=5, limits=httpx.Limits(max_connections=IN_FLIGHT))
    return _client


def by_row(frame: Any, url: str) -> Any:
    return frame.assign(profile_tier=frame["user_id"].apply(lambda key: ask(_httpx(), url, key)["tier"]))


def by_threads(frame: Any, url: str) -> Any:
    with ThreadPoolExecutor(IN_FLIGHT // WORKERS) as pool:
        found = list(pool.map(lambda key: ask(_httpx(), url, key), frame["user_id"]))
    return frame.assign(profile_tier=[profile["tier"] for profile in found])


def same(frame: Any) -> Any:
    return frame


def contend(name: str, transport: str, records: int, keys: int, port: int) -> float:
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client

    from profile_enrich.pipeline.dask import enrich_dataframe

    url = base_url(port)
    frame = dd.from_pandas(pd.DataFrame(orders(records, keys)), npartitions=2 * WORKERS)
    meta = frame._meta.assign(profile_tier=pd.Series([], dtype=frame._meta["user_id"].dtype))
    out: dict[str, Any] = {
        ALONE: lambda: frame.map_partitions(same, meta=frame._meta),
        ROWS: lambda: frame.map_partitions(by_row, url, meta=meta),
        THREADED: lambda: frame.map_partitions(by_threads, url, meta=meta),
        OURS: lambda: enrich_dataframe(frame, config=config(port, transport), key="user_id", fields=FIELDS),
        UNKEYED: lambda: enrich_dataframe(
            frame, config=config(port, transport), key="user_id", fields=FIELDS, keyed=False
        ),
    }

    def work() -> int:
        done = out[name]().compute()
        if name != ALONE:
            assert done["profile_tier"].notna().all()
        return len(done)

    with Client(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
    ) as client:
        client.run(os.getpid)
        out[ALONE]().compute()  # warm
        return timed(work, records)


CONTEST = Contest("dask", alone=ALONE, own=ROWS, naive=[ROWS, THREADED], ours=[OURS, UNKEYED], contend=contend)


def run(quick: bool = False) -> list[Any]:
    """Dask's own patterns beside the adapter."""
    return list(CONTEST.run(quick))


if __name__ == "__main__":
    CONTEST.main()
