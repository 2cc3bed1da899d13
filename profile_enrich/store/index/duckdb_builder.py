"""Posting lists of a whole file, made by DuckDB itself: on all cores, while SQLite sorts the keys.

They are what `PostingsBuilder` makes of the same rows one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .bitmap_cache import CHUNK, SHIFT
from .builder import COMMON, FIRST_ROWS, NEAR_UNIQUE, PostingsBuilder
from .posting_lists import LOW, MANY, lows_of, pack

__all__ = ["BulkPostings", "ValueTable"]


class ValueTable(Protocol):
    """Keeps the values of the filterable columns in DuckDB."""

    def keep(self, expressions: Sequence[str], spill: Path) -> None:
        """Keeps the values of SQL expressions in a table `kept`: columns `f0`, `f1`, …; `rowid` counts from 0."""
        ...

    def ask(self, query: str, parameters: Mapping[str, object] | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """The answer to a statement about what was kept."""
        ...


_SCHEMA = "CREATE TEMP TABLE found (attr INTEGER, val VARCHAR, chunk BIGINT, n BIGINT, dense BOOLEAN, data BLOB)"
_FIND = """
INSERT INTO found SELECT {attr}, val, chunk, count(*), {dense}, {data} FROM (
    SELECT f{attr} AS val, (rowid + 1) >> {bits} AS chunk, (rowid + 1) & {low} AS low FROM kept
    WHERE f{attr} IS NOT NULL AND f{attr} {which}
) GROUP BY val, chunk
"""
# As `postings` stores a chunk. DuckDB numbers the bits of a byte from the left: hence the xor. Of a low part, the
# hexadecimal digits of its lower and then its upper byte are written, after a one that keeps zeros in front.
_BITS = f"bitstring_agg(xor(low, 7), 0, {LOW})::BLOB"
_LOWS = "unhex(string_agg(substr(hex(65536 + (low & 255) * 256 + (low >> 8)), 2), '' ORDER BY low))"
_NUMBER = (
    "CREATE TEMP TABLE numbered AS SELECT attr, val, row_number() OVER (ORDER BY attr, val) AS vid,"
    " sum(n)::BIGINT AS n FROM found GROUP BY attr, val"
)
_PLACE = (
    f"CREATE TEMP TABLE placed AS SELECT (vid << {SHIFT}) + chunk AS id, data, dense,"  # noqa: S608  # constants
    f" dense = (found.n >= {MANY}) AS fits"
    " FROM found JOIN numbered USING (attr, val) ORDER BY id"
)
_DENSE_FROM = MANY / (LOW + 1)
"""The share of the records from which on a value is counted in bitmaps: those of rarer ones would take much memory."""


class BulkPostings:
    """Posting lists of the rows of a file, of which the first has docid 1.

    Args:
        table: of the file.
        values: SQL for the values of the filterable columns.
        rows: how many rows there are.
    """

    def __init__(self, table: ValueTable, values: Sequence[str], rows: int) -> None:
        self._table = table
        self._values = values
        self._rows = rows
        self._single: list[int] = []

    def prepare(self, spill: Path) -> None:
        """Makes them, in DuckDB: other threads run meanwhile.

        Args:
            spill: a directory for what does not fit into memory.

        Raises:
            StoreError: the file has changed, or there is no room.
        """
        ask = self._table.ask
        self._table.keep(self._values, spill)
        ask(_SCHEMA)
        self._single = self._near_unique()
        for attr in range(len(self._values)):
            single = attr in self._single
            least = COMMON if single else max(1, round(self._rows * _DENSE_FROM))
            ask(
                f"CREATE OR REPLACE TEMP TABLE common AS SELECT f{attr} AS val FROM kept"  # noqa: S608  # numbers only
                f" WHERE f{attr} IS NOT NULL GROUP BY f{attr} HAVING count(*) >= {least}"
            )
            common, others = "IN (SELECT val FROM common)", "NOT IN (SELECT val FROM common)"
            if single:
                ask(_FIND.format(attr=attr, dense="false", data=_LOWS, which=common, bits=CHUNK, low=LOW))
                ask(
                    f"CREATE TEMP TABLE single{attr} AS SELECT {attr} AS attr, f{attr} AS val, rowid + 1 AS docid"  # noqa: S608  # numbers only
                    f" FROM kept WHERE f{attr} IS NOT NULL AND f{attr} {others} ORDER BY f{attr}, rowid"
                )
            else:
                ask(_FIND.format(attr=attr, dense="true", data=_BITS, which=common, bits=CHUNK, low=LOW))
                ask(_FIND.format(attr=attr, dense="false", data=_LOWS, which=others, bits=CHUNK, low=LOW))
        ask("DROP TABLE kept")
        ask(_NUMBER)
        ask(_PLACE)

    def _near_unique(self) -> list[int]:
        facts = [f"count(f{attr}), count(DISTINCT f{attr})" for attr in range(len(self._values))]
        asked = self._table.ask(f"SELECT {', '.join(facts)} FROM kept WHERE rowid < {FIRST_ROWS}")  # noqa: S608  # numbers only
        counts = next(asked)[0]
        there, different = counts[::2], counts[1::2]
        return [
            attr for attr in range(len(self._values)) if there[attr] > 1 and different[attr] > there[attr] * NEAR_UNIQUE
        ]

    def write(self, builder: PostingsBuilder) -> None:
        """Hands them over, in the order in which they are stored."""
        for attr in self._single:
            for batch in self._table.ask(f"FROM single{attr}"):
                builder.add_singles(batch)
        for batch in self._table.ask("SELECT attr, val, vid, n FROM numbered ORDER BY vid"):
            builder.add_values(batch)
        for batch in self._table.ask("SELECT id, data FROM placed WHERE fits"):
            builder.add_postings(batch)
        # Values that are common, but not in this chunk; or the other way round.
        for batch in self._table.ask("SELECT id, data, dense FROM placed WHERE NOT fits"):
            builder.add_postings([(number, pack(lows_of(data, dense=dense))) for number, data, dense in batch])
