"""Builds of collections in PostgreSQL: copy the rows, create a new table, swap it in."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from ..._utils.validation import check_number
from ...errors import StoreError
from ..build_reports import BuildProgress, BuildReport, CollectionReport
from ..collection import Collection, Column, ColumnType, expected_types, index_id_of
from ..collection_specs import MAX_INDEX_FIELDS, MAX_SHRINK, CollectionSpec
from ..database_row import comparable, stored_values
from ..files.row_encoder import RowEncoder, RowRejected
from ..inputs.base import InputReader, check_columns, unchanged
from ..inputs.rejects import check_paths
from ..inputs.select_reader import open_reader
from ..writes.build_checks import check_any_stored, check_shrink, check_specs
from .connections import Database
from .schema import Stored, check_schema_name, create_schema, select_collection, sql, stored
from .single_records import swap
from .staging import ProgressReporter, Staging, writing

__all__ = ["build_database", "drop_database_collections"]


def build_database(
    url: str,
    collections: Sequence[CollectionSpec],
    *,
    schema: str = "profile_enrich",
    on_duplicate: Literal["last", "fail"] = "last",
    max_shrink: float = MAX_SHRINK,
    progress: Callable[[BuildProgress], None] | None = None,
) -> BuildReport:
    """Build collections in a PostgreSQL database and swap them in at once.

    The build is one transaction: readers see the old records until it commits, and an interrupted build is rolled back.
    Records keep their positions in pages. A single record written during the build is newer than the build's input, and
    is kept.

    Args:
        url: the libpq URL of the primary.
        collections: the collections to build. Others do not change.
        schema: the schema of the store's tables; created if it does not exist.
        on_duplicate: what to do if two rows have the same key: keep the `"last"`, or `"fail"`.
        max_shrink: the share of records that a collection may lose, from 0 to 1. Default 0.2.
        progress: called with the progress, at most ten times per second and at the end of each collection.

    Returns:
        What was read, stored, replaced and rejected, for each collection.

    Raises:
        StoreError: a source cannot be read; a collection would lose more than `max_shrink`; another build of it is
            running; or the database reports an error. The served data are untouched.
        MissingExtraError: the extra `postgres`, or the one that reads this source, is not installed.
        ConfigurationError: a specification is inconsistent.
    """
    began = time.monotonic()
    specs = list(collections)
    check_specs(specs, on_duplicate)
    check_number("max_shrink", max_shrink, most=1, unit="parts of the records")
    check_paths(specs)
    database = Database(url, pool_size=1)
    try:
        create_schema(database.primary, check_schema_name(schema))
    finally:
        database.close()
    reports: list[CollectionReport] = []
    with writing(database.url, schema, [spec.name for spec in specs]) as connection:
        known = connection.execute(sql("SELECT generation FROM {s}.store", schema)).fetchone()[0]
        ready: list[tuple[str, CollectionReport]] = []
        for spec in specs:
            with unchanged(spec.source):
                ready.append(_fill(connection, schema, spec, on_duplicate=on_duplicate, progress=progress))
        generation = 0
        for spec, (table, report) in zip(specs, ready, strict=True):
            old = _lock(connection, schema, spec.name)
            if old is not None:
                _keep_newer(connection, schema, spec, old, table, known)
            count = connection.execute(f"SELECT count(*) FROM {schema}.{table}".encode()).fetchone()[0]
            if old is not None:
                lost = old.collection.rows - count
                check_shrink(spec.name, old.collection.rows, lost, max_shrink, report.rejected)
            generation = generation or swap(connection, schema)
            reports.append(_swap_in(connection, schema, old, table, report, count, generation))
    return BuildReport(None, generation, tuple(reports), time.monotonic() - began)


def drop_database_collections(url: str, names: Sequence[str], *, schema: str = "profile_enrich") -> None:
    """Remove collections from a database, with their records.

    Raises:
        StoreError: a collection does not exist; nothing was removed.
    """
    database = Database(url, pool_size=1)
    check_schema_name(schema)
    with writing(database.url, schema, names) as connection:
        for name in names:
            old = _lock(connection, schema, name)
            if old is None:
                raise StoreError(f"the store has no collection {name!r}")
            swap(connection, schema)
            for table in ("collection WHERE id", "change WHERE collection"):
                connection.execute(sql(f"DELETE FROM {{s}}.{table} = %s", schema), (old.collection.id,))
            connection.execute(f"DROP TABLE {schema}.{old.records}".encode())


def _lock(connection: Any, schema: str, name: str) -> Stored | None:
    connection.execute(b"SET LOCAL lock_timeout = '60s'")
    row = connection.execute(sql(select_collection("WHERE name = %s FOR UPDATE"), schema), (name,)).fetchone()
    return None if row is None else stored(row)


def _fill(
    connection: Any,
    schema: str,
    spec: CollectionSpec,
    *,
    on_duplicate: str,
    progress: Callable[[BuildProgress], None] | None,
) -> tuple[str, CollectionReport]:
    """Create a new indexed table with the records of a source, not yet visible; return it and the row counts."""
    row = connection.execute(sql(select_collection("WHERE name = %s"), schema), (spec.name,)).fetchone()
    reader = open_reader(spec, {} if row is None else expected_types(stored(row).collection, spec.key))
    staging = Staging(connection, len(spec.filterable))
    try:
        with staging.open():
            read = _copy(spec, reader, staging, progress)
        columns = reader.columns()
        if read or columns:
            check_columns(spec, columns, reader.where)
        check_any_stored(reader.where, read, reader.rejects)
        reader.rejects.finish()
    finally:
        reader.close()
    duplicates, first = staging.make_unique()
    if duplicates and on_duplicate == "fail":
        raise StoreError(f"{duplicates:,} rows have the key of an earlier row (the first: row {first or 0:,})")
    table = f"records_{secrets.token_hex(6)}"
    _create(connection, schema, spec, table)
    staging.drop()
    return table, _report(spec, reader, read, columns, duplicates, first)


def _copy(
    spec: CollectionSpec, reader: InputReader, staging: Staging, progress: Callable[[BuildProgress], None] | None
) -> int:
    encoder = RowEncoder(
        key=spec.key, index_id=index_id_of(spec.name), index_fields=spec.index_fields, filterable=spec.filterable
    )
    encoder.with_index = False
    shown = ProgressReporter(spec.name, progress, reader.total)
    number = 0
    for number, (names, values) in enumerate(reader.rows(), 1):
        reason = ""
        try:
            staging.put(encoder.encode(names, reader.texts(values), values))
        except RowRejected as error:
            reason = error.reason
        except RecursionError:
            reason = "it is nested too deeply"
        if reason:
            reader.reject(number, names, values, reason)
        shown.at(number)
    shown.end(number)
    return number + reader.rejects.broken


def _create(connection: Any, schema: str, spec: CollectionSpec, table: str) -> None:
    """Create the table from the staged rows. Existing records keep their positions."""
    run = connection.execute
    old = run(sql(select_collection("WHERE name = %s"), schema), (spec.name,)).fetchone()
    place, source, first = "row_number() OVER (ORDER BY s.seq)", "staged s", 1
    if old is not None:
        before = stored(old)
        place = "coalesce(o.place, %s + row_number() OVER (PARTITION BY o.place IS NULL ORDER BY s.seq) - 1)"
        source = f"staged s LEFT JOIN {schema}.{before.records} o ON o.key = s.key"
        first = before.next_place
    names = "".join(f", s.v{at}" for at in range(len(spec.filterable)))
    declared = "".join(f', v{at} text COLLATE "C"' for at in range(len(spec.filterable)))
    run(
        f'CREATE TABLE {schema}.{table} (key text COLLATE "C" NOT NULL, place bigint NOT NULL, hash bytea NOT NULL,'
        f" record text NOT NULL{declared})".encode()
    )
    run(
        f"INSERT INTO {schema}.{table} SELECT s.key, {place}, s.hash, s.record{names} FROM {source}"
        f" ORDER BY s.seq".encode(),
        (first,) if old is not None else None,
    )
    run(f"ALTER TABLE {schema}.{table} ADD PRIMARY KEY (key)".encode())
    run(f"CREATE UNIQUE INDEX ON {schema}.{table} (place)".encode())
    for at in range(len(spec.filterable)):
        run(f"CREATE INDEX ON {schema}.{table} (v{at}, place)".encode())
    run(f"ANALYZE {schema}.{table}".encode())


def _keep_newer(connection: Any, schema: str, spec: CollectionSpec, old: Stored, table: str, known: int) -> None:
    """Apply the single writes and deletes made since the build began to read."""
    run = connection.execute
    keys = [
        row[0]
        for row in run(
            sql("SELECT DISTINCT key FROM {s}.change WHERE collection = %s AND generation > %s", schema),
            (old.collection.id, known),
        ).fetchall()
    ]
    if not keys:
        return
    run(f"DELETE FROM {schema}.{table} WHERE key = ANY(%s)".encode(), (keys,))
    rows = run(
        f"SELECT key, place, hash, record FROM {schema}.{old.records} WHERE key = ANY(%s)".encode(), (keys,)
    ).fetchall()
    # If new records of this build took their positions, they go to the end.
    taken = {
        row[0]
        for row in run(
            f"SELECT place FROM {schema}.{table} WHERE place = ANY(%s)".encode(), ([row[1] for row in rows],)
        ).fetchall()
    }
    last = run(f"SELECT coalesce(max(place), 0) FROM {schema}.{table}".encode()).fetchone()[0]
    marks = ", %s" * len(spec.filterable)
    for number, (key, place, digest, record) in enumerate(rows, 1):
        values = [comparable(value) for value in stored_values(record, spec.filterable)]
        run(
            f"INSERT INTO {schema}.{table} VALUES (%s, %s, %s, %s{marks})".encode(),
            (key, max(last, old.next_place) + number if place in taken else place, digest, record, *values),
        )


def _report(
    spec: CollectionSpec,
    reader: InputReader,
    read: int,
    columns: dict[str, ColumnType],
    duplicates: int,
    first: int | None,
) -> CollectionReport:
    shown = tuple(columns if spec.index_fields is None else spec.index_fields)
    untyped: Iterable[str] = set(getattr(reader, "untyped", ()))
    collection = Collection(
        id=0,
        index_id=index_id_of(spec.name),
        name=spec.name,
        description=spec.description,
        key=spec.key,
        columns=tuple(Column(name, kind, name not in untyped) for name, kind in columns.items()),
        filterable=tuple(spec.filterable),
        index_fields=shown if len(shown) <= MAX_INDEX_FIELDS else None,
        rows=0,
        generation=0,
        created_at=(now := datetime.now(UTC)),
        updated_at=now,
    )
    return CollectionReport(
        collection=collection,
        read=read,
        stored=0,
        duplicates=duplicates,
        first_duplicate=first,
        rejected=reader.rejects.reasons,
        first_rejected=reader.rejects.first_row,
        first_rejected_line=reader.rejects.first_line,
    )


def _swap_in(
    connection: Any, schema: str, old: Stored | None, table: str, report: CollectionReport, count: int, generation: int
) -> CollectionReport:
    run = connection.execute
    new = report.collection
    if old is None:
        number = run(sql("UPDATE {s}.store SET next_id = next_id + 1 RETURNING next_id - 1", schema)).fetchone()[0]
        created = new.created_at
    else:
        number, created = old.collection.id, old.collection.created_at
        run(sql("DELETE FROM {s}.collection WHERE id = %s", schema), (number,))
        run(sql("DELETE FROM {s}.change WHERE collection = %s", schema), (number,))
    new = replace(new, id=number, rows=count, generation=generation, created_at=created)
    last = run(f"SELECT coalesce(max(place), 0) FROM {schema}.{table}".encode()).fetchone()[0]
    run(
        sql(
            "INSERT INTO {s}.collection (id, name, index_id, description, key_column, columns, filterable,"
            " index_fields, records, rows, next_place, generation, since, created_at, updated_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            schema,
        ),
        (
            number,
            new.name,
            new.index_id,
            new.description,
            new.key,
            json.dumps([[column.name, column.type, column.known] for column in new.columns]),
            json.dumps(new.filterable),
            json.dumps(new.index_fields),
            table,
            count,
            max(last + 1, 1 if old is None else old.next_place),
            generation,
            generation,
            created,
            new.updated_at,
        ),
    )
    if old is not None:
        run(f"DROP TABLE {schema}.{old.records}".encode())
    return replace(report, collection=new, stored=count)
