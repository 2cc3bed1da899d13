"""Spark adapter: enrich a DataFrame in the Python workers through Arrow."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
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
    partitions: int | None = None,
    options: EnrichOptions | None = None,
) -> Any:
    """Return the DataFrame with the profiles of its keys as columns. It is evaluated lazily.

    Args:
        frame: a `pyspark.sql.DataFrame`.
        config: the client configuration of the Python workers. Its rate and concurrency apply to the whole job, and are
            divided by `workers`.
        key: the column of the keys: text or integers.
        fields: attributes and their Arrow types, e.g. `{"tier": "string", "ltv": "double"}`: Spark must know the schema
            before it runs.
        key_type, prefix, reason: as for `enrich_table`.
        keyed: shuffle by key and sort within each partition, so that the job looks up each key once. False avoids the
            shuffle, but each worker may look up each key.
        workers: the number of concurrent Python workers. Default: the `workers` of `config` if above 1, else Spark's
            current number of cores (`defaultParallelism`).
        partitions: the number of partitions of the keyed DataFrame. Default: two per worker.
        options: as for `enrich_table`; `concurrency` is the worker's share of `config`.

    Returns:
        A DataFrame with its columns, one for each attribute, and the reason. With `keyed`, the order of rows changes.

    Raises:
        ConfigurationError: an argument is invalid, a type is not declared, or Spark lacks the type.
        MissingExtraError: the extra `spark` is not installed.
    """
    if not isinstance(config, ClientConfig):
        raise ConfigurationError(f"config must be a ClientConfig, not {type(config).__name__}")
    plan = TablePlan(
        key,
        key_type=key_type,
        fields=_as_spark_has_them(fields, key, prefix),
        prefix=prefix,
        options=options,
        reason=reason,
    )
    types = _spark_types()
    schema = importlib.import_module("pyspark.sql.types").StructType(list(frame.schema.fields))
    for name, kind in plan.new_columns(frame.columns):
        schema = schema.add(name, types.from_arrow_type(kind), True)
    processes = check_int("workers", _parallelism(frame, config) if workers is None else workers)
    if keyed:
        count = 2 * processes if partitions is None else check_int("partitions", partitions)
        # Sorting makes the rows of a key adjacent, so it is looked up once even if the cache is too small or its
        # entries expire.
        frame = frame.repartition(count, frame[key]).sortWithinPartitions(frame[key])
    enrich = _Batches(plan, config.shared_by(processes))
    return frame.mapInArrow(enrich, schema)


class _Batches:
    """The function that enriches a partition on a Python worker."""

    def __init__(self, plan: TablePlan, config: ClientConfig) -> None:
        self._plan = plan
        self._config = config

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        client = worker_client(self._config)
        for batch in batches:
            yield enrich_with(batch, self._plan, client, concurrency=self._config.worker_concurrency)


def _spark_types() -> Any:
    return import_extra("pyspark.sql.pandas.types", "enriching Spark DataFrames", "spark")


def _as_spark_has_them(fields: Mapping[str, Any], key: str, prefix: str) -> dict[str, Any]:
    """Convert the declared types to those that Spark returns, e.g. one string type and one time precision."""
    columns = TablePlan(key, fields=fields, prefix=prefix).columns
    columns.require_declared("Spark")
    types = _spark_types()
    own: dict[str, Any] = {}
    for name, kind in (columns.types or {}).items():
        try:
            own[name] = types.to_arrow_type(types.from_arrow_type(kind))
        except Exception as error:  # noqa: BLE001  # pyspark's errors have no common class in all of its versions
            failure = type(error).__name__
        else:
            continue
        raise ConfigurationError(f"fields: Spark has no type for {name!r}, which is declared as {kind} ({failure})")
    return own


def _parallelism(frame: Any, config: ClientConfig) -> int:
    if config.workers > 1:
        return config.workers
    try:
        return int(frame.sparkSession.sparkContext.defaultParallelism)
    except Exception as error:  # noqa: BLE001  # Spark Connect has no sparkContext, and raises its own error
        failure = type(error).__name__
    raise ConfigurationError(
        f"workers: this Spark session does not say how many cores it has ({failure}); give the number of Python "
        "workers that run at the same time"
    )
