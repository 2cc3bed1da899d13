"""Bitmaps of common values as numbers, kept between requests: reading one costs ten times what combining two does."""

from __future__ import annotations

import sqlite3

__all__ = ["CHUNK", "DENSE", "SHIFT", "Bitmaps"]

CHUNK = 16
"""A chunk has 2**16 docids."""
DENSE = 8192
"""The bytes of a chunk that is a bitmap."""
SHIFT = 22
"""A posting's row number is value number * 2**22 + chunk: 2**38 docids."""

MOST = 4096
"""Bitmaps kept of one file by one reader: 36 MB. The one that was read first goes first."""


class Bitmaps:
    """The posting lists of one file, for one thread.

    Args:
        connection: of the file, which never changes.
        most: bitmaps kept.
    """

    def __init__(self, connection: sqlite3.Connection, most: int = MOST) -> None:
        self._connection = connection
        self._most = most
        self._kept: dict[int, int] = {}
        self._chunks: int | None = None

    @property
    def chunks(self) -> int:
        """How many chunks the docids of the file are in."""
        chunks = self._chunks
        if chunks is None:
            (last,) = self._connection.execute("SELECT max(docid) FROM record").fetchone()
            chunks = self._chunks = 0 if last is None else (last >> CHUNK) + 1
        return chunks

    def part(self, vid: int, chunk: int) -> int | bytes | None:
        """One chunk of a value: a bitmap as a number, an array as it is stored, `None` when it has none there."""
        number = (vid << SHIFT) + chunk
        kept = self._kept
        bits = kept.get(number)
        if bits is not None:
            return bits
        row = self._connection.execute("SELECT data FROM post WHERE id = ?", (number,)).fetchone()
        if row is None:
            return None
        data: bytes = row[0]
        if len(data) < DENSE:
            return data
        if len(kept) >= self._most:
            del kept[next(iter(kept))]
        bits = kept[number] = int.from_bytes(data, "little")
        return bits
