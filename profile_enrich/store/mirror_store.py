"""Mirror store: a local copy of a vendor's records, with the time at which each was fetched."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring as quote
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from .._utils.files import private_opener
from .._utils.fork import reset_after_fork
from .._utils.output_paths import OutputPath, check_output_paths
from ..errors import ConfigurationError, StoreBusy, StoreError
from .files.page_token import filter_scope, open_cursor, sign_cursor
from .files.row_encoder import MAX_RECORD_BYTES, RowEncoder, RowRejected, key_text, to_json, type_of
from .inputs.open_reader import open_reader
from .model import (
    MAX_INDEX_FIELDS,
    MAX_PAGE,
    Collection,
    CollectionChanges,
    CollectionSpec,
    Column,
    Dialect,
    StoredRecord,
    StorePage,
)
from .profile_store import WRITE_WAIT
from .record_text import amperity_payload, census_payload, storable, stored_values
from .writes.build import index_id_of

__all__ = ["MirrorStore", "MirroredRecord"]

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), secret BLOB, generation INTEGER);
CREATE TABLE IF NOT EXISTS collection (id INTEGER PRIMARY KEY, index_id TEXT UNIQUE, name TEXT UNIQUE, key TEXT,
    columns TEXT, filterable TEXT, generation INTEGER, created_at REAL, updated_at REAL);
CREATE TABLE IF NOT EXISTS record (place INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL,
    key TEXT NOT NULL, record TEXT, fetched_at REAL NOT NULL, generation INTEGER NOT NULL, UNIQUE (collection, key));
CREATE INDEX IF NOT EXISTS record_generation ON record (collection, generation);
CREATE TABLE IF NOT EXISTS value (collection INTEGER, name TEXT, value TEXT, place INTEGER,
    PRIMARY KEY (collection, name, value, place)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS value_place ON value (place);
"""


@dataclass(frozen=True, slots=True)
class MirroredRecord:
    """The state of one key in the mirror.

    Args:
        there: whether the record exists; false if it is known to be missing.
        fetched_at: when the state was fetched, in seconds since the epoch.
    """

    there: bool
    fetched_at: float


