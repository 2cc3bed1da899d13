"""Enriches a Spark DataFrame: each key is looked up once, by the Python workers, through Arrow."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
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
    partitions: int | None = None,
    options: EnrichOptions | None = None,
) -> Any:
    """Return the DataFrame with the profiles of its keys as columns. Lazy, as all of Spark.

    Args:
        frame: a `pyspark.sql.DataFrame`.
        config: how each Python worker makes its client. Its rate and concurrency are those of the whole job, and are
            split between `workers`.
        key: the column that holds the keys: text or whole numbers.
        fields: attributes and their Arrow types, e.g. `{"tier": "string", "ltv": "double"}`: Spark needs the schema
            before it runs.
        key_type, prefix, reason: as for `enrich_table`.
        keyed: brings all rows of a key together (a shuffle by the key, and a sort within each partition), so that each
            key is looked up once in the job. With false rows stay where they are, and each worker asks for the keys
            that it meets.
        workers: Python workers that run at the same time. Default: the `workers` of `config` if above 1, else the
            cores that Spark has now (`defaultParallelism`).
        partitions: of the keyed DataFrame. Default: two for each worker.
        options: as for `enrich_table`; `concurrency` is the worker's share of `config`.

    Returns:
        A DataFrame: its own columns, one for each attribute, and the reason. Rows are not in the order of before where
        `keyed`.

    Raises:
        ConfigurationError: an argument is not usable, a type is not declared, or Spark has no such type.
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
        # Sorted, a key's rows are neighbours: one lookup stays one, however many keys there are and however long it
        # takes, even where the cache is too small or its entries too short-lived.
        frame = frame.repartition(count, frame[key]).sortWithinPartitions(frame[key])
    enrich = _Batches(plan, config.shared_by(processes))
    return frame.mapInArrow(enrich, schema)


class _Batches:
    """What runs on a Python worker, for each partition."""

    def __init__(self, plan: TablePlan, config: ClientConfig) -> None:
        self._plan = plan
        self._config = config

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        client = worker_client(self._config)
        for batch in batches:
            yield enrich_with(batch, self._plan, client, concurrency=self._config.worker_concurrency)


def _spark_types() -> Any:
    return engine("pyspark.sql.pandas.types", "enriching Spark DataFrames", "spark")


def _as_spark_has_them(fields: Mapping[str, Any], key: str, prefix: str) -> dict[str, Any]:
    """The declared types as Spark gives them back: it has one kind of text and one precision of time, for example."""
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
    except Exception as error:  # noqa: BLE001  # Spark Connect has no sparkContext, and says so in a way of its own
        failure = type(error).__name__
    raise ConfigurationError(
        f"workers: this Spark session does not say how many cores it has ({failure}); give the number of Python "
        "workers that run at the same time"
    )
