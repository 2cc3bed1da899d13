"""`enrich_table`: enrichment of pyarrow tables, and polars and pandas DataFrames."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar, overload

from ..client.blocking import BlockingProfileClient
from ..client.client import ProfileClient
from ..errors import ConfigurationError
from ..profile import Profile
from .options import EnrichOptions
from .records.block_lookup import BlockLookup
from .tables.columns import Fields, arrow
from .tables.table_plan import AddedColumns, TablePlan

__all__ = ["column_names", "enrich_table", "enrich_with", "enrich_with_async", "key_column"]

T = TypeVar("T")


@overload
def enrich_table(
    table: T,
    *,
    client: BlockingProfileClient,
    key: str,
    key_type: str = "id",
    fields: Fields | None = None,
    prefix: str = "profile_",
    reason: str | None = "profile_reason",
    options: EnrichOptions | None = None,
) -> T: ...
@overload
def enrich_table(
    table: T,
    *,
    client: ProfileClient,
    key: str,
    key_type: str = "id",
    fields: Fields | None = None,
    prefix: str = "profile_",
    reason: str | None = "profile_reason",
    options: EnrichOptions | None = None,
) -> Awaitable[T]: ...
def enrich_table(
    table: T,
    *,
    client: BlockingProfileClient | ProfileClient,
    key: str,
    key_type: str = "id",
    fields: Fields | None = None,
    prefix: str = "profile_",
    reason: str | None = "profile_reason",
    options: EnrichOptions | None = None,
) -> T | Awaitable[T]:
    """Return the table with the profiles of its keys as columns. Each distinct key is looked up once.

    Rows keep their order. A column of the table takes precedence over an attribute of the same name.

    Args:
        table: a `pyarrow.Table` or `RecordBatch`, a `polars.DataFrame`, or a `pandas.DataFrame`.
        client: a `BlockingProfileClient` (`client.blocking()`); or a `ProfileClient`, for which the call must be
            awaited.
        key: the column of the keys: text or integers, which are looked up by their decimal text.
        key_type: the identifier's type. Default `"id"`, the source's primary key.
        fields: attributes and their Arrow types (`{"tier": "string", "ltv": "double"}`), or attributes only, with
            inferred types. Default: all attributes found.
        prefix: the prefix of the column names. Default `"profile_"`.
        reason: the column with the reason why a row has no profile: null, `"not_found"`, `"excluded"`, `"field_type"`,
            or an error's code such as `"missing_key"`. Default `"profile_reason"`; `None` for no column.
        options: the handling of rows without a profile, and the limits of the lookups. Default `EnrichOptions()`, which
            keeps missing and failed rows with nulls. Rejected credentials always end the call.

    Returns:
        A new table of the same kind; or an awaitable of it.

    Raises:
        ConfigurationError: an argument is invalid, or the table lacks the key column.
        MissingExtraError: the extra `arrow` is not installed.
        SourceAuthError: the source rejects the credentials.
        ProfileMissing: with `on_missing="raise"`.
        ProfileEnrichError: with `on_error="raise"`: the first row's.
    """
    plan = TablePlan(key, key_type=key_type, fields=fields, prefix=prefix, options=options, reason=reason)
    if isinstance(client, BlockingProfileClient):
        return enrich_with(table, plan, client)
    if not isinstance(client, ProfileClient):
        raise ConfigurationError(f"client must be a ProfileClient or its blocking(), not {type(client).__name__}")
    return enrich_with_async(table, plan, client)


def enrich_with(table: T, plan: TablePlan, client: BlockingProfileClient, *, concurrency: int | None = None) -> T:
    """Enrich a table by an existing plan, as workers do."""
    batch = plan.key_batch(key_column(table, plan))
    block = BlockLookup.of(client._client) if isinstance(client._client, ProfileClient) else None
    found = block.profiles(batch.keys) if block is not None else None
    profiles: Mapping[Any, Profile] = (
        found
        if found is not None
        else client.lookup_many(
            batch.keys,
            concurrency=concurrency or plan.options.concurrency,
            retry_timeout=plan.options.retry_timeout,
        )
    )
    joined: T = _joined(table, plan, plan.join(batch, profiles))
    return joined


async def enrich_with_async(table: T, plan: TablePlan, client: ProfileClient, *, concurrency: int | None = None) -> T:
    """Enrich a table by an existing plan, on an event loop."""
    batch = plan.key_batch(key_column(table, plan))
    block = BlockLookup.of(client)
    found = block.profiles(batch.keys) if block is not None else None
    profiles: Mapping[Any, Profile] = (
        found
        if found is not None
        else await client.lookup_many(
            batch.keys,
            concurrency=concurrency or plan.options.concurrency,
            retry_timeout=plan.options.retry_timeout,
        )
    )
    joined: T = _joined(table, plan, plan.join(batch, profiles))
    return joined


def _is(table: object, module: str, *names: str) -> bool:
    """Return whether a table has one of these classes, without importing a library that the user did not import."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(table, tuple(getattr(loaded, name) for name in names))


def column_names(table: Any) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        ConfigurationError: the type of the table is not supported.
    """
    if _is(table, "pyarrow", "Table", "RecordBatch"):
        return list(table.schema.names)
    if _is(table, "polars", "DataFrame") or _is(table, "pandas", "DataFrame"):
        return list(table.columns)
    raise ConfigurationError(
        "table must be a pyarrow Table or RecordBatch, a polars DataFrame (collect a LazyFrame first) or a pandas "
        f"DataFrame, not {type(table).__name__}"
    )


def key_column(table: Any, plan: TablePlan) -> Any:
    """Return a table's key column: an Arrow array, or a list for mixed types.

    Raises:
        ConfigurationError: the type of the table is not supported, or its columns do not fit the plan.
    """
    plan.check(column_names(table))
    if _is(table, "polars", "DataFrame"):
        return _of_polars(table.get_column(plan.key))
    return _of_pandas(table[plan.key]) if _is(table, "pandas", "DataFrame") else table.column(plan.key)


def _of_polars(series: Any) -> Any:
    return series.to_list() if series.dtype == sys.modules["polars"].Object else series.to_arrow()


def _of_pandas(series: Any) -> Any:
    pa = arrow()
    try:
        return pa.Array.from_pandas(series)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    return [None if missing else value for value, missing in zip(series, series.isna(), strict=True)]


def _joined(table: Any, plan: TablePlan, added: AddedColumns) -> Any:
    """Return a new table of the kept rows, with the new columns after the existing ones."""
    own = set(column_names(table))
    new = {name: array for name, array in added.columns.items() if name not in own}
    plan.say_left_out([name for name in added.columns if name in own])
    if _is(table, "pandas", "DataFrame"):
        pandas = sys.modules["pandas"]
        kept = table if added.kept is None else table[added.kept.to_numpy(zero_copy_only=False)]
        series = {name: pandas.arrays.ArrowExtensionArray(array) for name, array in new.items()}
        return kept.assign(**{name: pandas.Series(array, index=kept.index) for name, array in series.items()})
    if _is(table, "polars", "DataFrame"):
        polars = sys.modules["polars"]
        kept = table if added.kept is None else table.filter(polars.from_arrow(added.kept))
        return kept.with_columns([polars.from_arrow(array).alias(name) for name, array in new.items()])
    kept = table if added.kept is None else table.filter(added.kept)
    for name, array in new.items():
        kept = kept.append_column(name, array)
    return kept
