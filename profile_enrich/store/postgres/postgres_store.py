"""PostgreSQL store with its own tables."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, cast

from ...errors import ConfigurationError, StoreError
from ..files.page_token import filter_scope, open_cursor, sign_cursor
from ..model import MAX_PAGE, Collection, CollectionChanges, Dialect, StoredRecord, StorePage
from ..profile_store import WRITE_WAIT
from ..record_text import amperity_payload, census_payload, comparable, storable
from .connections import Database, Rows
from .driver import pg
from .notifications import ChangeListener
from .schema import Catalog, Stored, check_schema_name, read_catalog, sql
from .single_records import delete_record, put_record

__all__ = ["PostgresStore"]


class PostgresStore:
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

    def find_index(self, index_id: str) -> Collection | None:
        """Return the collection with this index id, or `None`. Never waits."""
        found = self._current().find_index(index_id)
        return None if found is None else found.collection

    def collection(self, ref: str | int) -> Collection:
        """Return the collection with this name, index id or entity id.

        Raises:
            StoreError: there is none; the message lists the existing ones.
        """
        return self._stored(ref).collection

    def get(self, collection: str | int | Collection, record_id: str) -> StoredRecord | None:
        """Return the record with this key, or `None`.

        Raises:
            StoreError: the collection does not exist or cannot be read.
        """
        found = self._record(self._stored(collection), record_id)
        return None if found is None else StoredRecord(record_id, json.loads(found))

    def get_payload(
        self, collection: str | int | Collection, record_id: str, dialect: Dialect = "census"
    ) -> bytes | None:
        """Return the record with this key as the JSON body of a vendor's response, or `None`.

        Raises:
            StoreError: the collection does not exist or cannot be read.
        """
        stored = self._stored(collection)
        if dialect == "amperity" and stored.collection.index_fields is None:
            return None
        found = self._record(stored, record_id)
        if found is None:
            return None
        return census_payload(found) if dialect == "census" else amperity_payload(stored.collection, record_id, found)

    def page(
        self,
        collection: str | int | Collection,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        cursor: str | None = None,
        with_total: bool = False,
        dialect: Dialect = "amperity",
    ) -> StorePage:
        """Return one page of the records that match all filters exactly, in order of first insertion.

        Updates do not move records, so paging returns each remaining record exactly once.

        Raises:
            CursorError: the cursor was modified, or belongs to another collection or filter.
            ConfigurationError: an attribute is not filterable, or the limit is out of range.
            StoreError: the collection does not exist or cannot be read.
        """
        if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
            raise ConfigurationError(f"limit is 1 to {MAX_PAGE:,}")
        wanted = dict(filters or {})
        stored = self._stored(collection)
        found = stored.collection
        check_filters(found, wanted)
        if dialect == "amperity" and found.index_fields is None:
            raise ConfigurationError(f"the collection {found.name!r} has no Amperity view; see the report of its build")
        scope = filter_scope(f"{found.index_id}\0{dialect}", wanted)
        after = 0 if cursor is None else open_cursor(self.secret, scope, found.id, cursor)
        rows, total = self._page(stored, wanted, after, limit + 1, with_total=with_total)
        following = None
        if len(rows) > limit:
            rows = rows[:limit]
            following = sign_cursor(self.secret, scope, found.id, rows[-1][0])
        payloads = [
            census_payload(text) if dialect == "census" else amperity_payload(found, key, text) for _, key, text in rows
        ]
        return StorePage(tuple(payloads), following, total)

    def search(
        self, collection: str | int | Collection, filters: Mapping[str, str], *, limit: int = 2
    ) -> list[StoredRecord]:
        """Return the first records that match all filters exactly, with their own types.

        Raises:
            ConfigurationError: an attribute is not filterable.
            StoreError: the collection does not exist or cannot be read.
        """
        stored = self._stored(collection)
        check_filters(stored.collection, filters)
        rows, _ = self._page(stored, filters, 0, limit, with_total=False)
        return [StoredRecord(key, json.loads(text)) for _, key, text in rows]

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
        known = self._stored(collection).collection

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
        name = self._stored(collection).collection.name
        new = put_record(self._database.primary, self._schema, name, record_id, record, wait=wait)
        self.refresh()
        return new

    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Delete one record in one transaction; return true if it existed.

        Raises:
            StoreBusy: another writer held the collection for longer than `wait` seconds.
            StoreError: there is no such collection, or the database cannot be written.
        """
        name = self._stored(collection).collection.name
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

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PostgresStore {self._database.name}, {len(self._catalog.by_id)} collections>"

    def _current(self) -> Catalog:
        self._listener.start()
        return self._catalog

    def _read_catalog(self) -> Catalog:
        return read_catalog(self._database.primary, self._schema, self._database.name)

    def _stored(self, ref: str | int | Collection) -> Stored:
        if isinstance(ref, Collection):
            ref = ref.id
        found = self._current().find(ref)
        if found is None:
            names = ", ".join(repr(item.name) for item in self.collections()[:20]) or "none"
            raise StoreError(f"the store has no collection {ref!r}; there are: {names}")
        return found

    def _record(self, stored: Stored, record_id: str) -> str | None:
        if not storable(record_id):
            return None
        rows = self._read(
            stored,
            lambda table, seen: f"SELECT {seen}, r.record FROM (SELECT 1) one LEFT JOIN {table} r ON r.key = %s",
            (record_id,),
        )
        return cast("str | None", rows[0][1])

    def _page(
        self, stored: Stored, filters: Mapping[str, str], after: int, limit: int, *, with_total: bool
    ) -> tuple[Rows, int | None]:
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

        rows = self._read(stored, statement, (*(values if with_total else ()), *values, after))
        page = sorted((row[2:] for row in rows if row[2] is not None), key=lambda row: cast("int", row[0]))
        return page, rows[0][1]

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


def check_filters(collection: Collection, filters: Mapping[str, str]) -> None:
    """Check that all filters are of filterable attributes.

    Raises:
        ConfigurationError: an attribute is not filterable. The message omits its name, which is user input.
    """
    for name in filters:
        if name not in collection.filterable:
            allowed = ", ".join(collection.filterable) or "none"
            raise ConfigurationError(f"a filter names an attribute that is not filterable; filterable are: {allowed}")
