"""Table definitions of a PostgreSQL store, and its catalog.

```text
store         one row: format, generation, the secret of page tokens
collection    one row per collection; its records are in the table that it names
records_…     the records of one collection: key, place, hash, record (JSON), the values that filters compare
change        which keys changed in which generation: the change feed
building      one row per collection, locked while it is built
```
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from ...errors import ConfigurationError, StoreError
from ..collection import Collection, Column
from .connections import Pool, Rows
from .driver import pg

__all__ = ["FORMAT", "Catalog", "Stored", "check_schema_name", "create_schema", "read_catalog", "sql"]

FORMAT = 1

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,30}")

_TABLES = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE IF NOT EXISTS {s}.store (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    format integer NOT NULL,
    generation bigint NOT NULL,
    next_id integer NOT NULL,
    secret bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS {s}.collection (
    id integer PRIMARY KEY,
    name text NOT NULL UNIQUE,
    index_id text NOT NULL UNIQUE,
    description text NOT NULL,
    key_column text NOT NULL,
    columns text NOT NULL,
    filterable text NOT NULL,
    index_fields text NOT NULL,
    records text NOT NULL,
    rows bigint NOT NULL,
    next_place bigint NOT NULL,
    generation bigint NOT NULL,
    since bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS {s}.change (
    collection integer NOT NULL,
    generation bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    deleted boolean NOT NULL,
    PRIMARY KEY (collection, generation, key)
);
CREATE TABLE IF NOT EXISTS {s}.building (
    name text PRIMARY KEY
)
"""

_COLUMNS = (
    "id, name, index_id, description, key_column, columns, filterable, index_fields, records, rows, next_place,"
    " generation, since, created_at, updated_at"
)


def sql(text: str, schema: str) -> bytes:
    """Return a statement with `{s}` replaced by the schema."""
    return text.replace("{s}", schema).encode()


def check_schema_name(schema: str) -> str:
    """Validate the name of a schema, which becomes part of statements.

    Raises:
        ConfigurationError: it is not a plain lower-case name.
    """
    if not isinstance(schema, str) or not _NAME.fullmatch(schema):
        raise ConfigurationError("schema is a plain name: lower-case letters, digits and underscores, at most 31")
    return schema


@dataclass(frozen=True, slots=True)
class Stored:
    """A collection and its table.

    Args:
        collection: the description of the collection.
        records: the table, without the schema.
        next_place: the position of the next new record.
        since: the generation after which the change log is complete.
    """

    collection: Collection
    records: str
    next_place: int
    since: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """The collections of a store in one generation."""

    generation: int
    secret: bytes = field(repr=False)
    by_id: dict[int, Stored]

    def find(self, ref: str | int) -> Stored | None:
        """Return the collection with this entity id, name or index id."""
        if isinstance(ref, int):
            return self.by_id.get(ref)
        for each in self.by_id.values():
            if each.collection.name == ref:
                return each
        return self.find_index(ref)

    def find_index(self, index_id: str) -> Stored | None:
        """Return the collection with this index id."""
        return next((each for each in self.by_id.values() if each.collection.index_id == index_id), None)


def create_schema(pool: Pool, schema: str) -> None:
    """Create the tables that do not exist.

    Raises:
        StoreError: the role lacks the privilege to create them.
    """

    def create(connection: Any) -> None:
        with connection.transaction():
            for statement in _TABLES.split(";"):
                connection.execute(sql(statement, schema))
            connection.execute(
                sql(
                    "INSERT INTO {s}.store (only_row, format, generation, next_id, secret) VALUES (1, %s, 0, 1, %s)"
                    " ON CONFLICT (only_row) DO NOTHING",
                    schema,
                ),
                (FORMAT, secrets.token_bytes(32)),
            )

    pool.run(create, again=True)


def stored(row: tuple[Any, ...]) -> Stored:
    """Convert a row of the catalog."""
    shown = json.loads(row[7])
    collection = Collection(
        id=row[0],
        name=row[1],
        index_id=row[2],
        description=row[3],
        key=row[4],
        columns=tuple(Column(*each) for each in json.loads(row[5])),
        filterable=tuple(json.loads(row[6])),
        index_fields=None if shown is None else tuple(shown),
        rows=row[9],
        generation=row[11],
        created_at=row[13].astimezone(UTC),
        updated_at=row[14].astimezone(UTC),
    )
    return Stored(collection, row[8], row[10], row[12])


def select_collection(condition: str) -> str:
    """Return the statement that reads rows for `stored`."""
    return f"SELECT {_COLUMNS} FROM {{s}}.collection {condition}"  # constants


def read_catalog(pool: Pool, schema: str, where: str) -> Catalog:
    """Read the catalog in one snapshot.

    Raises:
        StoreError: the store does not exist, or has another format version.
    """

    def read(connection: Any) -> tuple[tuple[Any, ...] | None, Rows]:
        with connection.transaction():
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            one = connection.execute(sql("SELECT format, generation, secret FROM {s}.store", schema)).fetchone()
            return one, connection.execute(sql(select_collection("ORDER BY id"), schema)).fetchall()

    one: tuple[Any, ...] | None = None
    rows: Rows = []
    with contextlib.suppress(pg.UndefinedTable):
        one, rows = pool.run(read, again=True)
    if one is None:
        raise StoreError(
            f"there is no store in the schema {schema} of the database {where}; build one with build_database() or"
            " `profile-enrich index build --database`"
        )
    if one[0] != FORMAT:
        raise StoreError(f"the store in the database {where} has format {one[0]}, this version reads {FORMAT}")
    return Catalog(one[1], bytes(one[2]), {row[0]: stored(row) for row in rows})
