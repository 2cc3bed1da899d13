"""Writes posting lists while records go by."""

from __future__ import annotations

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..bulk_insert import insert_rows
from .bitmap_cache import CHUNK, SHIFT
from .posting_lists import LIVE, LOW, pack, unpack

__all__ = ["COMMON", "FIRST_ROWS", "NEAR_UNIQUE", "PostingsBuilder"]

_SCHEMA = (
    "CREATE TABLE value (attr INTEGER NOT NULL, val TEXT NOT NULL, vid INTEGER NOT NULL, n INTEGER NOT NULL,"
    " PRIMARY KEY (attr, val)) WITHOUT ROWID",
    "CREATE TABLE post (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE single (attr INTEGER NOT NULL, val TEXT NOT NULL, docid INTEGER NOT NULL,"
    " PRIMARY KEY (attr, val, docid)) WITHOUT ROWID",
    "CREATE TEMP TABLE stage (attr INTEGER, val TEXT, chunk INTEGER, n INTEGER, data BLOB)",
    "CREATE TEMP TABLE lone (attr INTEGER, val TEXT, docid INTEGER)",
)

FIRST_ROWS = 4096  # what a column holds in these decides how it is kept
_HELD = 1 << 17  # rows whose numbers are held before they are written: two chunks' worth
NEAR_UNIQUE = 0.5  # distinct values a row, from which on a column has no posting lists
COMMON = 256  # a value that occurs this often has a posting list, whatever the column


_Lists = defaultdict[str | None, list[int]]


def _near_unique(values: Sequence[str | None]) -> bool:
    there = [value for value in values if value is not None]
    return len(there) > 1 and len(set(there)) > len(there) * NEAR_UNIQUE


