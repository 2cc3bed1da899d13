"""Posting lists: the records of each value of a filterable column.

The docids of a value are kept in segments of 262,144, each a compressed bitmap. A column with a different value in
almost every record has no bitmaps; its values are in the sorted table `unique_value`.
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
"""The column number of the list of all docids in a file, for layers and for bases with gaps."""

_WHOLE = 1 << 16
"""Values with at most this many records are read with one statement."""

_OVERHEAD = 300
"""The approximate overhead of a decoded bitmap or posting list, in bytes."""

CACHE_BYTES = 256 << 20
"""The default size of the cache of decoded bitmaps, in bytes."""


class PostingList:
    """The records that have one value.

    Args:
        column: the number of the column.
        value: the value.
        records: the number of records.
        value_id: its number in the file; `None` if all segments are given.
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
    """LRU cache of the decoded posting lists of a store, limited by size.

    Threads share it; decoded bitmaps are never modified.

    Args:
        max_bytes: the limit in bytes, counting serialized bitmaps and a fixed overhead for each.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[tuple[str, int, str], tuple[PostingList, list[int]]] = {}
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """The bytes in use."""
        with self._lock:
            return self._bytes

    def get(self, file: str, column: int, value: str) -> PostingList | None:
        """Return a posting list and mark it as recently used."""
        key = (file, column, value)
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return None
            self._entries[key] = entry
            return entry[0]

    def add(self, file: str, posting: PostingList, size: int) -> None:
        """Add a posting list, or add bytes to an existing one."""
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
        """Remove the posting lists of all other files."""
        with self._lock:
            for key in [key for key in self._entries if key[0] not in kept]:
                self._discard(key)

    def _discard(self, key: tuple[str, int, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1][0]


class PostingReader:
    """Read the posting lists of one data file, in one thread.

    Args:
        connection: the connection to the file, which never changes.
        file: its name, the same for all threads.
        cache: the cache of decoded bitmaps.
    """

    def __init__(self, connection: sqlite3.Connection, file: str, cache: PostingCache) -> None:
        self._execute = connection.execute
        self._file = file
        self._cache = cache
        self._last: int | None = None

    def find(self, column: int, value: str) -> PostingList | None:
        """Return the posting list of a value; `None` if no record has it."""
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
        """Return all docids of the file; `None` if all docids in its posting lists exist."""
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
        """Return the segments from this one on that may have docids, ascending."""
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
        except (ValueError, IndexError):  # the checksum matches, so it was damaged before it was written
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
    """Return a posting list of given docids."""
    return PostingList(column, value, len(docids), None, dict(segment_bitmaps(docids)))


def iterate(segment: int, found: BitMap, first: int) -> Iterator[int]:
    """Yield the docids of a segment that are not below `first`, ascending."""
    base = segment << SEGMENT_BITS
    offsets = iter(found) if first <= base else found.iter_equal_or_larger(first - base)
    for offset in offsets:
        yield base + offset
