"""Exact-match filters: which records have a value, as bitmaps beside the records.

The record numbers (docids) of each value are kept in chunks of 65,536: a sorted array of 16-bit numbers where they are
few, a bitmap of 8 KiB where they are many. Filters are intersected chunk by chunk, and a page stops as soon as it is
full, so that three unselective filters cost as little as one. In each chunk the rarest value comes first, and what
nothing is left for is not read.

A column with a value of its own in almost every record has no posting lists: they would be one number each. Its values
stand in one ordered table, `single`.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import repeat

from .bitmap_cache import CHUNK, SHIFT, Bitmaps
from .bitmap_cache import DENSE as _DENSE

__all__ = ["LIVE", "ListTerm", "Mask", "Term", "count", "find_term", "matching", "pack"]

MANY = 512
"""From here on a chunk is a bitmap. It is larger than the array, but whether a docid is in it is seen at once."""
LOW = (1 << CHUNK) - 1
LIVE = 0
"""The value number of all docids that a file speaks of: in layers, and in a base of which some rows were dropped."""

_BITS: tuple[tuple[int, ...], ...] = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
_SOME = re.compile(rb"[^\0]+")
_ZEROS = b"0" * (1 << CHUNK)
_ONE = ord("1")
_BY_DIGITS = 2048  # so many docids are set faster by way of binary digits
_SPREAD = 32  # up to so many docids of a bitmap are found one by one: a regular expression would look at each byte
_FEW = 16  # an array this many times as long is searched rather than walked through

Found = list[int] | int
"""The low parts of some docids of one chunk: a sorted list, or a bitmap as a number."""


def pack(lows: array[int]) -> bytes:
    """One chunk as it is stored."""
    if len(lows) < MANY:
        if sys.byteorder == "big":
            lows = lows[:]
            lows.byteswap()
        return lows.tobytes()
    return _bitmap(lows)


def _bitmap(lows: array[int]) -> bytes:
    if len(lows) < _BY_DIGITS:
        bitmap = bytearray(_DENSE)
        for low in lows:
            bitmap[low >> 3] |= 1 << (low & 7)
        return bytes(bitmap)
    digits = bytearray(_ZEROS)
    deque(map(digits.__setitem__, lows, repeat(_ONE)), maxlen=0)  # a loop without Python's steps
    digits.reverse()
    return int(digits, 2).to_bytes(_DENSE, "little")


def unpack(data: bytes) -> Sequence[int]:
    """The low parts of a chunk, ascending."""
    return lows_of(data, dense=len(data) == _DENSE)


def lows_of(data: bytes, *, dense: bool) -> array[int]:
    """The low parts of a chunk that is a bitmap (dense) or an array, ascending."""
    return array("H", _lows(int.from_bytes(data, "little"), 0)) if dense else _unpack(data)


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
        bitmaps: of the same file.
        vid: the value's number.
        size: how many docids it has, counting unused ones.
    """

    def __init__(self, connection: sqlite3.Connection, bitmaps: Bitmaps, vid: int, size: int) -> None:
        self._connection = connection
        self._bitmaps = bitmaps
        self._vid = vid
        self.size = size

    @property
    def last(self) -> int:
        """After the last chunk of the file."""
        return self._bitmaps.chunks

    @property
    def common(self) -> bool:
        """Whether most of its chunks are bitmaps."""
        return self.size >= MANY * self._bitmaps.chunks

    def part(self, chunk: int) -> int | bytes | None:
        """One chunk: a bitmap as a number, an array as it is stored."""
        return self._bitmaps.part(self._vid, chunk)

    def chunks(self, first: int) -> Iterator[tuple[int, bytes]]:
        """The chunks from this one on, ascending."""
        base = self._vid << SHIFT
        for number, data in self._connection.execute(
            "SELECT id, data FROM post WHERE id >= ? AND id < ? ORDER BY id", (base + first, (self._vid + 1) << SHIFT)
        ):
            yield number - base, data

    def shared(self, other: Term, first: int) -> Iterator[tuple[int, bytes, bytes]]:
        """The chunks from this one on that another value has, too; both of its file. Faster than one by one."""
        base = self._vid << SHIFT
        for number, data, more in self._connection.execute(
            "SELECT a.id, a.data, b.data FROM post a CROSS JOIN post b ON b.id = a.id + ?"
            " WHERE a.id >= ? AND a.id < ? ORDER BY a.id",
            ((other._vid - self._vid) << SHIFT, base + first, (self._vid + 1) << SHIFT),
        ):
            yield number - base, data, more

    def chunk(self, chunk: int) -> bytes | None:
        """One chunk."""
        row = self._connection.execute("SELECT data FROM post WHERE id = ?", ((self._vid << SHIFT) + chunk,)).fetchone()
        return None if row is None else row[0]


