"""Posting lists: for each value of a filterable column, the records that have it.

The docids of a value are kept in segments of 262,144, each a compressed bitmap. A column with a different value in
almost every record has no bitmaps, which would hold one docid each: its values are in the ordered table `unique_value`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence

from ..checksum import DamagedData, value_checksum
from .bitmaps import SEGMENT_BITS, BitMap, segment_bitmaps

__all__ = ["CACHE_BYTES", "LIVE", "SHIFT", "PostingCache", "PostingList", "PostingReader", "iterate", "listed"]

SHIFT = 22
"""A posting's row number is `value_id << 22 | segment`: 2**40 docids."""

LIVE = -1
"""The column of the posting list of all docids that a file holds: in a layer, and in a base that lost some rows."""

_WHOLE = 1 << 16
"""A value with at most so many records is read with one statement."""

_OVERHEAD = 300
"""Bytes that a decoded bitmap or a posting list takes beside its content, about."""

CACHE_BYTES = 256 << 20
"""Bytes of decoded bitmaps that a store keeps in memory by default."""


class PostingList:
    """The records that have one value.

    Args:
        column: the number of the column.
        value: the value.
        records: how many records.
        value_id: its number in the file; `None` when all segments are given.
        segments: the bitmaps that are known; `None` for a segment without a record.
    """

    __slots__ = ("column", "complete", "records", "segments", "value", "value_id")

    def __init__(
        self,
        column: int,
        value: str,
        records: int,
        value_id: int | None = None,
        segments: dict[int, BitMap | None] | None = None,
    ) -> None:
        self.column = column
        self.value = value
        self.records = records
        self.value_id = value_id
        self.segments: dict[int, BitMap | None] = segments or {}
        self.complete = value_id is None


class PostingCache:
    """Decoded posting lists of all files of a store, bounded by bytes; the least recently used are evicted first.

    Threads share it: bitmaps that were decoded are only read.

    Args:
        max_bytes: the bound, in bytes of serialized bitmaps and a fixed overhead for each.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[tuple[str, int, str], tuple[PostingList, list[int]]] = {}
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """How many bytes are in use."""
        with self._lock:
            return self._bytes

    def get(self, file: str, column: int, value: str) -> PostingList | None:
        """Return a posting list, and make it the most recently used."""
        key = (file, column, value)
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return None
            self._entries[key] = entry
            return entry[0]

    def add(self, file: str, posting: PostingList, size: int) -> None:
        """Add a posting list, or so many bytes to the one that is there."""
        key = (file, posting.column, posting.value)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry[0] is not posting:
                self._discard(key)
                entry = self._entries[key] = (posting, [0])
                size += len(posting.value)
            entry[1][0] += size
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._discard(next(iter(self._entries)))

    def forget(self, kept: set[str]) -> None:
        """Drop the posting lists of all files but these."""
        with self._lock:
            for key in [key for key in self._entries if key[0] not in kept]:
                self._discard(key)

    def _discard(self, key: tuple[str, int, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1][0]


class PostingReader:
    """Reads the posting lists of one data file, for one thread.

    Args:
        connection: of the file, which never changes.
        file: its name, the same for all threads.
        cache: takes the decoded bitmaps.
    """

    def __init__(self, connection: sqlite3.Connection, file: str, cache: PostingCache) -> None:
        self._execute = connection.execute
        self._file = file
        self._cache = cache
        self._last: int | None = None

    def find(self, column: int, value: str) -> PostingList | None:
        """Return the posting list of a value; `None` when no record has it."""
        posting = self._cache.get(self._file, column, value)
        if posting is not None:
            return posting
        row = self._execute(
            "SELECT value_id, records, checksum FROM value WHERE column_id = ? AND value = ?", (column, value)
        ).fetchone()
        if row is None:
            return self._find_unique(column, value)
        value_id, records, checksum = row
        _check(checksum == value_checksum(column, value, records))
        posting = PostingList(column, value, records, value_id)
        self._cache.add(self._file, posting, _OVERHEAD)
        return posting

    def _find_unique(self, column: int, value: str) -> PostingList | None:
        found = self._execute(
            "SELECT docid, checksum FROM unique_value WHERE column_id = ? AND value = ?", (column, value)
        ).fetchall()
        for docid, checksum in found:
            _check(checksum == value_checksum(column, value, docid))
        return listed(column, value, [docid for docid, _ in found]) if found else None

    def live(self) -> PostingList | None:
        """Return all docids that the file holds; `None` when every docid in its posting lists is one of them."""
        return self.find(LIVE, "")

    def bitmap(self, posting: PostingList, segment: int) -> BitMap | None:
        """Return the docids of one segment, as offsets in it."""
        segments = posting.segments
        if segment in segments:
            return segments[segment]
        if posting.complete:
            return None
        number = ((posting.value_id or 0) << SHIFT) + segment
        row = self._execute("SELECT bitmap, checksum FROM posting WHERE posting_id = ?", (number,)).fetchone()
        found = None if row is None else self._decode(posting, segment, *row)
        segments[segment] = found
        self._cache.add(self._file, posting, _OVERHEAD + (len(row[0]) if row else 0))
        return found

    def segments(self, posting: PostingList, first: int = 0) -> Sequence[int]:
        """Return the segments from this one on that may hold docids, ascending."""
        if not posting.complete and posting.records > _WHOLE:
            return range(first, self._last_segment() + 1)
        if not posting.complete:
            self._load(posting)
        return sorted(number for number, found in posting.segments.items() if found is not None and number >= first)

    def _load(self, posting: PostingList) -> None:
        base = (posting.value_id or 0) << SHIFT
        rows = self._execute(
            "SELECT posting_id, bitmap, checksum FROM posting WHERE posting_id >= ? AND posting_id < ?",
            (base, base + (1 << SHIFT)),
        ).fetchall()
        found = {number - base: self._decode(posting, number - base, *row) for number, *row in rows}
        _check(sum(map(len, found.values())) == posting.records)
        posting.segments = dict(found)
        posting.complete = True
        self._cache.add(self._file, posting, sum(_OVERHEAD + len(data) for _, data, _ in rows))

    def _decode(self, posting: PostingList, segment: int, data: bytes, checksum: int) -> BitMap:
        _check(checksum == value_checksum(posting.column, posting.value, segment, data))
        try:
            return BitMap.deserialize(data)
        except (ValueError, IndexError):  # its checksum matches: it was damaged before it was written
            raise DamagedData from None

    def _last_segment(self) -> int:
        if self._last is None:
            (last,) = self._execute("SELECT max(docid) FROM record").fetchone()
            self._last = int(last or 0) >> SEGMENT_BITS
        return self._last


def _check(valid: bool) -> None:
    if not valid:
        raise DamagedData


def listed(column: int, value: str, docids: Sequence[int]) -> PostingList:
    """Return the posting list of docids that are known already."""
    return PostingList(column, value, len(docids), None, dict(segment_bitmaps(docids)))


def iterate(segment: int, found: BitMap, first: int) -> Iterator[int]:
    """Yield the docids of a segment that are not below `first`, ascending."""
    base = segment << SEGMENT_BITS
    offsets = iter(found) if first <= base else found.iter_equal_or_larger(first - base)
    for offset in offsets:
        yield base + offset
