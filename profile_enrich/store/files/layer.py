"""One data file, opened for reading: the base of a collection, or a layer of changes above it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from ...errors import StoreError
from ..index.bitmap_cache import Bitmaps
from ..index.posting_lists import LIVE, ListTerm, Term, find_term
from ..model import Collection

__all__ = ["FileGone", "Layer"]

_MMAP = 1 << 40  # SQLite takes as much as it was built for


class FileGone(Exception):
    """The data file is not there: a build has just swapped in another."""


class Layer:
    """Reads one data file, for one thread.

    The file never changes once it is named in the manifest, so it is opened as immutable: no locks, no checks, mapped
    into memory.

    Args:
        file: the data file.
        collection: what is in it.

    Attributes:
        execute: runs a statement.

    Raises:
        FileGone: it is not there.
        StoreError: it cannot be opened.
    """

    def __init__(self, file: Path, collection: Collection) -> None:
        self._file = file
        self._attrs = {name: number for number, name in enumerate(collection.filterable)}
        self._key = collection.key
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
            self.execute = self._connection.execute
            self._bitmaps = Bitmaps(self._connection)
            self._has_live = self.execute("SELECT 1 FROM post WHERE id < 4194304 LIMIT 1").fetchone() is not None
        except sqlite3.Error as error:
            failed = error
        if failed is not None:
            self.close()
            raise self.failure(failed)

    def live(self) -> Term:
        """The docids that this file speaks of: of a layer all of them, of a base only when it has stale postings."""
        return Term(self._connection, self._bitmaps, LIVE, 1 << 40)

    def terms(self, filters: Mapping[str, str], *, base: bool) -> list[Term] | None:
        """What all of must hold a docid for its record to match; `None` when nothing matches."""
        terms: list[Term] = []
        for name, value in filters.items():
            if name == self._key:  # every value is another: the index finds it
                row = self.execute("SELECT docid FROM record WHERE key = ? AND census NOT NULL", (value,)).fetchone()
                term: Term | None = None if row is None else ListTerm(self._connection, self._bitmaps, row)
            else:
                term = find_term(self._connection, self._bitmaps, self._attrs[name], value)
            if term is None:
                return None
            terms.append(term)
        if base and self._has_live:
            terms.append(self.live())
        return terms

    def keys(self, after: int = 0) -> Iterator[tuple[int, str, bool]]:
        """Docid, key and whether there is a record (or the mark of a deleted one), ascending."""
        return self.execute("SELECT docid, key, census NOT NULL FROM record WHERE docid > ? ORDER BY docid", (after,))

    def close(self) -> None:
        """Closes the file."""
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        self.close()  # when its thread ended

    def failure(self, error: sqlite3.Error) -> StoreError:
        """What to say about an error of SQLite."""
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return StoreError(f"the data file {self._file} cannot be read ({name}); build the store anew")
