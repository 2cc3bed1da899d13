"""Writes posting lists while records go by."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .postings import CHUNK, LIVE, LOW, SHIFT, pack, unpack

__all__ = ["PostingsBuilder"]

_SCHEMA = (
    "CREATE TABLE value (attr INTEGER NOT NULL, val TEXT NOT NULL, vid INTEGER NOT NULL, n INTEGER NOT NULL,"
    " PRIMARY KEY (attr, val)) WITHOUT ROWID",
    "CREATE TABLE post (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE single (attr INTEGER NOT NULL, val TEXT NOT NULL, docid INTEGER NOT NULL,"
    " PRIMARY KEY (attr, val, docid)) WITHOUT ROWID",
    "CREATE TEMP TABLE stage (attr INTEGER, val TEXT, chunk INTEGER, n INTEGER, data BLOB)",
    "CREATE TEMP TABLE lone (attr INTEGER, val TEXT, docid INTEGER)",
)

_HELD = 1 << 17  # rows whose numbers are held before they are written: two chunks' worth
_LOOK = 4096  # rows after which it is decided how a column is kept
_NEAR_UNIQUE = 0.5  # distinct values a row, from which on a column has no posting lists
_COMMON = 256  # a value that occurs this often has a posting list, whatever the column


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
        self._posted = list(range(columns))
        self._single: list[int] = []
        self._lone: list[tuple[int, str, int]] = []
        self._first: list[tuple[int, Sequence[str | None]]] | None = []
        self._chunk = -1
        self._current: dict[tuple[int, str], array[int]] = {}
        self._open: dict[int, dict[tuple[int, str], array[int]]] = {}
        self._held = 0
        self._last = -1
        self._ascending = True
        self._written: set[int] = set()
        self._pieces = False  # a chunk was written in several pieces

    def add(self, docid: int, values: Sequence[str | None]) -> None:
        """The values of one record, in the order of the filterable columns."""
        if self._first is not None:
            self._first.append((docid, values))
            if len(self._first) >= _LOOK:
                self._decide()
            return
        chunk, low = docid >> CHUNK, docid & LOW
        if chunk != self._chunk:
            if self._held >= _HELD:
                self._flush()
            self._chunk = chunk
            self._current = self._open.setdefault(chunk, {})
        opened = self._current
        for attr in self._posted:
            value = values[attr]
            if value is not None:
                lows = opened.get((attr, value))
                if lows is None:
                    opened[attr, value] = array("H", (low,))
                else:
                    lows.append(low)
        for attr in self._single:
            value = values[attr]
            if value is not None:
                self._lone.append((attr, value, docid))
        if docid < self._last:
            self._ascending = False
        self._last = docid
        self._held += 1
        if len(self._lone) >= _LOOK:
            self._write_lone()

    def _decide(self) -> None:
        first, self._first = self._first or [], None
        for attr in range(self._columns):
            values = [row[attr] for _, row in first if row[attr] is not None]
            if len(values) > 1 and len(set(values)) > len(values) * _NEAR_UNIQUE:
                self._single.append(attr)
        self._posted = [attr for attr in self._posted if attr not in self._single]
        for docid, row in first:
            self.add(docid, row)

    def _write_lone(self) -> None:
        self._connection.executemany("INSERT INTO lone VALUES (?, ?, ?)", self._lone)
        self._lone.clear()

    def _flush(self) -> None:
        for chunk, opened in self._open.items():
            self._pieces = self._pieces or chunk in self._written
            self._written.add(chunk)
            self._connection.executemany("INSERT INTO stage VALUES (?, ?, ?, ?, ?)", self._staged(chunk, opened))
        self._open = {}
        self._chunk = -1
        self._held = 0

    def _staged(self, chunk: int, opened: dict[tuple[int, str], array[int]]) -> Iterator[tuple[Any, ...]]:
        for (attr, value), lows in opened.items():
            yield attr, value, chunk, len(lows), pack(lows if self._ascending else array("H", sorted(lows)))

    def finish(self, *, live: bool) -> None:
        """Writes the posting lists.

        Args:
            live: whether to write down which docids the file speaks of, too.
        """
        if self._first is not None:
            self._decide()
        self._flush()
        self._write_lone()
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
            "SELECT attr, val FROM single GROUP BY attr, val HAVING count(*) >= ?", (_COMMON,)
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
