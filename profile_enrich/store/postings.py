"""Exact-match filters: which records have a value, as bitmaps beside the records.

The record numbers (docids) of each value are kept in chunks of 65,536: a sorted array of 16-bit numbers where they are
few, a bitmap of 8 KiB where they are many. Filters are intersected chunk by chunk, and a page stops as soon as it is
full, so that three unselective filters cost as little as one.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from collections.abc import Iterator, Sequence

__all__ = ["PostingsBuilder", "Term", "count", "make_term", "select"]

CHUNK = 16
"""A chunk has 2**16 docids."""
_DENSE = 8192
_MANY = _DENSE // 2  # from here on the array is not smaller than the bitmap
_LOW = (1 << CHUNK) - 1
_SHIFT = 22  # a posting's row number is value number * 2**22 + chunk: 2**38 docids
LIVE = 0
"""The value number of the bitmap of all docids; it is there when some docids are not used."""

_SCHEMA = (
    "CREATE TABLE value (attr INTEGER NOT NULL, val TEXT NOT NULL, vid INTEGER NOT NULL, n INTEGER NOT NULL,"
    " PRIMARY KEY (attr, val)) WITHOUT ROWID",
    "CREATE TABLE post (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TEMP TABLE stage (attr INTEGER, val TEXT, chunk INTEGER, n INTEGER, data BLOB)",
)

_BITS: tuple[tuple[int, ...], ...] = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))


def _pack(lows: array[int]) -> bytes:
    if len(lows) < _MANY:
        if sys.byteorder == "big":
            lows.byteswap()
        return lows.tobytes()
    bitmap = bytearray(_DENSE)
    for low in lows:
        bitmap[low >> 3] |= 1 << (low & 7)
    return bytes(bitmap)


def _unpack(data: bytes) -> array[int]:
    lows = array("H")
    lows.frombytes(data)
    if sys.byteorder == "big":
        lows.byteswap()
    return lows


class PostingsBuilder:
    """Collects the values of records in the order of their docids.

    Args:
        connection: of the file that is being built.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        for statement in _SCHEMA:  # not executescript, which would commit
            connection.execute(statement)
        self._chunk = 0
        self._open: dict[tuple[int, str], array[int]] = {}

    def add(self, docid: int, values: Sequence[str | None]) -> None:
        """The values of one record, in the order of the filterable columns; docids must ascend."""
        chunk, low = docid >> CHUNK, docid & _LOW
        if chunk != self._chunk:
            self._flush()
            self._chunk = chunk
        opened = self._open
        for attr, value in enumerate(values):
            if value is not None:
                lows = opened.get((attr, value))
                if lows is None:
                    opened[attr, value] = array("H", (low,))
                else:
                    lows.append(low)

    def _flush(self) -> None:
        self._connection.executemany(
            "INSERT INTO stage VALUES (?, ?, ?, ?, ?)",
            ((attr, val, self._chunk, len(lows), _pack(lows)) for (attr, val), lows in self._open.items()),
        )
        self._open = {}

    def finish(self, *, holes: bool) -> None:
        """Writes the posting lists.

        Args:
            holes: whether docids were added whose records are gone again; which are there is then written down too.
        """
        self._flush()
        execute = self._connection.execute
        execute(
            "INSERT INTO value SELECT attr, val, row_number() OVER (ORDER BY attr, val), sum(n) FROM stage"
            " GROUP BY attr, val"
        )
        execute(
            f"INSERT INTO post SELECT (v.vid << {_SHIFT}) + s.chunk, s.data FROM stage s"  # noqa: S608  # a constant
            " JOIN value v USING (attr, val) ORDER BY 1"
        )
        execute("DROP TABLE stage")
        if holes:
            self._write_live()

    def _write_live(self) -> None:
        lows, chunk = array("H"), 0
        for (docid,) in self._connection.execute("SELECT docid FROM record ORDER BY docid"):
            if docid >> CHUNK != chunk:
                self._write_chunk(chunk, lows)
                lows, chunk = array("H"), docid >> CHUNK
            lows.append(docid & _LOW)
        self._write_chunk(chunk, lows)

    def _write_chunk(self, chunk: int, lows: array[int]) -> None:
        if lows:
            self._connection.execute("INSERT INTO post VALUES (?, ?)", ((LIVE << _SHIFT) + chunk, _pack(lows)))


