"""Dask adapter: enrich a DataFrame, partition by partition."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .._utils.optional_import import import_extra
from .._utils.validation import check_int
from ..errors import ConfigurationError
from .frames import enrich_with
from .options import EnrichOptions
from .tables.table_plan import TablePlan
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
    """Return the DataFrame with the profiles of its keys as columns. It is evaluated lazily.

    Args:
        frame: a `dask.dataframe.DataFrame`.
        config: the client configuration of the worker processes. Its rate and concurrency apply to the whole job, and
            are divided by `workers`.
        key: the column of the keys: text or integers.
        fields: attributes and their Arrow types, e.g. `{"tier": "string", "ltv": "double"}`: Dask must know the columns
            before it runs. They become pandas columns of Arrow types (`pandas.ArrowDtype`).
        key_type, prefix, reason: as for `enrich_table`.
        keyed: shuffle all rows of a key into one partition, so that the job looks up each key once. False avoids the
            shuffle, but each worker process may look up each key.
        workers: the number of worker processes. Default: the `workers` of `config` if above 1, else those of the
            current `distributed.Client`, else 1, because Dask's default scheduler uses threads. Set it for
            `scheduler="processes"`.
        options: as for `enrich_table`; `concurrency` is the worker's share of `config`.

    Returns:
        A DataFrame with its columns, one for each attribute, and the reason. With `keyed`, the order of rows changes;
        they keep their index.

    Raises:
        ConfigurationError: an argument is invalid, or a type is not declared.
        MissingExtraError: the extra `dask` is not installed.
    """
    import_extra("dask.dataframe", "enriching Dask DataFrames", "dask")
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
    pandas = import_extra("pandas", "enriching Dask DataFrames", "dask")
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
    """Enrich one partition on a worker. All threads of a worker share one client."""
    client = worker_client(config)
    return enrich_with(partition, plan, client, concurrency=config.worker_concurrency)


def _processes(config: ClientConfig) -> int:
    """Return the number of processes that share the rate and concurrency."""
    distributed = sys.modules.get("distributed")
    if config.workers > 1 or distributed is None:
        return config.workers
    try:
        client = distributed.get_client()
    except ValueError:  # no distributed client: threads of this process
        return 1
    return max(1, len(client.nthreads()))
