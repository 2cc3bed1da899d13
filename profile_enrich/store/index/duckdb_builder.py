"""Builder of posting lists for a whole file, grouped by DuckDB on all cores while Python writes the records.

The result is identical to that of `PostingsBuilder`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .bitmaps import SEGMENT_BITS, BitMap
from .builder import COMMON, FIRST_ROWS, NEAR_UNIQUE, PostingRow, PostingsBuilder

__all__ = ["DuckDBPostings", "ValueTable"]


class ValueTable(Protocol):
    """A DuckDB table with the values of the filterable columns."""

    def keep(self, expressions: Sequence[str], spill: Path) -> None:
        """Keep the values of SQL expressions in a table `kept`: columns `f0`, `f1`, …; `rowid` counts from 0."""
        ...

    def ask(self, query: str, parameters: Mapping[str, object] | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """Run a query on the kept values and return its result."""
        ...


_GROUP = (
    "SELECT f{column}, (rowid + 1) >> {bits}, list(rowid + 1) FROM kept"
    " WHERE f{column} IS NOT NULL {common} GROUP BY 1, 2 ORDER BY 1, 2"
)
_COMMON = (
    "CREATE OR REPLACE TEMP TABLE common AS SELECT f{column} AS value FROM kept WHERE f{column} IS NOT NULL"
    " GROUP BY f{column} HAVING count(*) >= {common}"
)
_UNIQUE = (
    "CREATE TEMP TABLE unique{column} AS SELECT {column}, f{column} AS value, rowid + 1 AS docid FROM kept"
    " WHERE f{column} IS NOT NULL AND f{column} NOT IN (SELECT value FROM common) ORDER BY f{column}, rowid"
)


class DuckDBPostings:
    """Posting lists of the rows of a file, numbered from docid 1.

    Args:
        table: the table of the file.
        values: SQL for the values of the filterable columns.
    """

    def __init__(self, table: ValueTable, values: Sequence[str]) -> None:
        self._table = table
        self._values = values
        self._unique: list[int] = []
        self._postings: list[PostingRow] = []

    def prepare(self, spill: Path) -> None:
        """Group the values in DuckDB, without blocking other threads.

        Args:
            spill: a directory for data that do not fit into memory.

        Raises:
            StoreError: the file has changed, or the disk is full.
        """
        ask = self._table.ask
        self._table.keep(self._values, spill)
        self._unique = self._near_unique()
        for column in range(len(self._values)):
            common = ""
            if column in self._unique:
                ask(_COMMON.format(column=column, common=COMMON))
                ask(_UNIQUE.format(column=column))
                common = f"AND f{column} IN (SELECT value FROM common)"  # noqa: S608  # numbers only
            for batch in ask(_GROUP.format(column=column, common=common, bits=SEGMENT_BITS)):
                self._postings += [
                    (column, value, segment, len(docids), BitMap(array("I", docids)).serialize())
                    for value, segment, docids in batch
                ]
        ask("DROP TABLE kept")

    def _near_unique(self) -> list[int]:
        facts = [f"count(f{number}), count(DISTINCT f{number})" for number in range(len(self._values))]
        asked = self._table.ask(f"SELECT {', '.join(facts)} FROM kept WHERE rowid < {FIRST_ROWS}")  # noqa: S608  # numbers only
        counts = next(asked)[0]
        found = enumerate(zip(counts[::2], counts[1::2], strict=True))
        return [number for number, (present, distinct) in found if present > 1 and distinct > present * NEAR_UNIQUE]

    def write(self, builder: PostingsBuilder) -> None:
        """Write the posting lists in their stored order."""
        for column in self._unique:
            for batch in self._table.ask(f"FROM unique{column}"):
                builder.add_unique(batch)
        builder.add_postings(self._postings)
        self._postings = []