class Term:
    """The docids of one value.

    Args:
        connection: of the collection's file.
        vid: the value's number.
        size: how many docids it has, counting unused ones.
    """

    def __init__(self, connection: sqlite3.Connection, vid: int, size: int) -> None:
        self._connection = connection
        self._vid = vid
        self.size = size

    def chunks(self, first: int) -> Iterator[tuple[int, bytes]]:
        """The chunks from this one on, ascending."""
        base = self._vid << _SHIFT
        for number, data in self._connection.execute(
            "SELECT id, data FROM post WHERE id >= ? AND id < ? ORDER BY id", (base + first, (self._vid + 1) << _SHIFT)
        ):
            yield number - base, data

    def chunk(self, chunk: int) -> bytes | None:
        """One chunk."""
        row = self._connection.execute(
            "SELECT data FROM post WHERE id = ?", ((self._vid << _SHIFT) + chunk,)
        ).fetchone()
        return None if row is None else row[0]


class SingleTerm(Term):
    """A single docid: a filter on the key column."""

    def __init__(self, connection: sqlite3.Connection, docid: int) -> None:
        super().__init__(connection, -1, 1)
        self._docid = docid

    def chunks(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Its only chunk."""
        if self._docid >> CHUNK >= first:
            yield self._docid >> CHUNK, _pack(array("H", (self._docid & _LOW,)))

    def chunk(self, chunk: int) -> bytes | None:
        """Its only chunk, or `None`."""
        return _pack(array("H", (self._docid & _LOW,))) if self._docid >> CHUNK == chunk else None


def make_term(connection: sqlite3.Connection, attr: int, value: str) -> Term | None:
    """The docids whose filterable column `attr` has this value; `None` when there are none."""
    row = connection.execute("SELECT vid, n FROM value WHERE attr = ? AND val = ?", (attr, value)).fetchone()
    return None if row is None else Term(connection, row[0], row[1])


def _matches(terms: Sequence[Term], first: int) -> Iterator[tuple[int, list[int] | bytes]]:
    """Of each chunk, the low parts of the docids that all terms have: a sorted list, or a bitmap."""
    rarest, *others = sorted(terms, key=lambda term: term.size)
    for chunk, data in rarest.chunks(first):
        parts = [data]
        for term in others:
            more = term.chunk(chunk)
            if more is None:
                break
            parts.append(more)
        else:
            yield chunk, _intersect(parts)


def _intersect(parts: list[bytes]) -> list[int] | bytes:
    parts.sort(key=len)
    if len(parts[0]) == _DENSE:
        bits = int.from_bytes(parts[0], "little")
        for part in parts[1:]:
            bits &= int.from_bytes(part, "little")
        return bits.to_bytes(_DENSE, "little")
    lows = list(_unpack(parts[0]))
    for part in parts[1:]:
        if len(part) == _DENSE:
            lows = [low for low in lows if part[low >> 3] >> (low & 7) & 1]
        else:
            known = set(_unpack(part))
            lows = [low for low in lows if low in known]
    return lows


def _lows(found: list[int] | bytes) -> Iterator[int]:
    if isinstance(found, list):
        yield from found
        return
    for number, word in enumerate(memoryview(found).cast("Q")):
        if word:
            start = number << 3
            for offset, byte in enumerate(found[start : start + 8]):
                for bit in _BITS[byte]:
                    yield ((start + offset) << 3) + bit


def select(terms: Sequence[Term], *, after: int, limit: int) -> list[int]:
    """The first docids greater than `after` that all terms have, at most `limit`, ascending."""
    docids: list[int] = []
    for chunk, found in _matches(terms, (after + 1) >> CHUNK):
        base = chunk << CHUNK
        for low in _lows(found):
            if base + low > after:
                docids.append(base + low)
                if len(docids) == limit:
                    return docids
    return docids


def count(terms: Sequence[Term]) -> int:
    """How many docids all terms have."""
    if len(terms) == 1:
        return terms[0].size
    return sum(
        len(found) if isinstance(found, list) else int.from_bytes(found, "little").bit_count()
        for _, found in _matches(terms, 0)
    )
