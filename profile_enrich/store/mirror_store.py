"""Mirror store: a local copy of a vendor's records, with the time at which each was fetched."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring as quote
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .collection import Collection, CollectionChanges, Column, Dialect, index_id_of
from .collection_specs import MAX_INDEX_FIELDS, CollectionSpec
from .database_row import payload, storable, stored_values
from .files.row_encoder import MAX_RECORD_BYTES, RowEncoder, RowRejected, key_text, to_json, type_of
from .inputs.base import unchanged
from .inputs.rejects import check_paths
from .inputs.select_reader import open_reader
from .mirror_file import MirrorFile
from .profile_store import WRITE_WAIT, ProfileStore
from .writes.build_checks import check_any_stored

__all__ = ["MirrorStore", "MirroredRecord"]


@dataclass(frozen=True, slots=True)
class MirroredRecord:
    """The state of one key in the mirror.

    Args:
        there: whether the record exists; false if it is known to be missing.
        fetched_at: when the state was fetched, in seconds since the epoch.
    """

    there: bool
    fetched_at: float


class MirrorStore(ProfileStore):
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
        self._file = MirrorFile(self._path)

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
        return int(self._file.rows("SELECT generation FROM meta")[0][0])

    @property
    def secret(self) -> bytes:
        """The key that signs page tokens."""
        return self._file.secret

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
        with self._file.writing() as run:
            now = self._clock()
            run(
                "INSERT OR IGNORE INTO collection VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (id, index_id or index_id_of(name), name, key, json.dumps([[key, "text"]]), chosen, now, now),
            )
        return self.collection(name)

    def collections(self) -> tuple[Collection, ...]:
        """All collections, by id."""
        rows = self._file.rows(
            "SELECT c.*, (SELECT count(*) FROM record r WHERE r.collection = c.id AND r.record IS NOT NULL)"
            " FROM collection c ORDER BY id"
        )
        return tuple(_collection(row, row[9]) for row in rows)

    def find(self, ref: str | int) -> Collection | None:
        """Return the collection with this name, index id or entity id, or `None`."""
        rows = self._file.rows("SELECT * FROM collection WHERE id = ? OR name = ? OR index_id = ?", (ref, ref, ref))
        return _collection(rows[0], 0) if rows else None

    def find_index(self, index_id: str) -> Collection | None:
        """Return the collection with this index id, or `None`."""
        if not storable(index_id):
            return None
        rows = self._file.rows("SELECT * FROM collection WHERE index_id = ?", (index_id,))
        return _collection(rows[0], 0) if rows else None

    def look(self, collection: Collection, record_id: str) -> MirroredRecord | None:
        """Return the state of a key; `None` if it was never fetched."""
        if not storable(record_id):
            return None
        rows = self._file.rows(
            "SELECT record IS NOT NULL, fetched_at FROM record WHERE collection = ? AND key = ?",
            (collection.id, record_id),
        )
        return MirroredRecord(bool(rows[0][0]), rows[0][1]) if rows else None

    def changes_since(
        self, collection: str | int | Collection, generation: int, *, limit: int = 100_000
    ) -> CollectionChanges | None:
        """Return the keys written or deleted after a generation; `None` if there are more than `limit`."""
        known = self._known(collection)
        rows = self._file.rows(
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
        known = self._known(collection)
        columns = {column.name: column.type for column in known.columns}
        added = 0
        with self._file.writing(wait) as run:
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
        known = self._known(collection)
        there = self._record(known, record_id) is not None
        if storable(record_id):
            with self._file.writing(wait) as run:
                self._write(run, known, record_id, None)
        return there

    def touch(self, collection: Collection, record_id: str) -> None:
        """Set the fetch time of an unchanged record to now."""
        with self._file.writing() as run:
            run(
                "UPDATE record SET fetched_at = ? WHERE collection = ? AND key = ?",
                (self._clock(), collection.id, record_id),
            )

    def load(self, spec: CollectionSpec) -> int:
        """Insert or replace records from all rows of a source, e.g. a warehouse table; return the number of rows.

        The collection keeps its ids, so URLs stay the same. A row that cannot be stored is skipped.

        Raises:
            ConfigurationError: the file for rejected rows would overwrite other data.
            StoreError: the source cannot be read, changes meanwhile, or has no row that can be stored; or the
                collection does not exist.
        """
        known = self.collection(spec.name)
        check_paths([spec])
        read = number = 0
        columns: dict[str, Any] = {}
        encoder = RowEncoder(key=spec.key, index_id=known.index_id, index_fields=None, filterable=())
        encoder.with_index = False
        with self._file.writing() as run, unchanged(spec.source):
            reader = open_reader(spec)
            try:
                for read, (names, values) in enumerate(reader.rows(), 1):
                    reason = ""
                    try:
                        row = encoder.encode(names, reader.texts(values), values)
                        self._write(run, known, row.key, row.census[len(b'{"data":') : -1].decode())
                        number += 1
                    except RowRejected as error:
                        reason = error.reason
                    if reason:
                        reader.reject(read, names, values, reason)
                check_any_stored(reader.where, read + reader.rejects.broken, reader.rejects)
                reader.rejects.finish()
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
        self._file.close()

    def __repr__(self) -> str:
        return f"<MirrorStore {self._path}>"

    def _record(self, collection: Collection, record_id: str) -> str | None:
        if not storable(record_id):
            return None
        rows = self._file.rows("SELECT record FROM record WHERE collection = ? AND key = ?", (collection.id, record_id))
        return rows[0][0] if rows else None

    @property
    def _description(self) -> str:
        return f"the mirror {self._path}"

    def _payload(self, known: Collection, record_id: str, dialect: Dialect) -> bytes | None:
        text = self._record(known, record_id)
        return None if text is None else payload(known, record_id, text, dialect)

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
        if not all(storable(value) or value == "" for value in filters.values()):
            return [], 0 if with_total else None
        matches = " AND place IN (SELECT place FROM value WHERE collection = ? AND name = ? AND value = ?)"
        matching = f"FROM record WHERE collection = ? AND record IS NOT NULL{matches * len(filters)}"
        values = [known.id, *(part for name, value in filters.items() for part in (known.id, name, value))]
        rows = self._file.rows(
            f"SELECT place, key, record {matching} AND place > ? ORDER BY place LIMIT ?", (*values, after or 0, limit)
        )
        total = self._file.rows(f"SELECT count(*) {matching}", values)[0][0] if with_total else None
        return [(place, key, payload(known, key, text, dialect)) for place, key, text in rows], total

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
