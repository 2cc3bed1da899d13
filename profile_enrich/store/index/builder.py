"""Builder of posting lists from a stream of records."""

from __future__ import annotations

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter

from ...errors import StoreError
from ..bulk_insert import insert_rows
from ..checksum import value_checksum, value_checksums
from .bitmaps import SEGMENT_BITS, WHOLE, BitMap, segment_bitmaps
from .postings import LIVE, SHIFT

__all__ = ["COMMON", "FIRST_ROWS", "NEAR_UNIQUE", "PostingsBuilder"]

_SCHEMA = (
    "CREATE TABLE value (column_id INTEGER NOT NULL, value TEXT NOT NULL, value_id INTEGER NOT NULL,"
    " records INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (column_id, value)) WITHOUT ROWID",
    "CREATE TABLE posting (posting_id INTEGER PRIMARY KEY, bitmap BLOB NOT NULL, checksum INTEGER NOT NULL)",
    "CREATE TABLE unique_value (column_id INTEGER NOT NULL, value TEXT NOT NULL, docid INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL, PRIMARY KEY (column_id, value, docid)) WITHOUT ROWID",
    "CREATE TEMP TABLE staged (column_id INTEGER, value TEXT, segment INTEGER, records INTEGER, bitmap BLOB)",
    "CREATE TEMP TABLE staged_unique (column_id INTEGER, value TEXT, docid INTEGER)",
)

FIRST_ROWS = 4096
"""The number of records whose values decide how a column is indexed."""
NEAR_UNIQUE = 0.5
"""The ratio of distinct values to records from which a column counts as near-unique."""
COMMON = 256
"""The number of records from which a value gets a posting list in any column."""

_LAST_DOCID = (1 << 32) - 1  # of a bitmap
_HELD = 1 << (SEGMENT_BITS + 1)  # records buffered before they are written: two segments

PostingRow = tuple[int, str, int, int, bytes]
"""Column, value, segment, number of records and serialized bitmap."""


def _near_unique(values: Sequence[str | None]) -> bool:
    present = [value for value in values if value is not None]
    return len(present) > 1 and len(set(present)) > len(present) * NEAR_UNIQUE


