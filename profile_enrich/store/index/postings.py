"""Posting lists: the records of each value of a filterable column.

The docids of a value with few records are one compressed bitmap; those of a common value are kept in segments of
262,144 docids. A column with a different value in almost every record has no bitmaps; its values are in the sorted
table `unique_value`.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence

from ..checksum import DamagedData, value_checksum
from .bitmaps import SEGMENT_BITS, WHOLE, BitMap

__all__ = ["CACHE_BYTES", "LIVE", "SHIFT", "PostingCache", "PostingList", "PostingReader", "listed", "segments_of"]

SHIFT = 22
"""A posting's row number is `value_id << 22 | segment`; a value with one bitmap has it as segment 0."""

LIVE = -1
"""The column number of the list of all docids in a file, for layers and for bases with gaps."""

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
        value_id: its number in the file.
        whole: all docids, if they are known.
    """

    __slots__ = ("column", "records", "segments", "used", "value", "value_id", "whole")

    def __init__(self, column: int, value: str, records: int, value_id: int = 0, whole: BitMap | None = None) -> None:
        self.column = column
        self.value = value
        self.records = records
        self.value_id = value_id
        self.whole = whole
        self.used = False
        """Whether it was used since it was last considered for removal from the cache."""
        self.segments: dict[int, BitMap | None] = {}
        """The segments that were read; `None` for one without a record."""


class PostingCache:
    """Second-chance cache of the decoded posting lists of a store, limited by size.

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
        """Return a posting list and mark it as used."""
        entry = self._entries.get((file, column, value))  # without the lock, because every filter of a page comes here
        if entry is None:
            return None
        entry[0].used = True
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
                key = next(iter(self._entries))
                if (posting := self._entries[key][0]).used:
                    posting.used = False
                    self._entries[key] = self._entries.pop(key)
                else:
                    self._discard(key)

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
        self._has_live: bool | None = None
        self._unique: set[int] = set()  # the columns in which a value was found in `unique_value`

    def find(self, column: int, value: str) -> PostingList | None:
        """Return the posting list of a value; `None` if no record has it."""
        posting = self._cache.get(self._file, column, value)
        if posting is not None:
            return posting
        if column in self._unique and (posting := self._find_unique(column, value)) is not None:
            return posting
        row = self._execute(
            "SELECT value_id, records, checksum FROM value WHERE column_id = ? AND value = ?", (column, value)
        ).fetchone()
        if row is None:
            return None if column in self._unique else self._find_unique(column, value)
        value_id, records, checksum = row
        _check(checksum == value_checksum(column, value, records))
        posting = PostingList(column, value, records, value_id)
        self._cache.add(self._file, posting, _OVERHEAD)
        return posting

    def _find_unique(self, column: int, value: str) -> PostingList | None:
        found = self._execute(
            "SELECT docid, checksum FROM unique_value WHERE column_id = ? AND value = ?", (column, value)
        ).fetchall()
        if not found:
            return None
        self._unique.add(column)
        for docid, checksum in found:
            _check(checksum == value_checksum(column, value, docid))
        posting = listed(column, value, [docid for docid, _ in found])
        if len(found) > 1:  # a value of one record is as fast to read, and would displace others
            self._cache.add(self._file, posting, _OVERHEAD + 4 * len(found))
        return posting

    def live(self) -> PostingList | None:
        """Return all docids of the file; `None` if all docids in its posting lists exist."""
        if self._has_live is None:
            self._has_live = self.find(LIVE, "") is not None
        return self.find(LIVE, "") if self._has_live else None

    def whole(self, posting: PostingList) -> BitMap | None:
        """Return all docids of a value with few records; `None` for a common value."""
        if posting.whole is None and posting.records <= WHOLE:
            found, size = self._read(posting, 0)
            _check(found is not None and len(found) == posting.records)
            posting.whole = found
            self._cache.add(self._file, posting, size)
        return posting.whole

    def segment(self, posting: PostingList, segment: int) -> BitMap | None:
        """Return the docids in one segment; `None` if a common value has none there."""
        if (whole := self.whole(posting)) is not None:
            return whole & BitMap(range(segment << SEGMENT_BITS, (segment + 1) << SEGMENT_BITS))
        if segment not in posting.segments:
            posting.segments[segment], size = self._read(posting, segment)
            self._cache.add(self._file, posting, size)
        return posting.segments[segment]

    def segments(self, posting: PostingList, first: int = 0) -> Iterable[int]:
        """Return the segments from this one on that may have docids, ascending."""
        if (whole := self.whole(posting)) is not None:
            return segments_of(whole, first)
        if self._last is None:
            (last,) = self._execute("SELECT max(docid) FROM record").fetchone()
            self._last = int(last or 0) >> SEGMENT_BITS
        return range(first, self._last + 1)

    def _read(self, posting: PostingList, segment: int) -> tuple[BitMap | None, int]:
        number = (posting.value_id << SHIFT) + segment
        row = self._execute("SELECT bitmap, checksum FROM posting WHERE posting_id = ?", (number,)).fetchone()
        if row is None:
            return None, _OVERHEAD
        return self._decode(posting, segment, *row), _OVERHEAD + len(row[0])

    def _decode(self, posting: PostingList, segment: int, data: bytes, checksum: int) -> BitMap:
        _check(checksum == value_checksum(posting.column, posting.value, segment, data))
        try:
            return BitMap.deserialize(data)
        except (ValueError, IndexError):  # the checksum matches, so it was damaged before it was written
            raise DamagedData from None


def _check(valid: bool) -> None:
    if not valid:
        raise DamagedData


def segments_of(docids: BitMap, first: int = 0) -> Iterator[int]:
    """Yield the segments from this one on that have one of the docids, ascending."""
    docid = next(docids.iter_equal_or_larger(first << SEGMENT_BITS), None)
    while docid is not None:
        segment = docid >> SEGMENT_BITS
        yield segment
        docid = next(docids.iter_equal_or_larger((segment + 1) << SEGMENT_BITS), None)


def listed(column: int, value: str, docids: Sequence[int]) -> PostingList:
    """Return a posting list of given docids."""
    return PostingList(column, value, len(docids), whole=BitMap(array("I", docids)))
