"""Which number (docid) a row gets: the one that its record has had before, or a new one."""

from __future__ import annotations

import contextlib
import sqlite3
from array import array
from collections.abc import Iterator, Sequence

from ...errors import StoreError
from ..index.bitmaps import BitMap64
from ..model import Collection
from .collection_reader import CollectionReader
from .collection_writer import duplicates_found
from .layer import Layer
from .row_encoder import EncodedRow

__all__ = ["DocIdAllocator", "Numbering"]


class Numbering:
    """Gives the rows of a whole source their numbers.

    A source mostly comes in the order in which it came the last time. So the old records are walked through beside it,
    and only where the two differ is a key looked up.

    Args:
        old: the collection as it was; `None` when it is new.
        next_docid: the first new number.

    Attributes:
        next_docid: the number that the next new record gets.
    """

    def __init__(self, old: CollectionReader | None, next_docid: int) -> None:
        self._old = old
        self.next_docid = next_docid
        self._walk: Iterator[tuple[int, str]] = iter(())
        self._expected: tuple[int, str] | None = None
        if old is not None:
            self._follow(old, 0)

    def number(self, key: str) -> int:
        """The number for a row with this key."""
        with contextlib.suppress(sqlite3.Error):
            found = self._known(key)
            if found is not None:
                return found
        docid, self.next_docid = self.next_docid, self.next_docid + 1
        return docid

    def _known(self, key: str) -> int | None:
        expected = self._expected
        if expected is not None and expected[1] == key:
            self._expected = next(self._walk, None)
            return expected[0]
        found = None if self._old is None else self._old.docid(key)
        if self._old is not None and found is not None:
            self._follow(self._old, found)
        return found

    def _follow(self, old: CollectionReader, docid: int) -> None:
        # A damaged old file must not keep a new one from being built: its records then get new numbers.
        with contextlib.suppress(sqlite3.Error):
            self._walk = old.walk(after=docid)
            self._expected = next(self._walk, None)


class DocIdAllocator:
    """Where the rows of a whole source go when a collection is built.

    Args:
        before: the collection as it was; `None` when it is new.
        layers: its files; none when it is new.
        next_docid: the first number that was never used.

    Attributes:
        late: rows whose record has a row already: they lie above it, in a layer.
        repeated: how many such rows there were.
        first_late: the number of the first of them.
    """

    def __init__(self, before: Collection | None, layers: Sequence[Layer], next_docid: int) -> None:
        self._first_new = next_docid
        self._count = 0
        self._numbering: Numbering | None = None
        if before is not None and layers:
            self._numbering = Numbering(CollectionReader(layers, before), next_docid)
        self._seen = BitMap64()
        self._rows = array("Q")
        self.late: dict[int, EncodedRow] = {}
        self.repeated = 0
        self.first_late: int | None = None

    @property
    def next_docid(self) -> int:
        """The number that the next new record gets."""
        return self._first_new + self._count if self._numbering is None else self._numbering.next_docid

    @property
    def fresh(self) -> bool:
        """Whether every row simply gets the number that it has in the source."""
        return self._numbering is None and self._first_new == 1

    @property
    def kept(self) -> int | None:
        """How many of the records of before have a row again; `None` when that is not known."""
        return None if self._numbering is None else len(self._seen)

    def place_all(self, rows: int) -> None:
        """Give that many rows their numbers at once, when it is fresh."""
        self._count = rows

    def place(self, number: int, row: EncodedRow) -> int | None:
        """The docid for a row, given its number in the source; `None` when it was put with those that come late."""
        if self._numbering is None:
            self._count = number
            return self._first_new + number - 1
        docid = self._numbering.number(row.key)
        if docid >= self._first_new:
            self._rows.append(number)
        elif docid in self._seen:
            self.late[docid] = row
            self.repeated += 1
            self.first_late = self.first_late or number
            return None
        else:
            self._seen.add(docid)
        return docid

    def row_of(self, docid: int) -> int:
        """The number of the row that was given a new docid."""
        at = docid - self._first_new
        return at + 1 if self._numbering is None else self._rows[at]

    def refuse_duplicates(self) -> None:
        """Raise when a record has two rows.

        Raises:
            StoreError: it says how many, and which row is the first.
        """
        if self.first_late is not None:
            raise StoreError(duplicates_found(self.repeated, self.first_late))