class PostingsBuilder:
    """Collect the values of records and write their posting lists.

    With mostly ascending docids, each posting is written once. The first records decide how a column is indexed; common
    values of a near-unique column get posting lists at the end.

    Args:
        connection: the connection to the file being built.
        columns: the number of filterable columns.
    """

    def __init__(self, connection: sqlite3.Connection, columns: int) -> None:
        self._connection = connection
        for statement in _SCHEMA:  # not executescript, which would commit
            connection.execute(statement)
        self._columns = columns
        self._posted: list[int] | None = None
        self._unique: list[int] = []
        self._open: dict[int, list[defaultdict[str | None, array[int]]]] = {}
        self._held = 0
        self._value_id = 0

    def extend(self, docids: Sequence[int], rows: Sequence[Sequence[str | None]]) -> None:
        """Add the values of records, in the order of the filterable columns. The first call should pass many.

        Raises:
            StoreError: the collection has had too many records.
        """
        if not docids or not self._columns:
            return
        if (last := max(docids)) > _LAST_DOCID:
            raise StoreError(f"a collection has at most {_LAST_DOCID:,} docids; build it anew in another directory")
        columns = list(zip(*rows, strict=True))
        if self._posted is None:
            self._unique = [number for number, values in enumerate(columns) if _near_unique(values)]
            self._posted = [number for number in range(self._columns) if number not in self._unique]
        for column in self._unique:
            found = zip(columns[column], docids, strict=True)
            rest = ((column, value, docid) for value, docid in found if value is not None)
            insert_rows(self._connection, "staged_unique", 3, rest)
        if self._held >= _HELD:
            self._flush(but=docids[0] >> SEGMENT_BITS)
        self._held += len(docids)
        if min(docids) >> SEGMENT_BITS == last >> SEGMENT_BITS:
            self._collect(docids[0] >> SEGMENT_BITS, docids, columns)
            return
        places: dict[int, list[int]] = {}
        for place, docid in enumerate(docids):
            places.setdefault(docid >> SEGMENT_BITS, []).append(place)
        for segment, some in places.items():
            self._collect(segment, [docids[n] for n in some], [[values[n] for n in some] for values in columns])

    def _collect(self, segment: int, docids: Sequence[int], columns: Sequence[Sequence[str | None]]) -> None:
        opened = self._open.get(segment)
        if opened is None:
            opened = self._open[segment] = [defaultdict(_docids) for _ in range(self._columns)]
        for column in self._posted or ():
            lists = opened[column]
            for value, docid in zip(columns[column], docids, strict=True):
                lists[value].append(docid)

    def _flush(self, but: int = -1) -> None:
        """Write the buffered postings, except those of the current segment."""
        kept = self._open.pop(but, None)
        for segment, opened in self._open.items():
            insert_rows(self._connection, "staged", 5, _rows_of(segment, opened))
        self._open = {} if kept is None else {but: kept}
        self._held = 0

    def add_unique(self, rows: Iterable[tuple[int, str, int]]) -> None:
        """Add sorted rows of column, value and docid of near-unique columns, without common values."""
        rest = iter(rows)
        while batch := list(islice(rest, FIRST_ROWS)):
            columns, values, docids = zip(*batch, strict=True)
            checksums = value_checksums(columns, values, docids)
            insert_rows(self._connection, "unique_value", 4, zip(columns, values, docids, checksums, strict=True))

    def add_postings(self, rows: Iterable[PostingRow]) -> None:
        """Add posting lists, ordered by column, value and segment. A segment's or rare value's bitmaps are merged."""
        insert = self._connection.execute
        for (column, value), parts in groupby(rows, itemgetter(0, 1)):
            self._value_id += 1
            pieces = list(parts)
            records = sum(piece[3] for piece in pieces)
            for segment, some in groupby(pieces, _in_one if records <= WHOLE else _segment_of):
                data, *more = [piece[4] for piece in some]
                if more:
                    data = BitMap.deserialize(data).union(*map(BitMap.deserialize, more)).serialize()
                insert(
                    "INSERT INTO posting VALUES (?, ?, ?)",
                    ((self._value_id << SHIFT) + segment, data, value_checksum(column, value, segment, data)),
                )
            insert(
                "INSERT INTO value VALUES (?, ?, ?, ?, ?)",
                (column, value, self._value_id, records, value_checksum(column, value, records)),
            )

    def finish(self, *, live: bool) -> None:
        """Write the posting lists.

        Args:
            live: whether to also store the list of all docids in the file.
        """
        self._flush()
        execute = self._connection.execute
        if self._unique:
            self._post_common_values()
        self.add_unique(execute("SELECT column_id, value, docid FROM staged_unique ORDER BY 1, 2, 3"))
        execute("DROP TABLE staged_unique")
        self.add_postings(execute("SELECT column_id, value, segment, records, bitmap FROM staged ORDER BY 1, 2, 3"))
        execute("DROP TABLE staged")
        if live:
            docids = (docid for (docid,) in execute("SELECT docid FROM record ORDER BY docid"))
            found = sorted(segment_bitmaps(docids).items())
            self.add_postings((LIVE, "", segment, len(bitmap), bitmap.serialize()) for segment, bitmap in found)

    def _post_common_values(self) -> None:
        """Write posting lists for the common values of near-unique columns."""
        execute = self._connection.execute
        for column, value in execute(
            "SELECT column_id, value FROM staged_unique GROUP BY column_id, value HAVING count(*) >= ?", (COMMON,)
        ).fetchall():
            where = "FROM staged_unique WHERE column_id = ? AND value = ?"
            docids = (docid for (docid,) in execute(f"SELECT docid {where}", (column, value)))  # constant
            for segment, bitmap in segment_bitmaps(docids).items():
                row = (column, value, segment, len(bitmap), bitmap.serialize())
                execute("INSERT INTO staged VALUES (?, ?, ?, ?, ?)", row)
            execute(f"DELETE {where}", (column, value))  # constant


def _docids() -> array[int]:
    return array("I")


def _rows_of(segment: int, opened: Sequence[dict[str | None, array[int]]]) -> Iterator[PostingRow]:
    for column, lists in enumerate(opened):
        for value, docids in lists.items():
            if value is not None:
                yield column, value, segment, len(docids), BitMap(docids).serialize()


def _segment_of(row: PostingRow) -> int:
    return row[2]


def _in_one(_: PostingRow) -> int:
    return 0
