"""Enriches a Dask DataFrame, partition by partition."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .._utils.optional_import import engine
from .._utils.validation import check_int
from ..errors import ConfigurationError
from .frames import enrich_with
from .options import EnrichOptions
from .tables.plan import TablePlan
from .workers.client_config import ClientConfig
from .workers.worker_clients import worker_client

__all__ = ["enrich_dataframe"]


def enrich_dataframe(
    frame: Any,
    *,
    config: ClientConfig,
    key: str,
    fields: Mapping[str, Any],
    key_type: str = "id",
    prefix: str = "profile_",
    reason: str | None = "profile_reason",
    keyed: bool = True,
    workers: int | None = None,
    options: EnrichOptions | None = None,
) -> Any:
    """Return the DataFrame with the profiles of its keys as columns. Lazy, as all of Dask.

    Args:
        frame: a `dask.dataframe.DataFrame`.
        config: how each worker process makes its client. Its rate and concurrency are those of the whole job, and are
            split between `workers`.
        key: the column that holds the keys: text or whole numbers.
        fields: attributes and their Arrow types, e.g. `{"tier": "string", "ltv": "double"}`: Dask needs the columns
            before it runs. They become pandas columns of Arrow types (`pandas.ArrowDtype`).
        key_type, prefix, reason: as for `enrich_table`.
        keyed: brings all rows of a key into one partition (a shuffle), so that each key is looked up once in the job.
            With false rows stay where they are, and each worker process asks for the keys that it meets.
        workers: worker processes. Default: the `workers` of `config` if above 1; else those of the current
            `distributed.Client`; else 1, as Dask's own scheduler works with threads. Say it for
            `scheduler="processes"`.
        options: as for `enrich_table`; `concurrency` is the worker's share of `config`.

    Returns:
        A DataFrame: its own columns, one for each attribute, and the reason. Rows are not in the order of before where
        `keyed`; they keep their index.

    Raises:
        ConfigurationError: an argument is not usable, or a type is not declared.
        MissingExtraError: the extra `dask` is not installed.
    """
    engine("dask.dataframe", "enriching Dask DataFrames", "dask")
    if not isinstance(config, ClientConfig):
        raise ConfigurationError(f"config must be a ClientConfig, not {type(config).__name__}")
    plan = TablePlan(
        key,
        key_type=key_type,
        fields=fields,
        prefix=prefix,
        options=options,
        reason=reason,
    )
    plan.columns.require_declared("Dask")
    pandas = engine("pandas", "enriching Dask DataFrames", "dask")
    new = {name: pandas.ArrowDtype(kind) for name, kind in plan.new_columns(list(frame.columns))}
    processes = check_int("workers", _processes(config) if workers is None else workers)
    if keyed and frame.npartitions > 1:
        frame = frame.shuffle(on=key)
    meta = frame._meta.assign(**{name: pandas.Series([], dtype=kind) for name, kind in new.items()})
    return frame.map_partitions(
        _enriched,
        plan=plan,
        config=config.shared_by(processes),
        meta=meta,
    )


def _enriched(partition: Any, *, plan: TablePlan, config: ClientConfig) -> Any:
    """What a worker does with one partition. All threads of a worker use its one client."""
    client = worker_client(config)
    return enrich_with(partition, plan, client, concurrency=config.worker_concurrency)


def _processes(config: ClientConfig) -> int:
    """How many processes share the budget."""
    distributed = sys.modules.get("distributed")
    if config.workers > 1 or distributed is None:
        return config.workers
    try:
        client = distributed.get_client()
    except ValueError:  # there is none: threads of this process
        return 1
    return max(1, len(client.nthreads()))
