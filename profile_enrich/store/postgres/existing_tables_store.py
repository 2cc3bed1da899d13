"""Read-only store over the user's tables and views in PostgreSQL."""

from __future__ import annotations

import secrets as random_secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from ...errors import ConfigurationError, StoreError
from ..collection import Collection, CollectionChanges, Dialect
from ..collection_specs import CollectionSpec
from ..database_row import payload
from ..files.page_token import open_key_cursor, sign_key_cursor
from ..profile_store import WRITE_WAIT, ProfileStore
from ..writes.build_checks import check_specs
from .connections import Database, Rows
from .driver import pg
from .existing_table_specs import ServedTable, TableSpec, describe_table
from .table_columns import record_json

__all__ = ["PostgresTables"]


class PostgresTables(ProfileStore):
    """Serve existing tables and views of a PostgreSQL database. It never writes to the database.

    Every read is one statement in a read-only transaction with the privileges of the URL's role, so row-level security
    and column privileges apply. There is no change feed.

    Args:
        url: the libpq URL of the database; the role needs only SELECT.
        tables: the tables to serve. The first one is entity 1, and so on, so append new ones at the end.
        replicas: URLs of read replicas. Reads use them, and `url` only if none is available.
        secret: the key that signs page tokens, at least 16 bytes. By default it is random, so page tokens are valid
            only for this object.
        pool_size: the largest number of connections per server. Default 10.
        statement_timeout: the time limit of a statement, in seconds. Default 5.
        wait: how long a call waits for a free connection, in seconds. Default 2.
        prepare: whether to prepare statements; by default, unless a pooler in transaction mode is detected.
        check_plans: whether to reject a table that lacks an index. Pass `False` for databases whose EXPLAIN differs
            from PostgreSQL's.
        timer: the monotonic clock, in seconds; injectable for tests.

    Raises:
        ConfigurationError: a specification does not fit its table.
        StoreError: the database is unreachable, lacks a table, or lacks an index; the message has the statement that
            creates the index.
    """

    def __init__(
        self,
        url: str,
        tables: Sequence[TableSpec],
        *,
        replicas: Sequence[str] = (),
        secret: bytes | None = None,
        pool_size: int = 10,
        statement_timeout: float = 5.0,
        wait: float = 2.0,
        prepare: bool | None = None,
        check_plans: bool = True,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if secret is not None and (not isinstance(secret, bytes) or len(secret) < 16):
            raise ConfigurationError("secret must be at least 16 bytes")
        check_specs(
            [
                CollectionSpec(
                    spec.name,
                    (),
                    key=spec.key,
                    filterable=spec.filterable,
                    fields=spec.fields,
                    index_fields=spec.index_fields,
                    description=spec.description,
                )
                for spec in tables
            ],
            "last",
        )
        self._database = Database(
            url,
            replicas=replicas,
            pool_size=pool_size,
            statement_timeout=statement_timeout,
            wait=wait,
            prepare=prepare,
            read_only=True,
            timer=timer,
        )
        self._secret = secret or random_secrets.token_bytes(32)

        def describe(connection: Any) -> list[ServedTable]:
            return [describe_table(connection, number, spec, check_plans) for number, spec in enumerate(tables, 1)]

        try:
            self._tables = {each.collection.id: each for each in self._database.primary.run(describe, again=True)}
        except BaseException:
            self._database.close()
            raise

    @property
    def namespace(self) -> str:
        """The namespace, made of the database."""
        names = ",".join(each.source for each in self._tables.values())
        return f"postgres:{self._database.name}?{names}"

    @property
    def blocking(self) -> bool:
        """Always true: a call may wait for the network."""
        return True

    @property
    def check_every(self) -> float:
        """Always zero: every read returns current data."""
        return 0.0

    @property
    def generation(self) -> int:
        """Always 1: changes of the tables are not tracked."""
        return 1

    @property
    def secret(self) -> bytes:
        """The key that signs page tokens."""
        return self._secret

    def collections(self) -> tuple[Collection, ...]:
        """All collections, by id. Never waits."""
        return tuple(each.collection for each in self._tables.values())

    def find(self, ref: str | int) -> Collection | None:
        """Return the collection with this name, index id or entity id, or `None`. Never waits."""
        return next((each for each in self.collections() if ref in (each.id, each.name, each.index_id)), None)

    def changes_since(
        self, collection: str | int | Collection, generation: int, *, limit: int = 100_000
    ) -> CollectionChanges | None:
        """Return `None`: anything may have changed."""
        return None

    def put_record(
        self,
        collection: str | int | Collection,
        record_id: str,
        record: Mapping[str, Any],
        *,
        wait: float = WRITE_WAIT,
    ) -> bool:
        """Raise an error: the tables are read-only.

        Raises:
            StoreError: always.
        """
        raise StoreError("these collections are tables of a database, which is only read; change the tables themselves")

    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Raise an error: the tables are read-only.

        Raises:
            StoreError: always.
        """
        raise StoreError("these collections are tables of a database, which is only read; change the tables themselves")

    def refresh(self) -> bool:
        """Return false: every read returns current data."""
        return False

    def close(self) -> None:
        """Close all connections. The next use opens them again."""
        self._database.close()

    def __repr__(self) -> str:
        return f"<PostgresTables {self._database.name}, {len(self._tables)} collections>"

    def _open_cursor(self, scope: bytes, known: Collection, cursor: str) -> str:
        return open_key_cursor(self._secret, scope, cursor)

    def _sign_cursor(self, scope: bytes, known: Collection, place: str) -> str:
        return sign_key_cursor(self._secret, scope, place)

    def _payload(self, known: Collection, record_id: str, dialect: Dialect) -> bytes | None:
        table = self._tables[known.id]
        if not table.key.takes(record_id):
            return None
        columns = ", ".join(column.selected for column in table.columns)
        rows = self._read(f"SELECT {columns} FROM {table.source} WHERE {table.key.condition} LIMIT 2", (record_id,))
        if len(rows) > 1:
            raise StoreError(f"several rows of {table.source} have one key; the key column must be unique")
        return payload(known, record_id, record_json(table.columns, rows[0]), dialect) if rows else None

    def _rows(
        self,
        known: Collection,
        filters: Mapping[str, str],
        after: str | None,
        limit: int,
        *,
        dialect: Dialect,
        with_total: bool,
    ) -> tuple[list[tuple[str, str, bytes]], int | None]:
        table = self._tables[known.id]
        chosen = [table.column(name) for name in filters]
        values = tuple(filters.values())
        if not all(column.takes(value) for column, value in zip(chosen, values, strict=True)):
            return [], 0 if with_total else None
        matches = " AND ".join(column.condition for column in chosen)
        total = "NULL"
        if with_total:
            total = f"(SELECT count(*) FROM {table.source}{f' WHERE {matches}' if matches else ''})"
        conditions = " AND ".join([*([matches] if matches else []), *([table.key.after] if after is not None else [])])
        columns = ", ".join(f"{column.selected} AS c{at}" for at, column in enumerate(table.columns))
        page = (
            f"SELECT {table.key.quoted} AS k, {columns} FROM {table.source}"
            f"{f' WHERE {conditions}' if conditions else ''} ORDER BY {table.key.quoted} LIMIT {limit}"
        )
        # The outer join returns the total even for a page without rows.
        rows = self._read(
            f"SELECT {total}, p.* FROM (SELECT 1) one LEFT JOIN ({page}) p ON TRUE ORDER BY p.k",
            (*(values if with_total else ()), *values, *(() if after is None else (after,))),
        )
        found = [(str(row[1]), record_json(table.columns, row[2:])) for row in rows if row[1] is not None]
        return [(key, key, payload(known, key, text, dialect)) for key, text in found], rows[0][0]

    def _read(self, statement: str, values: tuple[Any, ...]) -> Rows:
        work = partial(_fetch, statement.encode(), values)
        try:
            if (replica := self._database.next_replica()) is not None:
                try:
                    return replica.run(work, again=True)
                except StoreError:
                    pass
            return self._database.primary.run(work, again=True)
        except (pg.UndefinedTable, pg.UndefinedColumn):
            pass
        raise StoreError("a served table or column no longer exists in the database")


def _fetch(statement: bytes, values: tuple[Any, ...], connection: Any) -> Rows:
    if not connection.pooled:  # the session is read-only
        return cast("Rows", connection.execute(statement, values).fetchall())
    with connection.transaction():  # begins as READ ONLY
        return cast("Rows", connection.execute(statement, values).fetchall())
