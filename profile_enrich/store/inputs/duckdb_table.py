"""Read tables with DuckDB (extra `server`), whose columns and types are known before the rows."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._utils.optional_import import import_extra
from ...errors import StoreError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..files.row_encoder import MAX_KEY_BYTES, MAX_RECORD_BYTES, RowRejected, to_json
from .base import Row, misfit
from .rejects import Rejects

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


__all__ = ["TableReader", "literal", "rows_are_valid", "validity_facts"]

_BATCH = 2048


# A column is inferred as numeric only if each value converts to a number and back to the same text: no leading or
# trailing zero, no exponent, at most 15 digits. `1.10` and `12E5` are text, which may be codes.
_DECIMALS = r"(0|[0-9]{0,7}[1-9])"

_INFERRED: dict[ColumnType, str] = {
    "integer": r"0|-?[1-9][0-9]{0,14}",
    "number": rf"0|0\.0|-?0\.0{{0,3}}[1-9]([0-9]{{0,10}}[1-9])?|-?[1-9][0-9]{{0,14}}|-?[1-9][0-9]{{0,6}}\.{_DECIMALS}",
    "boolean": "true|false",
}

# The values of a column with a declared type are JSON literals. Longer numbers are identifiers, and JavaScript would
# round them. The literal itself is stored.
_JSON_INTEGER = r"-?(0|[1-9][0-9]{0,14})"

_DECLARED: dict[ColumnType, str] = {
    "integer": _JSON_INTEGER,
    "number": _JSON_INTEGER + r"(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,2})?",
    "boolean": r"[Tt]rue|[Ff]alse|TRUE|FALSE",
}


_SAMPLE = 4096  # rows after which most columns are known to be text


class TableReader:
    """What CSV and Parquet have in common: a query, and columns known beforehand.

    Attributes:
        all_valid: whether no row will be refused, so that nobody need look at each.
    """

    def __init__(self, spec: CollectionSpec, path: Path, where: str) -> None:
        import_extra("duckdb", "reading CSV and Parquet files", "server")
        import duckdb

        self._errors: type[Exception] = duckdb.Error
        self._path = path
        # DuckDB takes paths for patterns, a leading `~` for the home directory, and `s3:` for a protocol.
        self._pattern = glob.escape(str(path.absolute()))
        self.where = where
        self.total: int | None = None
        self.rejects = Rejects(spec.rejects, where)
        self._types: dict[str, ColumnType] = {}
        self._scan = ""
        self._query = ""
        self.all_valid = False
        self.left_out: frozenset[str] = frozenset()
        self._parameters: dict[str, object] = {}
        self._encoders: list[Callable[[Any], str]] = []
        self._declared: dict[int, tuple[str, ColumnType, re.Pattern[str]]] = {}
        self._connection: DuckDBPyConnection = duckdb.connect(
            ":memory:",
            config={"autoinstall_known_extensions": False, "autoload_known_extensions": False, "threads": 2},
        )
        self._connection.execute("SET enable_progress_bar = false")  # it would draw over the caller's output
        self._kept_cursor = self._connection  # replaced by `keep`, for queries beside the scan

    def columns(self) -> dict[str, ColumnType]:
        """Return the columns and their types."""
        return self._types

    def texts(self, values: Sequence[object]) -> list[str]:
        """Return the values of a row as JSON texts."""
        for place, (name, kind, pattern) in self._declared.items():
            value = values[place]
            if value is not None and not pattern.fullmatch(str(value)):
                raise RowRejected(misfit(name, kind))
        return [encode(value) for encode, value in zip(self._encoders, values, strict=True)]

    def reject(self, number: int, names: Sequence[str], values: Sequence[object], reason: str) -> None:
        """Write the last row of `rows` to the rejected rows."""
        self.rejects.add(reason, row=number, data=dict(zip(names, values, strict=True)))

    def close(self) -> None:
        """Close DuckDB."""
        self._kept_cursor.close()
        self._connection.close()
        self.rejects.close()

    def rows(self) -> Iterator[Row]:
        """Yield the names and values of each row."""
        names = tuple(self._types)
        batch = self._fetch(self._query)
        count = 0
        while batch:
            for row in batch:
                yield names, row
            count += len(batch)
            batch = self._fetch(None)
        self._check_count(count)

    @property
    def places(self) -> Mapping[str, str]:
        """Return the SQL of each kept column as text; empty if a column has none."""
        return {}

    def batches(self, expressions: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """Yield batches of the values of SQL expressions over the columns, in the order of the file."""
        batch = self._fetch(f"SELECT {', '.join(expressions)} FROM {self._scan}")  # noqa: S608  # its names are quoted
        count = 0
        while batch:
            yield batch
            count += len(batch)
            batch = self._fetch(None)
        self._check_count(count)

    def keep(self, expressions: Sequence[str], spill: Path) -> None:
        """Store the values of SQL expressions in the table `kept`: columns `f0`, `f1`, …; `rowid` counts from 0.

        Another thread may read `batches` at the same time.

        Args:
            expressions: over the columns.
            spill: a directory for what does not fit into memory; made when it is needed, and removed by `close`.
        """
        self._kept_cursor = self._connection.cursor()
        self._kept_cursor.execute("SET temp_directory = $path", {"path": str(spill)})
        columns = ", ".join([f"{expression} AS f{number}" for number, expression in enumerate(expressions)])
        keep = f"CREATE TEMP TABLE kept AS SELECT {columns} FROM {self._scan}"  # noqa: S608  # as above
        self._check_count(self._fetch(keep, self._kept_cursor)[0][0])

    def ask(self, query: str, parameters: Mapping[str, object] | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """Run a query on the table `kept` now, and return an iterator over batches of its rows."""
        return self._answer(self._try(query, parameters or {}))

    def _answer(self, batch: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
        while batch:
            yield batch
            batch = self._try(None, {})

    def _try(self, query: str | None, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        problem = ""
        try:
            if query is not None:
                self._kept_cursor.execute(query, parameters)
            return self._kept_cursor.fetchmany(_BATCH)
        except self._errors as error:
            problem = type(error).__name__
        raise StoreError(f"{self.where}: its values cannot be sorted ({problem}); is there enough memory and disk?")

    def _check_count(self, count: int) -> None:
        if count != self.total:
            raise StoreError(f"{self.where} changed while it was read; try again when it is complete")

    def _fetch(self, query: str | None, connection: DuckDBPyConnection | None = None) -> list[tuple[Any, ...]]:
        connection = connection or self._connection
        problem = ""
        try:
            if query is not None:
                connection.execute(query, self._parameters)
            return connection.fetchmany(_BATCH)
        except self._errors as error:
            problem = self._explain(str(error))
        raise StoreError(problem)

    def _explain(self, message: str) -> str:
        """What went wrong, without the line that DuckDB quotes."""
        raise NotImplementedError


def literal(value: str | None) -> str:
    """A value that is written as JSON writes it, as JSON."""
    return "null" if value is None else value


def _lower(value: str | None) -> str:
    return "null" if value is None else value.lower()


_LITERALS: dict[ColumnType, Callable[[Any], str]] = {
    "integer": literal,
    "number": literal,
    "boolean": _lower,
    "text": to_json,
}


def all_are(place: str, pattern: str) -> str:
    """SQL that says whether all values of a column are written in this way; null when it has none."""
    return f"bool_and(regexp_full_match({place}, '{pattern}'))"


def validity_facts(key: str, places: Sequence[str]) -> list[str]:
    """SQL for what `rows_are_valid` wants to know of a table: given its key and its columns as text."""
    sizes = f"strlen(concat({', '.join(places)}))"  # not a sum: an expression has at most 1,000 levels
    return [
        f"count(*) FILTER (WHERE coalesce({key}, '') = '' OR strlen({key}) > {MAX_KEY_BYTES})",
        f"coalesce(max({sizes}), 0)",
    ]


def rows_are_valid(names: Sequence[str], odd: int, longest: int) -> bool:
    """Whether every row can be stored: no key is odd, and the longest row is short, also as JSON."""
    # At worst JSON makes six bytes of one; each column has quotes, a colon, a comma, and may be null.
    return not odd and 6 * (longest + sum(len(name.encode()) + 8 for name in names)) < MAX_RECORD_BYTES
