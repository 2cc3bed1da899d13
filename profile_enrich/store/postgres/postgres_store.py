"""PostgreSQL store with its own tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from ...errors import StoreError
from ..collection import Collection, CollectionChanges, Dialect
from ..database_row import comparable, payload, storable
from ..profile_store import WRITE_WAIT, ProfileStore, check_filters
from .connections import Database, Rows
from .driver import pg
from .notifications import ChangeListener
from .schema import Catalog, Stored, check_schema_name, read_catalog, sql
from .single_records import delete_record, put_record

__all__ = ["PostgresStore"]


class PostgresStore(ProfileStore):
    """Read and write a store that `build_database` filled. It is thread-safe and fork-safe.

    Each read is one statement, hence one transaction. Reads use the replicas in turn; if a replica is behind the
    generation that this process knows, the read is repeated on the primary. A record that was just written, or
    announced by the change feed, is therefore never read in an older version.

    Args:
        url: the libpq URL of the primary, e.g. `postgresql://user@host/database?sslmode=verify-full`. Of several hosts,
            the one that accepts writes is used, also after a failover.
        schema: the schema of the store's tables.
        replicas: URLs of read replicas.
        pool_size: the largest number of connections per server. Default 10.
        statement_timeout: the time limit of a statement, in seconds. Default 5.
        wait: how long a call waits for a free connection, in seconds. Default 2.
        check_every: seconds between checks for a newer generation. Without a pooler in transaction mode, the server's
            notifications announce it immediately.
        prepare: whether to prepare statements; by default, unless a pooler in transaction mode is detected.
        timer: the monotonic clock, in seconds; injectable for tests.

    Raises:
        ConfigurationError: a URL cannot be read, or a number is out of range.
        MissingExtraError: the extra `postgres` is not installed.
        StoreError: the database cannot be reached, or has no store in this schema.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "profile_enrich",
        replicas: Sequence[str] = (),
        pool_size: int = 10,
        statement_timeout: float = 5.0,
        wait: float = 2.0,
        check_every: float = 1.0,
        prepare: bool | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schema = check_schema_name(schema)
        self._database = Database(
            url,
            replicas=replicas,
            pool_size=pool_size,
            statement_timeout=statement_timeout,
            wait=wait,
            prepare=prepare,
            timer=timer,
        )
        self._check_every = check_every
        try:
            self._catalog = self._read_catalog()
        except BaseException:
            self._database.close()
            raise
        self._listener = ChangeListener(self._database.url, self._schema, self.refresh, check_every)

    @property
    def namespace(self) -> str:
        """The namespace, made of database and schema."""
        return f"postgres:{self._database.name}/{self._schema}"

    @property
    def blocking(self) -> bool:
        """Always true: a call may wait for the network."""
        return True

    @property
    def check_every(self) -> float:
        """Seconds within which a newer generation is picked up."""
        return self._check_every

    @property
    def generation(self) -> int:
        """The generation being served; each change makes a new one. Never waits."""
        return self._current().generation

    @property
    def secret(self) -> bytes:
        """The key that signs cursors, and from which the embedded server derives the key of its tokens."""
        return self._catalog.secret

    def collections(self) -> tuple[Collection, ...]:
        """All collections, by id. Never waits."""
        return tuple(each.collection for _, each in sorted(self._current().by_id.items()))

    def find(self, ref: str | int) -> Collection | None:
        """Return the collection with this name, index id or entity id, or `None`. Never waits."""
        found = self._current().find(ref)
        return None if found is None else found.collection

    def changes_since(
        self, collection: str | int | Collection, generation: int, *, limit: int = 100_000
    ) -> CollectionChanges | None:
        """Return the keys of the records written or deleted after a generation.

        Returns:
            The keys, each once. `None` means that anything may have changed: there are more than `limit` keys, the
            collection was rebuilt, or the generation is too old.

        Raises:
            StoreError: the collection does not exist or cannot be read.
        """
        known = self._known(collection)

        def read(connection: Any) -> tuple[tuple[Any, ...] | None, Rows]:
            with connection.transaction():
                connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                now = connection.execute(
                    sql("SELECT generation, since FROM {s}.collection WHERE id = %s", self._schema), (known.id,)
                ).fetchone()
                rows = connection.execute(
                    sql(
                        "SELECT key, deleted FROM {s}.change WHERE collection = %s AND generation > %s"
                        " ORDER BY generation LIMIT %s",
                        self._schema,
                    ),
                    (known.id, generation, limit + 1),
                ).fetchall()
                return now, rows

        now, rows = self._database.primary.run(read, again=True)
        # A future generation is from another history, after a failover with data loss.
        if now is None or generation < now[1] or generation > now[0] or len(rows) > limit:
            return None
        last = dict(cast("list[tuple[str, bool]]", rows))
        written = tuple(key for key, deleted in last.items() if not deleted)
        return CollectionChanges(now[0], written, tuple(key for key, deleted in last.items() if deleted))

    def put_record(
        self,
        collection: str | int | Collection,
        record_id: str,
        record: Mapping[str, Any],
        *,
        wait: float = WRITE_WAIT,
    ) -> bool:
        """Insert or replace one record in one transaction; return true if it is new.

        Raises:
            ConfigurationError: the record cannot be stored.
            StoreBusy: another writer held the collection for longer than `wait` seconds.
            StoreError: there is no such collection, or the database cannot be written.
        """
        name = self._known(collection).name
        new = put_record(self._database.primary, self._schema, name, record_id, record, wait=wait)
        self.refresh()
        return new

    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Delete one record in one transaction; return true if it existed.

        Raises:
            StoreBusy: another writer held the collection for longer than `wait` seconds.
            StoreError: there is no such collection, or the database cannot be written.
        """
        name = self._known(collection).name
        there = delete_record(self._database.primary, self._schema, name, record_id, wait=wait)
        self.refresh()
        return there

    def refresh(self) -> bool:
        """Check for a newer generation now; return true if there was one.

        Raises:
            StoreError: the database cannot be read.
        """
        before = self._catalog
        now = self._database.primary.run(
            lambda connection: connection.execute(sql("SELECT generation FROM {s}.store", self._schema)).fetchone(),
            again=True,
        )
        if now is not None and now[0] == before.generation:
            return False
        self._catalog = self._read_catalog()
        return self._catalog.generation != before.generation

    def close(self) -> None:
        """Close all connections. The next use opens them again."""
        self._listener.close()
        self._database.close()

    def __repr__(self) -> str:
        return f"<PostgresStore {self._database.name}, {len(self._catalog.by_id)} collections>"

    def _current(self) -> Catalog:
        self._listener.start()
        return self._catalog

    def _read_catalog(self) -> Catalog:
        return read_catalog(self._database.primary, self._schema, self._database.name)

    def _stored(self, known: Collection) -> Stored:
        found = self._current().by_id.get(known.id)
        if found is None:
            raise StoreError(f"the store has no collection {known.name!r} any more")
        return found

    def _payload(self, known: Collection, record_id: str, dialect: Dialect) -> bytes | None:
        if not storable(record_id):
            return None
        rows = self._read(
            self._stored(known),
            lambda table, seen: f"SELECT {seen}, r.record FROM (SELECT 1) one LEFT JOIN {table} r ON r.key = %s",
            (record_id,),
        )
        return None if rows[0][1] is None else payload(known, record_id, rows[0][1], dialect)

    def _rows(
        self,
        known: Collection,
        filters: Mapping[str, str],
        after: int | None,
        limit: int,
        *,
        dialect: Dialect,
        with_total: bool,
    ) -> tuple[list[tuple[int, str, bytes]], int | None]:
        stored = self._stored(known)
        check_filters(stored.collection, filters)  # again: another generation may have come meanwhile
        names = stored.collection.filterable
        matches = " AND ".join(f"v{names.index(name)} = %s" for name in filters)
        values = tuple(comparable(value) for value in filters.values())
        if any(not storable(cast("str", value)) for value in values):
            return [], 0 if with_total else None

        def statement(table: str, seen: str) -> str:
            total = "NULL::bigint"
            if with_total:
                total = f"(SELECT count(*) FROM {table}{f' WHERE {matches}' if matches else ''})"
            narrowed = f"{matches} AND " if matches else ""
            page = f"SELECT place, key, record FROM {table} WHERE {narrowed}place > %s ORDER BY place LIMIT {limit}"
            # The outer join returns the total even for a page without rows.
            return f"SELECT {seen}, {total}, p.place, p.key, p.record FROM (SELECT 1) one LEFT JOIN ({page}) p ON TRUE"

        rows = self._read(stored, statement, (*(values if with_total else ()), *values, after or 0))
        page = sorted((row[2:] for row in rows if row[2] is not None), key=lambda row: cast("int", row[0]))
        return [(place, key, payload(known, key, text, dialect)) for place, key, text in page], rows[0][1]

    def _read(self, stored: Stored, statement: Callable[[str, str], str], values: tuple[Any, ...]) -> Rows:
        """Run one statement on the collection's records: on an up-to-date replica, otherwise on the primary.

        Args:
            stored: the collection.
            statement: returns the statement for the table's name and an expression for the first column.
            values: the values of its parameters.
        """
        replica = self._database.next_replica()
        if replica is not None:
            # The generation is read in the same statement, so both belong to one snapshot.
            text = statement(f"{self._schema}.{stored.records}", f"(SELECT generation FROM {self._schema}.store)")
            with contextlib.suppress(StoreError, pg.UndefinedTable):
                rows = replica.run(partial(_fetch, text.encode(), values), again=True)
                if rows[0][0] >= self._catalog.generation:
                    return rows
        for _ in range(_ATTEMPTS):
            text = statement(f"{self._schema}.{stored.records}", "0")
            with contextlib.suppress(pg.UndefinedTable):
                return self._database.primary.run(partial(_fetch, text.encode(), values), again=True)
            # A newer generation was swapped in after the catalog was read.
            self.refresh()
            stored = self._stored(stored.collection)
        raise StoreError("the collection cannot be read: its table is gone; build it anew")


def _fetch(statement: bytes, values: tuple[Any, ...], connection: Any) -> Rows:
    return cast("Rows", connection.execute(statement, values).fetchall())


_ATTEMPTS = 10  # a build may swap during the read
