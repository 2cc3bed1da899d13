"""One data file, opened for reading."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ..errors import StoreError
from .model import Collection, Dialect
from .postings import LIVE, SingleTerm, Term, count, make_term, select

__all__ = ["CollectionReader", "FileGone"]

_MMAP = 1 << 40  # SQLite takes as much as it was built for

_PAYLOAD: dict[Dialect, str] = {
    "census": "SELECT census FROM record WHERE key = ?",
    "amperity": "SELECT amperity FROM record WHERE key = ?",
}
_NEXT: dict[Dialect, str] = {
    "census": "SELECT docid, key, census FROM record WHERE docid > ? ORDER BY docid LIMIT ?",
    "amperity": "SELECT docid, key, amperity FROM record WHERE docid > ? ORDER BY docid LIMIT ?",
}
_THESE: dict[Dialect, str] = {
    "census": "SELECT docid, r.key, census FROM json_each(?) CROSS JOIN record r ON docid = value",
    "amperity": "SELECT docid, r.key, amperity FROM json_each(?) CROSS JOIN record r ON docid = value",
}

PageRow = tuple[int, str, bytes]


class FileGone(Exception):
    """The data file is not there: a build has just swapped in another."""


class CollectionReader:
    """Reads one collection's data file, for one thread.

    The file never changes once it is named in the manifest, so it is opened as immutable: no locks, no checks, mapped
    into memory.

    Args:
        file: the data file.
        collection: what is in it.

    Raises:
        FileGone: it is not there.
        StoreError: it cannot be opened.
    """

    def __init__(self, file: Path, collection: Collection) -> None:
        self._file = file
        self._attrs = {name: number for number, name in enumerate(collection.filterable)}
        self._key = collection.key
        self._rows = collection.rows
        if not file.exists():
            raise FileGone
        failed: sqlite3.Error | None = None
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,  # so that another thread may close it
                cached_statements=32,
            )
            self._connection.execute(f"PRAGMA mmap_size = {_MMAP}")
            self._execute = self._connection.execute
            self._has_holes = self._execute("SELECT 1 FROM post WHERE id < 4194304 LIMIT 1").fetchone() is not None
        except sqlite3.Error as error:
            failed = error
        if failed is not None:
            self.close()
            raise self._failure(failed)

    def payload(self, key: str, dialect: Dialect) -> bytes | None:
        """The payload of the record with this key."""
        failed: sqlite3.Error
        try:
            row = self._execute(_PAYLOAD[dialect], (key,)).fetchone()
            return None if row is None else row[0]
        except UnicodeEncodeError:  # a lone surrogate: no stored key has one
            return None
        except sqlite3.Error as error:
            failed = error
        raise self._failure(failed)

    def page(self, filters: Mapping[str, str], *, after: int, limit: int, dialect: Dialect) -> list[PageRow]:
        """The next records after this docid that match all filters: docid, key, payload."""
        failed: sqlite3.Error
        try:
            if not filters:
                return self._execute(_NEXT[dialect], (after, limit)).fetchall()
            terms = self._terms(filters)
            if terms is None:
                return []
            docids = select(terms, after=after, limit=limit)
            return self._execute(_THESE[dialect], (json.dumps(docids),)).fetchall() if docids else []
        except UnicodeEncodeError:
            return []
        except sqlite3.Error as error:
            failed = error
        raise self._failure(failed)

    def count(self, filters: Mapping[str, str]) -> int:
        """How many records match all filters."""
        if not filters:
            return self._rows
        failed: sqlite3.Error
        try:
            terms = self._terms(filters)
            return 0 if terms is None else count(terms)
        except UnicodeEncodeError:
            return 0
        except sqlite3.Error as error:
            failed = error
        raise self._failure(failed)

    def _terms(self, filters: Mapping[str, str]) -> list[Term] | None:
        terms: list[Term] = []
        for name, value in filters.items():
            if name == self._key:  # every value is another: the index finds it
                row = self._execute("SELECT docid FROM record WHERE key = ?", (value,)).fetchone()
                term: Term | None = None if row is None else SingleTerm(self._connection, row[0])
            else:
                term = make_term(self._connection, self._attrs[name], value)
            if term is None:
                return None
            terms.append(term)
        if self._has_holes:
            terms.append(Term(self._connection, LIVE, 1 << 40))
        return terms

    def close(self) -> None:
        """Closes the file."""
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        self.close()  # when its thread ended

    def _failure(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return StoreError(f"the data file {self._file} cannot be read ({name}); build the store anew")
