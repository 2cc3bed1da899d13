"""Incremental refresh of collections in PostgreSQL, in one transaction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from ..._utils.validation import check_number
from ...errors import ConfigurationError, StoreError
from ..build_reports import BuildProgress, RefreshedCollection, RefreshReport
from ..collection import expected_types
from ..collection_specs import MAX_SHRINK, RefreshSpec
from ..inputs.base import check_columns, unchanged
from ..inputs.rejects import check_paths
from ..inputs.select_reader import open_reader
from ..writes.build_checks import check_shrink
from ..writes.refresh import ChangeApplier, check_new_columns, check_refresh_specs, keys_of, source_of
from .connections import Database
from .schema import Stored, check_schema_name, select_collection, sql, stored
from .single_records import MAX_CHANGES, lock_collection, swap
from .staging import ProgressReporter, Staging, writing

__all__ = ["refresh_database"]

_WAIT = 60.0  # seconds for the writers of single records to be done


def refresh_database(
    url: str,
    collections: Sequence[RefreshSpec],
    *,
    schema: str = "profile_enrich",
    on_duplicate: Literal["last", "fail"] = "last",
    max_shrink: float = MAX_SHRINK,
    progress: Callable[[BuildProgress], None] | None = None,
) -> RefreshReport:
    """Apply changes to collections in a PostgreSQL database, as one new generation.

    Rows are compared with the stored records by hash, so a source with all rows writes only the differences. One commit
    makes everything visible; if nothing changed, there is no new generation. A single record written during the refresh
    is newer than its input, and is kept.

    Args:
        url: the libpq URL of the primary.
        collections: the changes to apply.
        schema: the schema of the store's tables.
        on_duplicate: what to do when two rows have the same key: keep the `"last"`, or `"fail"`.
        max_shrink: the share of a collection's records that may be lost with `vanished="delete"`, 0.2 by default; 1 for
            all.
        progress: called with the progress, at most ten times per second and at the end of each collection.

    Returns:
        What was read and changed, for each collection.

    Raises:
        StoreError: the store or collection does not exist; a source cannot be read; more than `max_shrink` would be
            lost; or another build is running. The data are untouched.
        ConfigurationError: the specification is inconsistent.
    """
    began = time.monotonic()
    specs = list(collections)
    check_refresh_specs(specs, on_duplicate)
    check_number("max_shrink", max_shrink, most=1, unit="parts of the records")
    check_paths(specs)
    database = Database(url, pool_size=1)
    check_schema_name(schema)
    reports: list[RefreshedCollection] = []
    generation = 0
    with writing(database.url, schema, [spec.name for spec in specs]) as connection:
        known = connection.execute(sql("SELECT generation FROM {s}.store", schema)).fetchone()[0]
        for spec in specs:
            with unchanged(spec.source):
                generation, report = _refresh_one(
                    connection, schema, spec, known, generation, on_duplicate, max_shrink, progress
                )
            reports.append(report)
    return RefreshReport(None, generation or known, tuple(reports), time.monotonic() - began)


def _refresh_one(
    connection: Any,
    schema: str,
    spec: RefreshSpec,
    known: int,
    generation: int,
    on_duplicate: str,
    max_shrink: float,
    progress: Callable[[BuildProgress], None] | None,
) -> tuple[int, RefreshedCollection]:
    row = connection.execute(sql(select_collection("WHERE name = %s"), schema), (spec.name,)).fetchone()
    if row is None:
        raise StoreError(f"the store has no collection {spec.name!r}")
    old = stored(row)
    if spec.tombstone is not None and spec.tombstone in {column.name for column in old.collection.columns}:
        raise ConfigurationError(f"the tombstone column {spec.tombstone!r} is a column of the collection")
    staging = Staging(connection, len(old.collection.filterable))
    report = RefreshedCollection(old.collection)
    with staging.open():
        if spec.source is not None:
            report = _stage(spec, old, staging, progress)
        asked, unmatched = report.asked_deletes, report.unmatched_deletes
        for key in keys_of(spec.deleted):
            asked += 1
            unmatched += not staging.delete(key)
    duplicates, first = staging.make_unique()
    if duplicates and on_duplicate == "fail" and spec.source is not None:
        raise StoreError(f"{duplicates:,} rows have the key of an earlier row (the first: row {first or 0:,})")
    now = lock_collection(connection, schema, spec.name, _WAIT)
    _keep_newer(connection, schema, now, known)
    inserted, updated, removed, vanished, missed = _compare(connection, schema, now, others=staging.others_deleted)
    check_shrink(spec.name, now.collection.rows, vanished, max_shrink, report.rejected)
    report = replace(
        report,
        inserted=inserted,
        updated=updated,
        deleted=removed,
        asked_deletes=asked,
        unmatched_deletes=unmatched + missed,
        duplicates=duplicates,
        unchanged=connection.execute(
            b"SELECT count(*) FROM staged s WHERE kind = 0 AND NOT EXISTS (SELECT 1 FROM written w WHERE w.key = s.key)"
        ).fetchone()[0],
    )
    if inserted or updated or removed:
        generation = generation or swap(connection, schema)
        report = replace(report, collection=_apply(connection, schema, now, generation, inserted, removed, updated))
    for table in ("staged", "written", "removed"):
        connection.execute(f"DROP TABLE {table}".encode())
    return generation, report


def _stage(
    spec: RefreshSpec, old: Stored, staging: Staging, progress: Callable[[BuildProgress], None] | None
) -> RefreshedCollection:
    source = source_of(spec, old.collection)
    reader = open_reader(source, expected_types(old.collection, old.collection.key))
    applier = ChangeApplier(spec, old.collection, staging, reader)
    shown = ProgressReporter(spec.name, progress, reader.total)
    number = 0
    try:
        if reader.columns():
            check_columns(source, reader.columns(), reader.where)
        check_new_columns(spec, reader)
        for number, (names, values) in enumerate(reader.rows(), 1):
            applier.take(number, names, values)
            shown.at(number)
        if spec.tombstone is not None and number and spec.tombstone not in reader.columns():
            raise StoreError(f"{reader.where} has no column {spec.tombstone!r} (tombstone)")
        check_new_columns(spec, reader)
        rejects = reader.rejects
        rejects.finish()
    finally:
        reader.close()
    if spec.vanished == "delete":
        if not number:
            raise StoreError(
                f"{reader.where} has no rows, and vanished='delete' would delete everything; drop the collection"
                " if that is what you want"
            )
        staging.delete_others()
    shown.end(number)
    return RefreshedCollection(
        old.collection,
        read=number + rejects.broken,
        rejected=rejects.reasons,
        first_rejected=rejects.first_row,
        asked_deletes=applier.asked_deletes,
        unmatched_deletes=applier.unmatched_deletes,
    )


def _keep_newer(connection: Any, schema: str, now: Stored, known: int) -> None:
    """Skip records that were written or deleted singly since the refresh began to read."""
    values = (now.collection.id, known)
    newer = "SELECT key FROM {s}.change WHERE collection = %s AND generation > %s"
    connection.execute(sql(f"DELETE FROM staged WHERE key IN ({newer})", schema), values)
    connection.execute(
        sql(f"INSERT INTO staged (seq, kind, key) SELECT DISTINCT 0, 2, n.key FROM ({newer}) n", schema), values
    )


def _compare(connection: Any, schema: str, now: Stored, *, others: bool) -> tuple[int, int, int, int, int]:
    """Find which records are new or different (`written`), and which go (`removed`).

    Returns:
        How many are new, different, removed, removed because they vanished; how many of the keys to delete match none.
    """
    run = connection.execute
    live = f"{schema}.{now.records}"
    run(
        "CREATE TEMPORARY TABLE written ON COMMIT DROP AS SELECT s.key, s.seq, l.key IS NULL AS added FROM staged s"
        f" LEFT JOIN {live} l ON l.key = s.key WHERE s.kind = 0 AND (l.key IS NULL OR l.hash <> s.hash)".encode()
    )
    gone = f"SELECT l.key, FALSE AS vanished FROM {live} l JOIN staged s ON s.key = l.key WHERE s.kind = 1"
    if others:
        gone += f" UNION ALL SELECT l.key, TRUE FROM {live} l LEFT JOIN staged s ON s.key = l.key WHERE s.key IS NULL"
    run(f"CREATE TEMPORARY TABLE removed ON COMMIT DROP AS {gone}".encode())
    row = run(
        "SELECT (SELECT count(*) FROM written WHERE added), (SELECT count(*) FROM written WHERE NOT added),"
        " (SELECT count(*) FROM removed), (SELECT count(*) FROM removed WHERE vanished),"
        " (SELECT count(*) FROM staged s"
        f" LEFT JOIN {live} l ON l.key = s.key WHERE s.kind = 1 AND l.key IS NULL)".encode()
    ).fetchone()
    return cast("tuple[int, int, int, int, int]", row)


def _apply(
    connection: Any, schema: str, now: Stored, generation: int, inserted: int, removed: int, updated: int
) -> Any:
    run = connection.execute
    live, number = f"{schema}.{now.records}", now.collection.id
    width = range(len(now.collection.filterable))
    run(f"DELETE FROM {live} l USING removed r WHERE l.key = r.key".encode())
    assigned = "".join(f", v{at} = s.v{at}" for at in width)
    run(
        f"UPDATE {live} l SET hash = s.hash, record = s.record{assigned} FROM staged s JOIN written w ON w.key = s.key"
        " WHERE l.key = s.key AND NOT w.added".encode()
    )
    names = "".join(f", v{at}" for at in width)
    staged = "".join(f", s.v{at}" for at in width)
    run(
        f"INSERT INTO {live} (key, place, hash, record{names}) SELECT s.key,"
        f" %s + row_number() OVER (ORDER BY s.seq) - 1, s.hash, s.record{staged}"
        " FROM staged s JOIN written w ON w.key = s.key WHERE w.added".encode(),
        (now.next_place,),
    )
    since = now.since
    if inserted + updated + removed > MAX_CHANGES:
        since = generation  # more than the change feed lists by key
        run(sql("DELETE FROM {s}.change WHERE collection = %s", schema), (number,))
    else:
        for table, deleted in (("written", False), ("removed", True)):
            run(
                sql(
                    "INSERT INTO {s}.change (collection, generation, key, deleted)"
                    f" SELECT %s, %s, key, {deleted} FROM {table}",
                    schema,
                ),
                (number, generation),
            )
        since = _trim(connection, schema, number, generation, since)
    row = run(
        sql(
            "UPDATE {s}.collection SET rows = rows + %s, next_place = next_place + %s, generation = %s, since = %s,"
            " updated_at = now() WHERE id = %s RETURNING id",
            schema,
        ),
        (inserted - removed, inserted, generation, since, number),
    ).fetchone()
    found = run(sql(select_collection("WHERE id = %s"), schema), (row[0],)).fetchone()
    return stored(found).collection


def _trim(connection: Any, schema: str, number: int, generation: int, since: int) -> int:
    """Delete the oldest generations from the change log of a collection."""
    run = connection.execute
    with contextlib.suppress(TypeError):
        count = run(sql("SELECT count(*) FROM {s}.change WHERE collection = %s", schema), (number,)).fetchone()[0]
        if count > 2 * MAX_CHANGES:
            cut = run(
                sql(
                    "SELECT generation FROM {s}.change WHERE collection = %s AND generation < %s"
                    " ORDER BY generation DESC LIMIT 1 OFFSET %s",
                    schema,
                ),
                (number, generation, MAX_CHANGES),
            ).fetchone()[0]
            run(sql("DELETE FROM {s}.change WHERE collection = %s AND generation <= %s", schema), (number, cut))
            return int(cut)
    return since
