"""Reader of one data file: the base of a collection, or a layer of changes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from ...errors import StoreError
from ..collection import Collection
from ..index.bitmaps import require_bitmaps
from ..index.postings import PostingCache, PostingList, PostingReader, listed
from .integrity import FileIntegrity, file_signature

__all__ = ["FileGone", "Layer"]


class FileGone(Exception):
    """The data file does not exist: a build has just replaced it."""


class Layer:
    """Read one data file, in one thread.

    A file in the manifest never changes, so it is opened as immutable, without locks. It is not memory-mapped, because
    truncating a mapped file would crash the process.

    Args:
        file: the data file.
        collection: the collection in the file.
        cache: the cache of decoded bitmaps; a new one by default.
        integrity: the state of the file, checked by `complete`; by default it is intact.

    Attributes:
        execute: run a statement.
        postings: the reader of the posting lists.

    Raises:
        FileGone: the file does not exist.
        StoreError: the file cannot be opened.
        MissingExtraError: `pyroaring` is not installed.
    """

    def __init__(
        self,
        file: Path,
        collection: Collection,
        cache: PostingCache | None = None,
        integrity: FileIntegrity | None = None,
    ) -> None:
        require_bitmaps()
        self.file = file
        self._integrity = integrity
        self._opened = file_signature(file)
        self._columns = {name: number for number, name in enumerate(collection.filterable)}
        self._key = collection.key
        if self._opened is None:
            raise FileGone
        problem = ""
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,  # so that another thread may close it
                cached_statements=32,
            )
            self._connection.executescript(
                "PRAGMA mmap_size = 0; PRAGMA cell_size_check = 1; PRAGMA cache_size = -4096"
            )
            self.execute = self._connection.execute
            self.postings = PostingReader(self._connection, file.name, cache or PostingCache())
            self.execute("SELECT 1 FROM record LIMIT 1")
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's message may quote the damaged data
            problem = str(getattr(error, "sqlite_errorname", type(error).__name__))
        if problem:
            self.close()
            raise StoreError(
                f"the data file {file} cannot be read ({problem}); restore it, or build its collection again"
            )

    def find_postings(self, filters: Mapping[str, str], *, base: bool) -> list[PostingList] | None:
        """Return the posting lists to intersect for these filters; `None` if nothing matches."""
        found: list[PostingList] = []
        for name, value in filters.items():
            if name == self._key:  # keys are unique, so the index finds the record
                row = self.execute("SELECT docid FROM record WHERE key = ? AND census NOT NULL", (value,)).fetchone()
                posting = None if row is None else listed(0, value, row)
            else:
                posting = self.postings.find(self._columns[name], value)
            if posting is None:
                return None
            found.append(posting)
        if base and (live := self.postings.live()) is not None:
            found.append(live)
        return found

    def keys(self, after: int = 0) -> Iterator[tuple[int, str, bool]]:
        """Yield docid, key, and whether the record exists (false for a tombstone), in ascending order."""
        return self.execute("SELECT docid, key, census NOT NULL FROM record WHERE docid > ? ORDER BY docid", (after,))

    def complete(self) -> bool:
        """Return whether the file is intact, so that a record that was not found does not exist."""
        state = self._integrity
        return state is None or (
            state.intact and state.judged == self._opened and file_signature(self.file) in (self._opened, None)
        )

    def outdated(self) -> bool:
        """Return whether the file was verified after a write to it, so that it must be opened again."""
        return self._integrity is not None and self._integrity.judged != self._opened

    def close(self) -> None:
        """Close the file."""
        connection = getattr(self, "_connection", None)
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def __del__(self) -> None:
        self.close()  # after its thread ended