class ListTerm(Term):
    """A few docids, known already.

    Args:
        connection: of the collection's file.
        bitmaps: of the same file.
        docids: ascending.
    """

    def __init__(self, connection: sqlite3.Connection, bitmaps: Bitmaps, docids: Sequence[int]) -> None:
        super().__init__(connection, bitmaps, -1, len(docids))
        self._chunks: dict[int, array[int]] = {}
        for docid in docids:
            self._chunks.setdefault(docid >> CHUNK, array("H")).append(docid & LOW)

    def chunks(self, first: int) -> Iterator[tuple[int, bytes]]:
        """The chunks from this one on, ascending."""
        for chunk, lows in self._chunks.items():
            if chunk >= first:
                yield chunk, pack(lows)

    def shared(self, other: Term, first: int) -> Iterator[tuple[int, bytes, bytes]]:
        """The chunks from this one on that another value has, too."""
        for chunk, data in self.chunks(first):
            more = other.chunk(chunk)
            if more is not None:
                yield chunk, data, more

    def chunk(self, chunk: int) -> bytes | None:
        """One chunk."""
        lows = self._chunks.get(chunk)
        return None if lows is None else pack(lows)

    def part(self, chunk: int) -> int | bytes | None:
        """One chunk."""
        data = self.chunk(chunk)
        return data if data is None or len(data) < _DENSE else int.from_bytes(data, "little")


def find_term(connection: sqlite3.Connection, bitmaps: Bitmaps, attr: int, value: str) -> Term | None:
    """The docids whose filterable column `attr` has this value; `None` when there are none."""
    row = connection.execute("SELECT vid, n FROM value WHERE attr = ? AND val = ?", (attr, value)).fetchone()
    if row is not None:
        return Term(connection, bitmaps, row[0], row[1])
    found = connection.execute("SELECT docid FROM single WHERE attr = ? AND val = ?", (attr, value)).fetchall()
    return ListTerm(connection, bitmaps, [docid for (docid,) in found]) if found else None


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


def _matches(terms: Sequence[Term], first: int, mask: Mask | None) -> Iterator[tuple[int, Found]]:
    """Of each chunk, the docids that all terms have."""
    rarest, *others = sorted(terms, key=lambda term: term.size)
    if others and rarest.common:
        yield from _common(rarest, others, first, mask)
        return
    chunks: Iterator[tuple[int, *tuple[bytes, ...]]] = rarest.chunks(first)
    # A list that is known already is not in the file.
    if others and not isinstance(others[0], ListTerm):
        chunks = rarest.shared(others.pop(0), first)
    for chunk, *parts in chunks:
        parts.sort(key=len)
        found = _only(parts)
        for term in others:
            if not found:
                break
            part = term.chunk(chunk)
            found = 0 if part is None else _narrowed(found, part)
        if found and mask is not None and (hidden := mask.chunk(chunk)) is not None:
            found = _without(found, hidden)
        if found:
            yield chunk, found


def _common(rarest: Term, others: Sequence[Term], first: int, mask: Mask | None) -> Iterator[tuple[int, Found]]:
    """The same of values that are common: their bitmaps are at hand."""
    for chunk in range(first, rarest.last):
        part = rarest.part(chunk)
        found: Found = 0 if part is None else list(_unpack(part)) if isinstance(part, bytes) else part
        for term in others:
            if not found:
                break
            part = term.part(chunk)
            if isinstance(part, int) and isinstance(found, int):
                found &= part
            elif part is None:
                found = 0
            else:
                found = _narrowed(found, part if isinstance(part, bytes) else part.to_bytes(_DENSE, "little"))
        if found and mask is not None and (hidden := mask.chunk(chunk)) is not None:
            found = _without(found, hidden)
        if found:
            yield chunk, found


def _only(parts: Sequence[bytes]) -> Found:
    """What all of these have; the shortest comes first."""
    found: Found = int.from_bytes(parts[0], "little") if len(parts[0]) == _DENSE else list(_unpack(parts[0]))
    for part in parts[1:]:
        found = _narrowed(found, part)
    return found


def _narrowed(found: Found, part: bytes) -> Found:
    """What this chunk of another value has, too."""
    if isinstance(found, int):
        if len(part) == _DENSE:
            both = found & int.from_bytes(part, "little")
            # A few are looked up one by one from here on: reading a bitmap as a number costs as much as dozens.
            return both if both.bit_count() > _SPREAD else list(_lows(both, 0))
        return _inside(_unpack(part), found.to_bytes(_DENSE, "little"))
    if len(part) == _DENSE:
        return _inside(found, part)
    other = _unpack(part)
    if len(found) * _FEW > len(other):
        return sorted(set(found).intersection(other))
    return [low for low in found if (at := bisect_left(other, low)) < len(other) and other[at] == low]


def _inside(lows: Sequence[int], bitmap: bytes) -> list[int]:
    return [low for low in lows if bitmap[low >> 3] >> (low & 7) & 1]


def _without(found: Found, hidden: bytes) -> Found:
    if isinstance(found, int):
        return found & ~int.from_bytes(hidden, "little")
    return [low for low in found if not hidden[low >> 3] >> (low & 7) & 1]


def _lows(found: Found, start: int) -> Iterator[int]:
    """The low parts from this one on."""
    if not isinstance(found, int):
        yield from found[bisect_left(found, start) :]
        return
    # What lies before the start must not be walked through bit by bit.
    found = found >> start << start
    if found.bit_count() <= _SPREAD:
        few: list[int] = []
        while found:
            few.append(found.bit_length() - 1)
            found ^= 1 << few[-1]
        yield from reversed(few)
        return
    for run in _SOME.finditer(found.to_bytes(_DENSE, "little"), start >> 3):
        for place, byte in enumerate(run.group(), run.start()):
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


def _size(found: Found) -> int:
    return found.bit_count() if isinstance(found, int) else len(found)


def _hidden(part: bytes | None, hidden: bytes | None) -> int:
    return 0 if part is None or hidden is None else _size(_only(sorted([part, hidden], key=len)))
