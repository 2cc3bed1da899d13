"""Enriches a table that is in memory: a pyarrow Table or RecordBatch, a polars DataFrame, a pandas DataFrame."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import Any, TypeVar, overload

from ..client.blocking import BlockingProfileClient
from ..client.client import ProfileClient
from ..errors import ConfigurationError
from .tables.columns import Fields, arrow
from .tables.plan import AddedColumns, OnError, OnMissing, TablePlan

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
    on_missing: OnMissing = "null",
    on_error: OnError = "null",
    reason: str | None = "profile_reason",
    concurrency: int = 64,
    retry_timeout: float = 60.0,
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
    on_missing: OnMissing = "null",
    on_error: OnError = "null",
    reason: str | None = "profile_reason",
    concurrency: int = 64,
    retry_timeout: float = 60.0,
) -> Awaitable[T]: ...
def enrich_table(
    table: T,
    *,
    client: BlockingProfileClient | ProfileClient,
    key: str,
    key_type: str = "id",
    fields: Fields | None = None,
    prefix: str = "profile_",
    on_missing: OnMissing = "null",
    on_error: OnError = "null",
    reason: str | None = "profile_reason",
    concurrency: int = 64,
    retry_timeout: float = 60.0,
) -> T | Awaitable[T]:
    """The table with its customers' profiles beside its rows. Each distinct key is looked up once.

    Rows keep their order. Columns of the table win over attributes of the same name.

    Args:
        table: a `pyarrow.Table` or `RecordBatch`, a `polars.DataFrame`, or a `pandas.DataFrame`.
        client: a `BlockingProfileClient` (`client.blocking()`): the call returns the table; or a `ProfileClient`: await
            the call.
        key: the column that holds the keys: text, or whole numbers, which are looked up by their decimal text.
        key_type: the identifier's type. Default `"id"`, the source's primary key.
        fields: attributes and their Arrow types (`{"tier": "string", "ltv": "double"}`), or attributes alone, whose
            types are inferred. Default: all attributes that come.
        prefix: put before the attributes' names. Default `"profile_"`.
        on_missing: rows whose profile the source does not have: `"null"` (default) keeps them, with nulls; `"drop"`
            leaves them out; `"raise"` ends the call.
        on_error: rows whose profile could not be looked up, also because they have no key: `"null"` (default) keeps
            them, with nulls; `"raise"` ends the call. Refused credentials always end it.
        reason: the column that says why a row has no profile: null, `"not_found"`, `"excluded"`, `"field_type"`, or an
            error's code such as `"missing_key"`. Default `"profile_reason"`; `None` for no such column.
        concurrency: calls of the source at the same time, at most. Default 64.
        retry_timeout: seconds for which a source that fails is waited for, since it last answered. Default 60.

    Returns:
        A new table of the same kind; or an awaitable of it.

    Raises:
        ConfigurationError: an argument is not usable, or the table has no such column.
        MissingExtraError: the extra `arrow` is not installed.
        SourceAuthError: the source refuses the credentials.
        ProfileMissing: with `on_missing="raise"`.
        ProfileEnrichError: with `on_error="raise"`: the first row's.
    """
    plan = TablePlan(
        key,
        key_type=key_type,
        fields=fields,
        prefix=prefix,
        on_missing=on_missing,
        on_error=on_error,
        reason=reason,
    )
    if isinstance(client, BlockingProfileClient):
        return enrich_with(table, plan, client, concurrency=concurrency, retry_timeout=retry_timeout)
    if not isinstance(client, ProfileClient):
        raise ConfigurationError(f"client must be a ProfileClient or its blocking(), not {type(client).__name__}")
    return enrich_with_async(table, plan, client, concurrency=concurrency, retry_timeout=retry_timeout)


def enrich_with(
    table: T, plan: TablePlan, client: BlockingProfileClient, *, concurrency: int, retry_timeout: float
) -> T:
    """`enrich_table` after a plan that was made before: what workers do with each of their tables."""
    question = plan.question(key_column(table, plan))
    profiles = client.lookup_many(question.keys, concurrency=concurrency, retry_timeout=retry_timeout)
    joined: T = _joined(table, plan, plan.answer(question, profiles))
    return joined


async def enrich_with_async(
    table: T, plan: TablePlan, client: ProfileClient, *, concurrency: int, retry_timeout: float
) -> T:
    """The same on an event loop."""
    question = plan.question(key_column(table, plan))
    profiles = await client.lookup_many(question.keys, concurrency=concurrency, retry_timeout=retry_timeout)
    joined: T = _joined(table, plan, plan.answer(question, profiles))
    return joined


def _is(table: object, module: str, *names: str) -> bool:
    """Whether it is of one of these classes, without importing what the user did not."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(table, tuple(getattr(loaded, name) for name in names))


def column_names(table: Any) -> list[str]:
    """The names of a table's columns.

    Raises:
        ConfigurationError: it is no table that is known here.
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
    """A table's key column: an Arrow array, or a list where its types are mixed.

    Raises:
        ConfigurationError: it is no table that is known here, or its columns do not fit the plan.
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
    """A new table: the rows that are kept, and after the table's own columns the new ones."""
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
