"""Insertion, replacement and deletion of single records, each in one transaction with a new generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import ConfigurationError, StoreBusy, StoreError
from ..collection import Collection, Column
from ..database_row import comparable, content_hash, storable
from ..files.row_encoder import EncodedRow, RowEncoder, RowRejected, to_json, type_of
from .connections import Pool
from .driver import pg
from .notifications import channel
from .schema import Stored, select_collection, sql, stored

__all__ = ["MAX_CHANGES", "attributes_of", "delete_record", "encoder_of", "lock_collection", "put_record", "swap"]

MAX_CHANGES = 200_000
"""The largest number of changed keys in the change log of a collection; a larger refresh is announced as a reset."""

_KEPT_GENERATIONS = 50_000


def encoder_of(collection: Collection) -> RowEncoder:
    """Return the encoder for records of this collection. The Amperity view is made when a record is read."""
    encoder = RowEncoder(
        key=collection.key,
        index_id=collection.index_id,
        index_fields=collection.index_fields,
        filterable=collection.filterable,
    )
    encoder.with_index = False
    return encoder


def attributes_of(row: EncodedRow) -> str:
    """Return the stored JSON object: the Census payload without its envelope.

    Raises:
        RowRejected: PostgreSQL cannot store the key.
    """
    if not storable(row.key):
        raise RowRejected("its key holds a NUL character, which PostgreSQL cannot store")
    return row.census[len(b'{"data":') : -1].decode()


def lock_collection(connection: Any, schema: str, name: str, wait: float) -> Stored:
    """Lock the collection against other writers until the end of the transaction, and return it.

    Raises:
        StoreError: it does not exist.
    """
    connection.execute(f"SET LOCAL lock_timeout = {max(1, round(wait * 1000))}".encode())
    row = connection.execute(sql(select_collection("WHERE name = %s FOR UPDATE"), schema), (name,)).fetchone()
    if row is None:
        raise StoreError(f"the store has no collection {name!r}")
    return stored(row)


def swap(connection: Any, schema: str) -> int:
    """Start a new generation, which becomes visible and is announced at the commit."""
    row = connection.execute(sql("UPDATE {s}.store SET generation = generation + 1 RETURNING generation", schema))
    generation = int(row.fetchone()[0])
    connection.execute(b"SELECT pg_notify(%s, %s)", (channel(schema), str(generation)))
    return generation


def put_record(pool: Pool, schema: str, name: str, record_id: str, record: Mapping[str, Any], *, wait: float) -> bool:
    """Insert or replace one record; see `PostgresStore.put_record`."""

    def write(connection: Any) -> bool:
        with connection.transaction():
            now = lock_collection(connection, schema, name, wait)
            collection, (row, text) = _encode(now.collection, record_id, record)
            table = f"{schema}.{now.records}"
            values = [comparable(value) for value in row.values]
            digest = content_hash(text)
            old = connection.execute(f"SELECT hash FROM {table} WHERE key = %s".encode(), (record_id,)).fetchone()
            if old is not None and bytes(old[0]) == digest:
                return False
            if old is not None:
                assigned = "".join(f", v{at} = %s" for at in range(len(values)))
                connection.execute(
                    f"UPDATE {table} SET hash = %s, record = %s{assigned} WHERE key = %s".encode(),
                    (digest, text, *values, record_id),
                )
            else:
                marks = ", %s" * len(values)
                names = "".join(f", v{at}" for at in range(len(values)))
                connection.execute(
                    f"INSERT INTO {table} (key, place, hash, record{names}) VALUES (%s, %s, %s, %s{marks})".encode(),
                    (record_id, now.next_place, digest, text, *values),
                )
            _note(connection, schema, now, record_id, added=int(old is None), collection=collection)
            return old is None

    return _write(pool, write)


def delete_record(pool: Pool, schema: str, name: str, record_id: str, *, wait: float) -> bool:
    """Delete one record; see `PostgresStore.delete_record`."""
    if not storable(record_id):
        return False

    def write(connection: Any) -> bool:
        with connection.transaction():
            now = lock_collection(connection, schema, name, wait)
            gone = connection.execute(f"DELETE FROM {schema}.{now.records} WHERE key = %s".encode(), (record_id,))
            if not gone.rowcount:
                return False
            _note(connection, schema, now, record_id, added=-1, collection=now.collection)
            return True

    return _write(pool, write)


def _write(pool: Pool, write: Any) -> bool:
    for _ in range(3):
        try:
            return bool(pool.run(write, again=False))
        except pg.UndefinedTable:
            continue  # a build swapped in a new generation during the wait for the lock
    raise StoreBusy("another process is writing; try again")


def _encode(
    collection: Collection, record_id: str, record: Mapping[str, Any]
) -> tuple[Collection, tuple[EncodedRow, str]]:
    names = {column.name for column in collection.columns}
    known = {column.name: record[column.name] for column in collection.columns if column.name in record}
    row = {collection.key: record_id, **known, **{name: record[name] for name in record if name not in names}}
    added = tuple(Column(name, type_of(row[name]) or "text") for name in row if name not in names)
    problem = ""
    try:
        texts = [to_json(value) for value in row.values()]
        encoded = encoder_of(collection).encode(list(row), texts, list(row.values()))
        if encoded.key == record_id:
            return replace(collection, columns=collection.columns + added), (encoded, attributes_of(encoded))
        problem = "its key column holds another key"
    except RowRejected as rejected:
        problem = rejected.reason
    except RecursionError:
        problem = "it is nested too deeply"
    raise ConfigurationError(f"the record cannot be stored: {problem}")


def _note(connection: Any, schema: str, now: Stored, key: str, *, added: int, collection: Collection) -> None:
    """Record the change in the log and the catalog, as a new generation."""
    import json

    generation = swap(connection, schema)
    connection.execute(
        sql("INSERT INTO {s}.change (collection, generation, key, deleted) VALUES (%s, %s, %s, %s)", schema),
        (collection.id, generation, key, added < 0),
    )
    since = now.since
    if generation - since > _KEPT_GENERATIONS:
        since = generation - _KEPT_GENERATIONS // 2
        connection.execute(
            sql("DELETE FROM {s}.change WHERE collection = %s AND generation <= %s", schema), (collection.id, since)
        )
    connection.execute(
        sql(
            "UPDATE {s}.collection SET rows = rows + %s, next_place = next_place + %s, generation = %s, since = %s,"
            " columns = %s, updated_at = now() WHERE id = %s",
            schema,
        ),
        (
            added,
            max(added, 0),
            generation,
            since,
            json.dumps([[column.name, column.type, column.known] for column in collection.columns]),
            collection.id,
        ),
    )