class PostingsBuilder:
    """Collects the values of records.

    Docids should ascend, or at least seldom leave a chunk: then each posting is written once. How a column is kept is
    decided by what its first rows hold; a value that turns out to be common in a near-unique column is given a posting
    list at the end.

    Args:
        connection: of the file that is being built.
        columns: how many filterable columns there are.
    """

    def __init__(self, connection: sqlite3.Connection, columns: int) -> None:
        self._connection = connection
        for statement in _SCHEMA:  # not executescript, which would commit
            connection.execute(statement)
        self._columns = columns
        self._posted: list[int] | None = None
        self._single: list[int] = []
        self._open: dict[int, list[_Lists]] = {}
        self._held = 0
        self._last = -1
        self._ascending = True
        self._written: set[int] = set()
        self._pieces = False  # a chunk was written in several pieces

    def extend(self, docids: Sequence[int], rows: Sequence[Sequence[str | None]]) -> None:
        """The values of some records, in the order of the filterable columns. The first call should bring many."""
        if not docids or not self._columns:
            return
        if docids[0] < self._last or docids != sorted(docids):
            self._ascending = False
        self._last = docids[-1]
        columns = list(zip(*rows, strict=True))
        if self._posted is None:
            self._single = [attr for attr, values in enumerate(columns) if _near_unique(values)]
            self._posted = [attr for attr in range(self._columns) if attr not in self._single]
        for attr in self._single:
            insert_rows(
                self._connection,
                "lone",
                3,
                ((attr, value, docid) for value, docid in zip(columns[attr], docids, strict=True) if value is not None),
            )
        if self._held >= _HELD:
            self._flush(but=docids[0] >> CHUNK)
        self._held += len(docids)
        if min(docids) >> CHUNK == max(docids) >> CHUNK:
            self._post(docids[0] >> CHUNK, docids, columns)
            return
        places: dict[int, list[int]] = {}
        for place, docid in enumerate(docids):
            places.setdefault(docid >> CHUNK, []).append(place)
        for chunk, some in places.items():
            self._post(chunk, [docids[n] for n in some], [[values[n] for n in some] for values in columns])

    def _post(self, chunk: int, docids: Sequence[int], columns: Sequence[Sequence[str | None]]) -> None:
        opened = self._open.get(chunk)
        if opened is None:
            opened = self._open[chunk] = [defaultdict(list) for _ in range(self._columns)]
        lows = [docid & LOW for docid in docids]
        for attr in self._posted or ():
            lists = opened[attr]
            for value, low in zip(columns[attr], lows, strict=True):
                lists[value].append(low)

    def _flush(self, but: int = -1) -> None:
        """Writes what is held; not of one chunk, to which more will come."""
        kept = self._open.pop(but, None)
        for chunk, opened in self._open.items():
            self._pieces = self._pieces or chunk in self._written
            self._written.add(chunk)
            insert_rows(self._connection, "stage", 5, self._staged(chunk, opened))
        self._open = {} if kept is None else {but: kept}
        self._held = 0

    def _staged(self, chunk: int, opened: list[_Lists]) -> Iterator[tuple[Any, ...]]:
        for attr, lists in enumerate(opened):
            for value, lows in lists.items():
                if value is not None:
                    yield attr, value, chunk, len(lows), pack(array("H", lows if self._ascending else sorted(lows)))

    def add_singles(self, rows: Iterable[tuple[int, str, int]]) -> None:
        """Column, value and docid, of near-unique columns: in this order, and not those of common values."""
        insert_rows(self._connection, "single", 3, rows)

    def add_values(self, rows: Iterable[tuple[int, str, int, int]]) -> None:
        """Column, value, its number and how many docids have it."""
        insert_rows(self._connection, "value", 4, rows)

    def add_postings(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Postings under their row numbers."""
        insert_rows(self._connection, "post", 2, rows)

    def finish(self, *, live: bool) -> None:
        """Writes the posting lists.

        Args:
            live: whether to write down which docids the file speaks of, too.
        """
        self._flush()
        execute = self._connection.execute
        execute("INSERT INTO single SELECT attr, val, docid FROM lone ORDER BY attr, val, docid")
        execute("DROP TABLE lone")
        if self._single:
            self._common()
        if self._pieces:
            self._unite()
        execute(
            "INSERT INTO value SELECT attr, val, row_number() OVER (ORDER BY attr, val), sum(n) FROM stage"
            " GROUP BY attr, val"
        )
        execute(
            f"INSERT INTO post SELECT (v.vid << {SHIFT}) + s.chunk, s.data FROM stage s"  # noqa: S608  # a constant
            " JOIN value v USING (attr, val) ORDER BY 1"
        )
        execute("DROP TABLE stage")
        if live:
            docids = execute("SELECT docid FROM record ORDER BY docid")
            self._connection.executemany(
                "INSERT INTO post VALUES (?, ?)",
                (((LIVE << SHIFT) + chunk, pack(lows)) for chunk, lows in chunked(docid for (docid,) in docids)),
            )

    def _common(self) -> None:
        """Gives the common values of near-unique columns posting lists."""
        execute = self._connection.execute
        for attr, value in execute(
            "SELECT attr, val FROM single GROUP BY attr, val HAVING count(*) >= ?", (COMMON,)
        ).fetchall():
            docids = execute("SELECT docid FROM single WHERE attr = ? AND val = ?", (attr, value)).fetchall()
            self._connection.executemany(
                "INSERT INTO stage VALUES (?, ?, ?, ?, ?)",
                ((attr, value, chunk, len(lows), pack(lows)) for chunk, lows in chunked(docid for (docid,) in docids)),
            )
            execute("DELETE FROM single WHERE attr = ? AND val = ?", (attr, value))

    def _unite(self) -> None:
        """Puts the pieces of each chunk together."""
        self._connection.create_aggregate("unite", 1, _United)  # type: ignore[arg-type]  # typeshed wants final methods
        execute = self._connection.execute
        execute(
            "CREATE TEMP TABLE whole AS SELECT attr, val, chunk, sum(n) AS n, unite(data) AS data FROM stage"
            " GROUP BY attr, val, chunk"
        )
        execute("DROP TABLE stage")
        execute("ALTER TABLE whole RENAME TO stage")


class _United:
    """An aggregate function: the pieces of one chunk of one value as one."""

    def __init__(self) -> None:
        self._lows: list[int] = []

    def step(self, data: bytes) -> None:
        """One piece."""
        self._lows += unpack(data)

    def finalize(self) -> bytes:
        """All of them."""
        return pack(array("H", sorted(self._lows)))


def chunked(docids: Iterable[int]) -> Iterator[tuple[int, array[int]]]:
    """Ascending docids as the low parts of each chunk."""
    lows, chunk = array("H"), -1
    for docid in docids:
        if docid >> CHUNK != chunk:
            if lows:
                yield chunk, lows
            lows, chunk = array("H"), docid >> CHUNK
        lows.append(docid & LOW)
    if lows:
        yield chunk, lows
