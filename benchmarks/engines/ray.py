"""Ray Data: `map` with a call a row and an async actor with `gather`, beside `enrich_dataset`.

`.venv-engines/ray/bin/python -m benchmarks.engines.ray`; 50,000 rows, 5,000 keys, an upstream 5 ms away, 2 CPUs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from benchmarks.engines._contest import FIELDS, IN_FLIGHT, WORKERS, Contest, ask, base_url, config, orders, timed

ALONE, ROWS, GATHER = "Ray alone, no lookup", "map + httpx", f"async map_batches + httpx, semaphore of {IN_FLIGHT}"
OURS, UNKEYED = "enrich_dataset", "enrich_dataset, keyed=False"


class Rows:
    """A row at a time, as `Dataset.map` gives them."""

    def __init__(self, url: str) -> None:
        import httpx

        self._client = httpx.Client(timeout=5)
        self._url = url

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        found = ask(self._client, self._url, row["user_id"])
        return {**row, **{f"profile_{name}": found[name] for name in FIELDS}}


class Gather:
    """All rows of a batch at once, as an async actor does it."""

    def __init__(self, url: str) -> None:
        import httpx

        self._client = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=IN_FLIGHT))
        self._url = f"{url}/entities/1/record"
        self._turn = asyncio.Semaphore(IN_FLIGHT // WORKERS)

    async def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        found = await asyncio.gather(*(self._ask(key) for key in batch["user_id"].to_pylist()))
        for name in FIELDS:
            batch = batch.append_column(f"profile_{name}", pa.array([each[name] for each in found]))
        return batch

    async def _ask(self, key: str) -> dict[str, Any]:
        async with self._turn:
            headers = {"authorization": "Bearer key"}
            response = await self._client.get(self._url, params={"record_id": key}, headers=headers)
        response.raise_for_status()
        found: dict[str, Any] = response.json()["data"]
        return found


class Same:
    """No lookup."""

    def __call__(self, batch: Any) -> Any:
        return batch


def contend(name: str, transport: str, records: int, keys: int, port: int) -> float:
    import pyarrow as pa
    import ray
    import ray.data

    from profile_enrich.pipeline.ray import enrich_dataset

    ray.init(
        address="local",
        num_cpus=WORKERS,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    logging.disable(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    url = base_url(port)
    dataset = ray.data.from_arrow(pa.table(orders(records, keys))).repartition(2 * WORKERS).materialize()
    pool: dict[str, Any] = {"compute": ray.data.ActorPoolStrategy(size=WORKERS), "num_cpus": 0.5}
    out: dict[str, Any] = {
        ALONE: lambda: dataset.map_batches(Same, batch_format="pyarrow", **pool),
        ROWS: lambda: dataset.map(Rows, fn_constructor_args=(url,), **pool),
        GATHER: lambda: dataset.map_batches(Gather, fn_constructor_args=(url,), batch_format="pyarrow", **pool),
        OURS: lambda: enrich_dataset(dataset, config=config(port, transport), key="user_id", fields=FIELDS),
        UNKEYED: lambda: enrich_dataset(
            dataset, config=config(port, transport), key="user_id", fields=FIELDS, keyed=False
        ),
    }
    out[ALONE]().materialize()  # warm: worker processes are there

    def work() -> int:
        tables = [ray.get(block) for block in out[name]().to_arrow_refs()]
        if name != ALONE:
            assert all(table["profile_tier"].null_count == 0 for table in tables)
        return sum(table.num_rows for table in tables)

    try:
        return timed(work, records)
    finally:
        ray.shutdown()


CONTEST = Contest("ray", alone=ALONE, own=ROWS, naive=[ROWS, GATHER], ours=[OURS, UNKEYED], contend=contend)


def run(quick: bool = False) -> list[Any]:
    """Ray's own patterns beside the adapter."""
    return list(CONTEST.run(quick))


if __name__ == "__main__":
    CONTEST.main()
