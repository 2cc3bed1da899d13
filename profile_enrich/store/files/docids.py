"""Assignment of docids: a record keeps its docid over rebuilds, a new record gets a new one."""

from __future__ import annotations

import contextlib
import sqlite3
from array import array
from collections.abc import Iterator, Sequence

from ...errors import StoreError
from ..collection import Collection
from ..index.bitmaps import BitMap64
from .collection_reader import CollectionReader
from .collection_writer import duplicates_found
from .layer_reader import Layer
from .row_encoder import EncodedRow

__all__ = ["DocIdAllocator", "Numbering"]


class Numbering:
    """Assign docids to the rows of a full source.

    A source mostly has the same order as last time, so the old records are read in parallel, and a key is looked up
    only where the orders differ.

    Args:
        old: the previous version of the collection; `None` for a new one.
        next_docid: the first new number.

    Attributes:
        next_docid: the docid of the next new record.
    """

    def __init__(self, old: CollectionReader | None, next_docid: int) -> None:
        self._old = old
        self.next_docid = next_docid
        self._walk: Iterator[tuple[int, str]] = iter(())
        self._expected: tuple[int, str] | None = None
        if old is not None:
            self._follow(old, 0)

    def number(self, key: str) -> int:
        """Return the docid for a row with this key."""
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
        # If the old file is damaged, the build continues, and its records get new docids.
        with contextlib.suppress(sqlite3.Error):
            self._walk = old.walk(after=docid)
            self._expected = next(self._walk, None)


class DocIdAllocator:
    """Assign docids, and the base or a layer, to the rows of a build.

    Args:
        before: the previous version of the collection; `None` for a new one.
        layers: its files; empty for a new one.
        next_docid: the first unused docid.

    Attributes:
        late: later rows of a record that already has a row; they are written to a layer.
        repeated: the number of such rows.
        first_late: the row number of the first of them.
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
        """The docid of the next new record."""
        return self._first_new + self._count if self._numbering is None else self._numbering.next_docid

    @property
    def fresh(self) -> bool:
        """Whether the docid of each row is its row number."""
        return self._numbering is None and self._first_new == 1

    @property
    def kept(self) -> int | None:
        """The number of previous records that have a row again; `None` if unknown."""
        return None if self._numbering is None else len(self._seen)

    def place_all(self, rows: int) -> None:
        """Assign docids to this many rows at once, if the collection is new."""
        self._count = rows

    def place(self, number: int, row: EncodedRow) -> int | None:
        """Return the docid for a row; `None` if the row was added to `late`."""
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
        """Return the number of the row that got a new docid."""
        at = docid - self._first_new
        return at + 1 if self._numbering is None else self._rows[at]

    def refuse_duplicates(self) -> None:
        """Raise an error if a record has two rows.

        Raises:
            StoreError: a record has two rows; the message counts them and names the first.
        """
        if self.first_late is not None:
            raise StoreError(duplicates_found(self.repeated, self.first_late))
