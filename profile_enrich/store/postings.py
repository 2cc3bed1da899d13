"""Exact-match filters: which records have a value, as bitmaps beside the records.

The record numbers (docids) of each value are kept in chunks of 65,536: a sorted array of 16-bit numbers where they are
few, a bitmap of 8 KiB where they are many. Filters are intersected chunk by chunk, and a page stops as soon as it is
full, so that three unselective filters cost as little as one.

A column with a value of its own in almost every record has no posting lists: they would be one number each. Its values
stand in one ordered table, `single`.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence

__all__ = ["LIVE", "ListTerm", "Mask", "Term", "count", "find_term", "matching", "pack"]

CHUNK = 16
"""A chunk has 2**16 docids."""
_DENSE = 8192
_MANY = _DENSE // 2  # from here on the array is not smaller than the bitmap
LOW = (1 << CHUNK) - 1
SHIFT = 22  # a posting's row number is value number * 2**22 + chunk: 2**38 docids
LIVE = 0
"""The value number of all docids that a file speaks of: in layers, and in a base of which some rows were dropped."""

_BITS: tuple[tuple[int, ...], ...] = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))


def pack(lows: array[int]) -> bytes:
    """One chunk as it is stored: an array or a bitmap, whichever is smaller."""
    if len(lows) < _MANY:
        if sys.byteorder == "big":
            lows = lows[:]
            lows.byteswap()
        return lows.tobytes()
    return _bitmap(lows)


def _bitmap(lows: array[int]) -> bytes:
    bitmap = bytearray(_DENSE)
    for low in lows:
        bitmap[low >> 3] |= 1 << (low & 7)
    return bytes(bitmap)


def unpack(data: bytes) -> Sequence[int]:
    """The low parts of a chunk, ascending."""
    return list(_lows(data, 0)) if len(data) == _DENSE else _unpack(data)


def _unpack(data: bytes) -> array[int]:
    lows = array("H")
    lows.frombytes(data)
    if sys.byteorder == "big":
        lows.byteswap()
    return lows


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
        base = self._vid << SHIFT
        for number, data in self._connection.execute(
            "SELECT id, data FROM post WHERE id >= ? AND id < ? ORDER BY id", (base + first, (self._vid + 1) << SHIFT)
        ):
            yield number - base, data

    def chunk(self, chunk: int) -> bytes | None:
        """One chunk."""
        row = self._connection.execute("SELECT data FROM post WHERE id = ?", ((self._vid << SHIFT) + chunk,)).fetchone()
        return None if row is None else row[0]


class ListTerm(Term):
    """A few docids, known already.

    Args:
        connection: of the collection's file.
        docids: ascending.
    """

    def __init__(self, connection: sqlite3.Connection, docids: Sequence[int]) -> None:
        super().__init__(connection, -1, len(docids))
        self._chunks: dict[int, array[int]] = {}
        for docid in docids:
            self._chunks.setdefault(docid >> CHUNK, array("H")).append(docid & LOW)

    def chunks(self, first: int) -> Iterator[tuple[int, bytes]]:
        """The chunks from this one on, ascending."""
        for chunk, lows in self._chunks.items():
            if chunk >= first:
                yield chunk, pack(lows)

    def chunk(self, chunk: int) -> bytes | None:
        """One chunk."""
        lows = self._chunks.get(chunk)
        return None if lows is None else pack(lows)


def find_term(connection: sqlite3.Connection, attr: int, value: str) -> Term | None:
    """The docids whose filterable column `attr` has this value; `None` when there are none."""
    row = connection.execute("SELECT vid, n FROM value WHERE attr = ? AND val = ?", (attr, value)).fetchone()
    if row is not None:
        return Term(connection, row[0], row[1])
    found = connection.execute("SELECT docid FROM single WHERE attr = ? AND val = ?", (attr, value)).fetchall()
    return ListTerm(connection, [docid for (docid,) in found]) if found else None


class Mask:
    """The docids that newer layers speak of.

    Args:
        newer: what they hold.
    """

    def __init__(self, newer: Sequence[Term]) -> None:
        self._newer = newer
        self._known: dict[int, bytes | None] = {}
        self._numbers: list[int] | None = None

    def chunk(self, chunk: int) -> bytes | None:
        """One chunk as a bitmap; `None` when nothing in it is hidden."""
        if chunk not in self._known:
            parts = [part for term in self._newer if (part := term.chunk(chunk)) is not None]
            bits = 0
            for part in parts:
                bits |= int.from_bytes(part if len(part) == _DENSE else _bitmap(_unpack(part)), "little")
            self._known[chunk] = bits.to_bytes(_DENSE, "little") if bits else None
        return self._known[chunk]

    def chunks(self) -> list[int]:
        """The chunks in which something is hidden."""
        if self._numbers is None:
            self._numbers = sorted({chunk for term in self._newer for chunk, _ in term.chunks(0)})
        return self._numbers


def _matches(terms: Sequence[Term], first: int, mask: Mask | None) -> Iterator[tuple[int, list[int] | bytes]]:
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
            yield chunk, _intersect(parts, None if mask is None else mask.chunk(chunk))


def _intersect(parts: list[bytes], hidden: bytes | None) -> list[int] | bytes:
    parts.sort(key=len)
    if len(parts[0]) == _DENSE:
        bits = int.from_bytes(parts[0], "little")
        for part in parts[1:]:
            bits &= int.from_bytes(part, "little")
        if hidden is not None:
            bits &= ~int.from_bytes(hidden, "little")
        return bits.to_bytes(_DENSE, "little")
    lows = list(_unpack(parts[0]))
    for part in parts[1:]:
        if len(part) == _DENSE:
            lows = [low for low in lows if part[low >> 3] >> (low & 7) & 1]
        else:
            known = set(_unpack(part))
            lows = [low for low in lows if low in known]
    if hidden is not None:
        lows = [low for low in lows if not hidden[low >> 3] >> (low & 7) & 1]
    return lows


def _lows(found: list[int] | bytes, start: int) -> Iterator[int]:
    """The low parts from this one on."""
    if isinstance(found, list):
        yield from found[bisect_left(found, start) :]
        return
    word = start >> 6
    # The first word by itself: what lies before the start must not be walked through bit by bit.
    for low in _bits(found, word):
        if low >= start:
            yield low
    for number, bits in enumerate(memoryview(found).cast("Q")[word + 1 :], word + 1):
        if bits:
            yield from _bits(found, number)


def _bits(found: bytes, word: int) -> Iterator[int]:
    for place, byte in enumerate(found[word << 3 : (word + 1) << 3], word << 3):
        for bit in _BITS[byte]:
            yield (place << 3) + bit


def matching(terms: Sequence[Term], after: int, mask: Mask | None = None) -> Iterator[int]:
    """The docids greater than `after` that all terms have and that are not hidden, ascending."""
    first, start = (after + 1) >> CHUNK, (after + 1) & LOW
    for chunk, found in _matches(terms, first, mask):
        base = chunk << CHUNK
        for low in _lows(found, start if chunk == first else 0):
            yield base + low


def count(terms: Sequence[Term], mask: Mask | None = None) -> int:
    """How many docids all terms have that are not hidden."""
    if len(terms) == 1 and mask is None:
        return terms[0].size
    if len(terms) == 1 and mask is not None:  # only the chunks in which something is hidden need a look
        return terms[0].size - sum(_hidden(terms[0].chunk(chunk), mask.chunk(chunk)) for chunk in mask.chunks())
    return sum(_size(found) for _, found in _matches(terms, 0, mask))


def _size(found: list[int] | bytes) -> int:
    return len(found) if isinstance(found, list) else int.from_bytes(found, "little").bit_count()


def _hidden(part: bytes | None, hidden: bytes | None) -> int:
    return 0 if part is None or hidden is None else _size(_intersect([part, hidden], None))
