"""Writer of one data file: the base of a collection, or a layer of changes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from zlib import crc32

from ..._utils.files import private_opener
from ...errors import StoreError
from ..bulk_insert import insert_rows
from ..checksum import record_seed, record_seeds
from ..index.bitmaps import require_bitmaps
from ..index.builder import FIRST_ROWS, PostingsBuilder
from .integrity import digest_of
from .manifest import DataFile
from .row_encoder import EncodedRow

__all__ = ["CollectionWriter", "Written", "duplicates_found"]

_BATCH = FIRST_ROWS

# `docid` is the number that a record keeps; records lie in that order, and the index finds them by key. A record of
# which `census` is null was deleted: only layers have such. `generation` is the one that changed it (layers only).
_SCHEMA = """
CREATE TABLE record (docid INTEGER PRIMARY KEY, key TEXT NOT NULL, generation INTEGER, census BLOB,
    census_checksum INTEGER NOT NULL, amperity BLOB, amperity_checksum INTEGER NOT NULL);
"""


class Written(NamedTuple):
    """The contents of a finished file.

    Attributes:
        rows: the number of records.
        duplicates: rows replaced by a later row with the same key.
        first_duplicate: the number of the first row with an earlier row's key, or `None`.
        file: the file, as the manifest lists it.
    """

    rows: int
    duplicates: int
    first_duplicate: int | None
    file: DataFile


class CollectionWriter:
    """Write a data file that is not in use yet.

    Args:
        file: the path; it must not exist.
        filterable: the number of filterable columns.
        layer: whether it is a layer of changes, in which every row has a generation.
    """

    def __init__(self, file: Path, filterable: int, *, layer: bool = False) -> None:
        require_bitmaps()
        self._file = file
        os.close(private_opener(str(file), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        self._connection = sqlite3.connect(file, isolation_level=None)
        try:  # no journal, since an unfinished file is deleted; small pages, since each read copies a page
            self._connection.executescript(
                "PRAGMA page_size = 2048; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                f" PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -65536; PRAGMA threads = 2; BEGIN; {_SCHEMA}"
            )
        except BaseException:
            self.close()
            raise
        self._postings = PostingsBuilder(self._connection, filterable)
        self._filters = bool(filterable)
        self._layer = layer
        self._batch: list[tuple[int, str, int | None, bytes | None, int, bytes | None, int]] = []
        self._docids: list[int] = []
        self._values: list[tuple[str | None, ...]] = []
        self._rows = 0
        self._indexed = False

    def add(self, docid: int, row: EncodedRow, generation: int | None = None) -> None:
        """Add one row. Docids must be unique; in a layer, keys too."""
        self._append(docid, row.key, generation, row.census, row.amperity)
        if self._filters:
            self._docids.append(docid)
            self._values.append(row.values)
        if len(self._batch) >= _BATCH:
            self._flush()

    def add_plain(self, rows: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        """Add rows of key and payloads, numbered from docid 1. Add their values with `postings`."""
        docids = range(self._rows + 1, self._rows + 1 + len(rows))
        self._rows += len(rows)
        keys, censuses, amperities = zip(*rows, strict=True)
        seeds = record_seeds(docids, keys)
        checksums = map(crc32, amperities, seeds) if amperities[0] is not None else seeds
        whole = zip(docids, keys, censuses, map(crc32, censuses, seeds), amperities, checksums, strict=True)
        insert_rows(
            self._connection, "record (docid, key, census, census_checksum, amperity, amperity_checksum)", 6, whole
        )

    @property
    def postings(self) -> PostingsBuilder:
        """The builder of the posting lists."""
        return self._postings

    def write_tombstone(self, docid: int, key: str, generation: int) -> None:
        """Mark a record as deleted, in a layer."""
        self._append(docid, key, generation, None, None)

    def _append(
        self, docid: int, key: str, generation: int | None, census: bytes | None, amperity: bytes | None
    ) -> None:
        seed = record_seed(docid, key)
        row = (docid, key, generation, census, crc32(census or b"", seed), amperity, crc32(amperity or b"", seed))
        self._batch.append(row)

    def _flush(self) -> None:
        self._rows += len(self._batch)
        insert_rows(self._connection, "record", 7, self._batch)
        self._batch.clear()
        self._postings.extend(self._docids, self._values)
        self._docids.clear()
        self._values.clear()

    def index_keys(self) -> None:
        """Index the keys, after the last row. This releases the GIL; a second call does nothing."""
        if not self._indexed:
            self._flush()
            # Not a unique index: without a journal, its failure would leave a corrupt file.
            self._connection.execute("CREATE INDEX record_key ON record (key)")
            self._indexed = True

    def finish(self, *, fail_on_duplicate: bool = False, row_of: Callable[[int], int] = int) -> Written:
        """Index, sync and close the file.

        Args:
            fail_on_duplicate: whether two rows with the same key are an error.
            row_of: maps a docid to its row number, for the message.

        Raises:
            StoreError: two rows have the same key, and `fail_on_duplicate` is true.
        """
        self.index_keys()
        execute = self._connection.execute
        duplicates, first = 0, None
        if self._layer:
            execute("CREATE INDEX record_generation ON record (generation)")
        elif execute("SELECT 1 FROM record GROUP BY key HAVING count(*) > 1 LIMIT 1").fetchone():
            duplicates, first = self._drop_duplicates(fail_on_duplicate, row_of)
        self._postings.finish(live=self._layer or bool(duplicates))
        execute("COMMIT")
        self.close()
        with self._file.open("rb") as file:
            os.fsync(file.fileno())
        rows = self._rows - duplicates
        return Written(rows, duplicates, first, DataFile(self._file.name, rows, digest_of(self._file)))

    def _drop_duplicates(self, fail: bool, row_of: Callable[[int], int]) -> tuple[int, int]:
        execute = self._connection.execute
        execute(
            "CREATE TEMP TABLE twice AS SELECT docid, row_number() OVER later AS from_last,"
            " row_number() OVER sooner AS nth FROM record"
            " WHERE key IN (SELECT key FROM record GROUP BY key HAVING count(*) > 1)"
            " WINDOW later AS (PARTITION BY key ORDER BY docid DESC), sooner AS (PARTITION BY key ORDER BY docid)"
        )
        count, first = execute("SELECT count(*), min(docid) FROM twice WHERE nth > 1").fetchone()
        if fail:
            raise StoreError(duplicates_found(count, row_of(first)))
        execute("DELETE FROM record WHERE docid IN (SELECT docid FROM twice WHERE from_last > 1)")
        execute("DROP TABLE twice")
        return count, row_of(first)

    def close(self) -> None:
        """Close the file, finished or not."""
        self._connection.close()

    def __enter__(self) -> CollectionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def duplicates_found(count: int, first: int) -> str:
    """Return the error message for duplicate keys."""
    rows = "row has" if count == 1 else "rows have"
    return (
        f"{count:,} {rows} a key that an earlier row has; the first is row {first:,}."
        " Make the keys unique, or let the last row win with on_duplicate='last'"
    )