class MirrorStore:
    """A store in one SQLite file that is filled record by record. It is thread-safe and fork-safe; readers never wait.

    Unlike a built store, it needs no columns in advance. It records when each record was fetched, and which keys have
    no record.

    Args:
        path: the file; created if it does not exist.
        clock: the time in seconds since the epoch; injectable for tests.

    Raises:
        StoreError: the file cannot be opened, or is not a mirror.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._clock = clock
        self.after_fork()
        reset_after_fork(self)
        check_output_paths([OutputPath(self._path, "the mirror", kind="database")])
        self._refuse_another_database()
        with contextlib.suppress(OSError):
            os.close(private_opener(str(self._path), os.O_CREAT | os.O_WRONLY))
        with self._writing() as run:
            for statement in _TABLES.split(";\n"):
                run(statement)
            run("INSERT OR IGNORE INTO meta VALUES (1, ?, 0)", (secrets.token_bytes(32),))
        self._secret = bytes(self._rows("SELECT secret FROM meta")[0][0])

    def _refuse_another_database(self) -> None:
        """Refuse a SQLite file of another program, whose tables would get company."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        tables = {"meta"}
        url = f"{self._path.absolute().as_uri()}?mode=ro"
        with (
            contextlib.suppress(sqlite3.Error),  # what is no database is reported when it is opened
            contextlib.closing(sqlite3.connect(url, uri=True)) as found,
        ):
            tables = {row[0] for row in found.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if tables and "meta" not in tables:
            raise ConfigurationError(f"the mirror {self._path} is another database; give a new file")

    def after_fork(self) -> None:
        """Connections do not cross a fork: the child opens its own."""
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []

    @property
    def namespace(self) -> str:
        """The namespace, made of the file's path."""
        return f"mirror:{self._path.absolute()}"

    @property
    def blocking(self) -> bool:
        """Always false: a read takes microseconds."""
        return False

    @property
    def check_every(self) -> float:
        """Always zero: every read returns current data."""
        return 0.0

    @property
    def generation(self) -> int:
        """The number of changes so far."""
        return int(self._rows("SELECT generation FROM meta")[0][0])

    @property
    def secret(self) -> bytes:
        """The key that signs page tokens."""
        return self._secret

    def now(self) -> float:
        """The current time of the mirror's clock, in seconds since the epoch."""
        return self._clock()

    def add_collection(
        self,
        name: str,
        *,
        key: str = "id",
        id: int | None = None,
        index_id: str | None = None,
        filterable: Iterable[str] = (),
    ) -> Collection:
        """Add a collection if it does not exist. Pass the vendor's ids to keep the URLs the same.

        Args:
            name: the name of the entity and the index.
            key: the column that identifies a record.
            id: the entity id; the next free one by default.
            index_id: the index id; derived from the name by default.
            filterable: the columns that pages can be filtered by. They cannot be changed later.
        """
        chosen = json.dumps(list(filterable))
        with self._writing() as run:
            now = self._clock()
            run(
                "INSERT OR IGNORE INTO collection VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (id, index_id or index_id_of(name), name, key, json.dumps([[key, "text"]]), chosen, now, now),
            )
        return self.collection(name)

    def collections(self) -> tuple[Collection, ...]:
        """All collections, by id."""
        rows = self._rows(
            "SELECT c.*, (SELECT count(*) FROM record r WHERE r.collection = c.id AND r.record IS NOT NULL)"
            " FROM collection c ORDER BY id"
        )
        return tuple(_collection(row, row[9]) for row in rows)

    def find(self, ref: str | int) -> Collection | None:
        """Return the collection with this name, index id or entity id, or `None`."""
        rows = self._rows("SELECT * FROM collection WHERE id = ? OR name = ? OR index_id = ?", (ref, ref, ref))
        return _collection(rows[0], 0) if rows else None

    def find_index(self, index_id: str) -> Collection | None:
        """Return the collection with this index id, or `None`."""
        if not storable(index_id):
            return None
        rows = self._rows("SELECT * FROM collection WHERE index_id = ?", (index_id,))
        return _collection(rows[0], 0) if rows else None

    def collection(self, ref: str | int) -> Collection:
        """Return the collection with this name, index id or entity id.

        Raises:
            StoreError: there is none; the message lists the existing ones.
        """
        found = self.find(ref)
        if found is None:
            names = ", ".join(repr(item.name) for item in self.collections()[:20]) or "none"
            raise StoreError(f"the mirror {self._path} has no collection {ref!r}; there are: {names}")
        return found

    def look(self, collection: Collection, record_id: str) -> MirroredRecord | None:
        """Return the state of a key; `None` if it was never fetched."""
        if not storable(record_id):
            return None
        rows = self._rows(
            "SELECT record IS NOT NULL, fetched_at FROM record WHERE collection = ? AND key = ?",
            (collection.id, record_id),
        )
        return MirroredRecord(bool(rows[0][0]), rows[0][1]) if rows else None

    def get(self, collection: str | int | Collection, record_id: str) -> StoredRecord | None:
        """Return the record with this key, or `None`."""
        found = self._record(self._find(collection), record_id)
        return None if found is None else StoredRecord(record_id, json.loads(found))

    def get_payload(
        self, collection: str | int | Collection, record_id: str, dialect: Dialect = "census"
    ) -> bytes | None:
        """Return the record with this key as the JSON body of a vendor's response, or `None`."""
        known = self._find(collection)
        found = self._record(known, record_id)
        if found is None or (dialect == "amperity" and known.index_fields is None):
            return None
        return census_payload(found) if dialect == "census" else amperity_payload(known, record_id, found)

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
        """Return one page of the mirrored records that match all filters exactly, in order of insertion.

        Raises:
            CursorError: the cursor was modified, or belongs to another collection or filter.
            ConfigurationError: an attribute is not filterable, or the limit is out of range.
        """
        if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
            raise ConfigurationError(f"limit is 1 to {MAX_PAGE:,}")
        wanted, known = dict(filters or {}), self._find(collection)
        if dialect == "amperity" and known.index_fields is None:
            raise ConfigurationError(f"the collection {known.name!r} has no Amperity view: it has more than 30 columns")
        scope = filter_scope(f"{known.index_id}\0{dialect}", wanted)
        after = 0 if cursor is None else open_cursor(self._secret, scope, known.id, cursor)
        rows = self._page(known, wanted, after, limit + 1)
        following = None
        if len(rows) > limit:
            rows = rows[:limit]
            following = sign_cursor(self._secret, scope, known.id, rows[-1][0])
        total = len(self._page(known, wanted, 0, -1)) if with_total else None
        payloads = [
            census_payload(text) if dialect == "census" else amperity_payload(known, key, text) for _, key, text in rows
        ]
        return StorePage(tuple(payloads), following, total)

    def search(
        self, collection: str | int | Collection, filters: Mapping[str, str], *, limit: int = 2
    ) -> list[StoredRecord]:
        """Return the first records that match all filters exactly, with their own types."""
        rows = self._page(self._find(collection), filters, 0, limit)
        return [StoredRecord(key, json.loads(text)) for _, key, text in rows]

    def changes_since(
        self, collection: str | int | Collection, generation: int, *, limit: int = 100_000
    ) -> CollectionChanges | None:
        """Return the keys written or deleted after a generation; `None` if there are more than `limit`."""
        known = self._find(collection)
        rows = self._rows(
            "SELECT key, record IS NOT NULL FROM record WHERE collection = ? AND generation > ? LIMIT ?",
            (known.id, generation, limit + 1),
        )
        if len(rows) > limit:
            return None
        written = tuple(key for key, there in rows if there)
        return CollectionChanges(known.generation, written, tuple(key for key, there in rows if not there))

    def put_record(
        self,
        collection: str | int | Collection,
        record_id: str,
        record: Mapping[str, Any],
        *,
        wait: float = WRITE_WAIT,
    ) -> bool:
        """Insert or replace one record as fetched now; return true if it is new.

        Raises:
            ConfigurationError: the record cannot be stored.
            StoreBusy: another writer held the file for longer than `wait` seconds.
        """
        return self.put_many(collection, [(record_id, record)], wait=wait) == 1

    def put_many(
        self,
        collection: str | int | Collection,
        records: Iterable[tuple[str, Mapping[str, Any]]],
        *,
        wait: float = WRITE_WAIT,
    ) -> int:
        """Write records in one transaction; return how many are new.

        Raises:
            ConfigurationError: a record cannot be stored; none is written.
            StoreBusy: another writer held the file for longer than `wait` seconds.
        """
        known = self._find(collection)
        columns = {column.name: column.type for column in known.columns}
        added = 0
        with self._writing(wait) as run:
            for record_id, record in records:
                text = _encode(known, record_id, record)
                for name, value in record.items():
                    columns.setdefault(name, type_of(value) or "text")
                added += self._write(run, known, record_id, text)
            run(
                "UPDATE collection SET columns = ?, updated_at = ? WHERE id = ?",
                (json.dumps(list(columns.items())), self._clock(), known.id),
            )
        return added

    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Mark a key as missing as of now; return true if its record existed.

        Raises:
            StoreBusy: another writer held the file for longer than `wait` seconds.
        """
        known = self._find(collection)
        there = self._record(known, record_id) is not None
        if storable(record_id):
            with self._writing(wait) as run:
                self._write(run, known, record_id, None)
        return there

    def touch(self, collection: Collection, record_id: str) -> None:
        """Set the fetch time of an unchanged record to now."""
        with self._writing() as run:
            run(
                "UPDATE record SET fetched_at = ? WHERE collection = ? AND key = ?",
                (self._clock(), collection.id, record_id),
            )

    def load(self, spec: CollectionSpec) -> int:
        """Insert or replace records from all rows of a source, e.g. a warehouse table; return the number of rows.

        The collection keeps its ids, so URLs stay the same. A row that cannot be stored is skipped.

        Raises:
            StoreError: the source cannot be read, or the collection does not exist.
        """
        known = self.collection(spec.name)
        reader = open_reader(spec)
        number = 0
        columns: dict[str, Any] = {}
        encoder = RowEncoder(key=spec.key, index_id=known.index_id, index_fields=None, filterable=())
        encoder.with_index = False
        try:
            with self._writing() as run:
                for names, values in reader.rows():
                    with contextlib.suppress(RowRejected):
                        row = encoder.encode(names, reader.texts(values), values)
                        self._write(run, known, row.key, row.census[len(b'{"data":') : -1].decode())
                        number += 1
                columns = dict(reader.columns())
                run(
                    "UPDATE collection SET columns = ?, key = ?, updated_at = ? WHERE id = ?",
                    (json.dumps(list(columns.items())), spec.key, self._clock(), known.id),
                )
        finally:
            reader.close()
        return number

    def refresh(self) -> bool:
        """Return false: every read returns current data."""
        return False

    def close(self) -> None:
        """Close all connections. The next use opens them again."""
        connections, self._open = self._open, []
        self._local = threading.local()
        for connection in connections:
            connection.close()

    def __enter__(self) -> MirrorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MirrorStore {self._path}>"

    def _find(self, ref: str | int | Collection) -> Collection:
        return self.collection(ref.id if isinstance(ref, Collection) else ref)

    def _record(self, collection: Collection, record_id: str) -> str | None:
        if not storable(record_id):
            return None
        rows = self._rows("SELECT record FROM record WHERE collection = ? AND key = ?", (collection.id, record_id))
        return rows[0][0] if rows else None

    def _page(self, known: Collection, filters: Mapping[str, str], after: int, limit: int) -> list[tuple[Any, ...]]:
        for name in filters:
            if name not in known.filterable:
                allowed = ", ".join(known.filterable) or "none"
                raise ConfigurationError(
                    f"a filter names an attribute that is not filterable; filterable are: {allowed}"
                )
        if not all(storable(value) or value == "" for value in filters.values()):
            return []
        matches = " AND place IN (SELECT place FROM value WHERE collection = ? AND name = ? AND value = ?)" * len(
            filters
        )
        values = [part for name, value in filters.items() for part in (known.id, name, value)]
        return self._rows(
            f"SELECT place, key, record FROM record WHERE collection = ? AND place > ? AND record IS NOT NULL{matches}"  # noqa: S608
            " ORDER BY place LIMIT ?",
            (known.id, after, *values, limit),
        )

    def _write(self, run: Callable[..., Any], known: Collection, record_id: str, text: str | None) -> int:
        """Write a record, or mark it as missing; return 1 if it is new, else 0."""
        old = run("SELECT place, record FROM record WHERE collection = ? AND key = ?", (known.id, record_id)).fetchone()
        if old is not None and old[1] == text:
            run("UPDATE record SET fetched_at = ? WHERE place = ?", (self._clock(), old[0]))
            return 0
        generation = run("UPDATE meta SET generation = generation + 1 RETURNING generation").fetchone()[0]
        place = run(
            "INSERT INTO record (collection, key, record, fetched_at, generation) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (collection, key) DO UPDATE SET record = excluded.record, fetched_at = excluded.fetched_at,"
            " generation = excluded.generation RETURNING place",
            (known.id, record_id, text, self._clock(), generation),
        ).fetchone()[0]
        run("UPDATE collection SET generation = ? WHERE id = ?", (generation, known.id))
        if known.filterable:
            run("DELETE FROM value WHERE place = ?", (place,))
            values = () if text is None else stored_values(text, known.filterable)
            for name, value in zip(known.filterable, values, strict=False):
                if value is not None:
                    run("INSERT OR IGNORE INTO value VALUES (?, ?, ?, ?)", (known.id, name, value, place))
        return int(text is not None and (old is None or old[1] is None))

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=WRITE_WAIT)
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = found
            self._open.append(found)
        return found

    def _rows(self, statement: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        problem = ""
        try:
            return cast("list[tuple[Any, ...]]", self._connection().execute(statement, tuple(values)).fetchall())
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            problem = getattr(error, "sqlite_errorname", type(error).__name__)
        raise StoreError(f"the mirror {self._path} cannot be read ({problem})")

    @contextlib.contextmanager
    def _writing(self, wait: float = WRITE_WAIT) -> Generator[Callable[..., sqlite3.Cursor]]:
        problem = ""
        try:
            connection = self._connection()
            connection.execute(f"PRAGMA busy_timeout = {max(1, round(wait * 1000))}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection.execute
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            problem = getattr(error, "sqlite_errorname", type(error).__name__)
        if problem in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            raise StoreBusy(f"another process writes the mirror {self._path}; try again")
        if problem:
            raise StoreError(f"the mirror {self._path} cannot be written ({problem})")


def _collection(row: tuple[Any, ...], rows: int) -> Collection:
    columns = tuple(Column(name, kind) for name, kind in json.loads(row[4]))
    names = tuple(column.name for column in columns)
    return Collection(
        id=row[0],
        index_id=row[1],
        name=row[2],
        description="",
        key=row[3],
        columns=columns,
        filterable=tuple(json.loads(row[5])),
        index_fields=names if len(names) <= MAX_INDEX_FIELDS else None,
        rows=rows,
        generation=row[6],
        created_at=datetime.fromtimestamp(row[7], UTC),
        updated_at=datetime.fromtimestamp(row[8], UTC),
    )


def _encode(collection: Collection, record_id: str, record: Mapping[str, Any]) -> str:
    problem = ""
    try:
        key = record.get(collection.key)
        if not storable(record_id) or key_text(record_id) != record_id:
            problem = "its key is not valid Unicode or contains NUL"
        elif key is not None and key_text(key) != record_id:
            problem = "its key column holds another key"
        else:
            text = "{" + ",".join([f"{quote(name)}:{to_json(value)}" for name, value in record.items()]) + "}"
            if len(text.encode()) <= MAX_RECORD_BYTES:
                return text
            problem = f"it is larger than {MAX_RECORD_BYTES >> 20} MiB"
    except RowRejected as rejected:
        problem = rejected.reason
    except RecursionError:
        problem = "it is nested too deeply"
    except UnicodeEncodeError:
        problem = "it holds a lone surrogate, which is not valid Unicode"
    raise ConfigurationError(f"the record cannot be stored: {problem}")
