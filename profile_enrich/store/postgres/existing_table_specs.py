"""Specifications of the user's tables and views, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...errors import ConfigurationError, StoreError
from ..collection import Collection, Column, index_id_of
from ..collection_specs import MAX_INDEX_FIELDS
from .driver import Identifier
from .plan_check import check_plan
from .table_columns import TableColumn, read_columns, table_of

__all__ = ["ServedTable", "TableSpec", "describe_table"]


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table or view that is served as a collection.

    Args:
        name: the name of the collection: the Census entity and the Amperity index.
        table: `table` or `schema.table`, as spelled in the database.
        key: the column that identifies a record: a unique, indexed text, integer or UUID.
        filterable: the columns that pages can be filtered by: indexed text, integers, UUIDs, booleans or dates.
        fields: the columns to show; all by default.
        index_fields: the columns of the Amperity view, at most 30; all shown ones by default.
        description: shown in the Amperity view.
    """

    name: str
    table: str
    key: str = "id"
    filterable: Sequence[str] = ()
    fields: Sequence[str] | None = None
    index_fields: Sequence[str] | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class ServedTable:
    """A table being served."""

    collection: Collection
    source: str
    key: TableColumn
    columns: tuple[TableColumn, ...]

    def column(self, name: str) -> TableColumn:
        """Return the column with this name."""
        return next(each for each in (*self.columns, self.key) if each.name == name)


_EXAMPLES = {"uuid": "00000000-0000-0000-0000-000000000000", "boolean": "true", "date": "2000-01-01"}


def describe_table(connection: Any, number: int, spec: TableSpec, check_plans: bool) -> ServedTable:
    """Read the columns of a table, and check that it can be served.

    Raises:
        ConfigurationError: the specification does not fit it.
        StoreError: the table does not exist or lacks an index.
    """
    schema, name = table_of(spec.table)
    there = read_columns(connection, schema, name)
    if not there:
        raise StoreError(f"the database has no table or view {spec.table}, or its role may not read it")
    for argument, asked in (
        ("key", [spec.key]),
        ("filterable", spec.filterable),
        ("fields", spec.fields or ()),
        ("index_fields", spec.index_fields or ()),
    ):
        for column in asked:
            if column not in there:
                raise ConfigurationError(
                    f"{spec.table} has no column {column!r} ({argument}); its columns are: {', '.join(there)}"
                )
    source = Identifier(*([schema] if schema else []), name).as_string(None)
    key = there[spec.key]
    key.check_key(spec.table)
    for each in spec.filterable:
        there[each].check_filterable(spec.table)
    if check_plans:
        for each in dict.fromkeys((spec.key, *spec.filterable)):
            example = _EXAMPLES.get(there[each].declared, "0")
            check_plan(connection, source, there[each], example, "key" if each == spec.key else "filterable")
    shown = tuple(there.values())
    if spec.fields is not None:
        shown = tuple(there[each] for each in dict.fromkeys((spec.key, *spec.fields)))
    names = tuple(column.name for column in shown) if spec.index_fields is None else tuple(spec.index_fields)
    now = datetime.now(UTC)
    collection = Collection(
        id=number,
        index_id=index_id_of(spec.name),
        name=spec.name,
        description=spec.description,
        key=spec.key,
        columns=tuple(Column(column.name, column.kind) for column in shown),
        filterable=tuple(spec.filterable),
        index_fields=names if len(names) <= MAX_INDEX_FIELDS else None,
        rows=_estimate(connection, schema, name),
        generation=1,
        created_at=now,
        updated_at=now,
    )
    return ServedTable(collection, source, key, shown)


def _estimate(connection: Any, schema: str | None, name: str) -> int:
    """Return the database's estimate of the number of rows; 0 for a view."""
    row = connection.execute(
        b"SELECT t.reltuples FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace"
        b" WHERE t.relname = %s AND (n.nspname = %s OR (%s::text IS NULL AND pg_table_is_visible(t.oid)))",
        (name, schema, schema),
    ).fetchone()
    return 0 if row is None else max(0, int(row[0]))
