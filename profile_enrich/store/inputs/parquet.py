"""Reader of Parquet files with DuckDB (extra `server`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError, StoreError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..files.row_encoder import to_json
from .base import check_columns, kept_fields
from .duckdb_table import TableReader, literal, rows_are_valid, validity_facts

__all__ = ["ParquetReader"]


def _parquet_column(place: str, kind: str) -> tuple[str, ColumnType, Callable[[Any], str]]:
    """Return the SQL expression, the type and the JSON encoder of a column."""
    base = kind.split("(")[0]
    if kind.endswith("]") or base in ("STRUCT", "MAP", "UNION", "LIST", "ARRAY", "JSON", "VARIANT"):
        return f"to_json({place})::VARCHAR", "json", _nested
    if base == "BOOLEAN":
        return place, "boolean", to_json
    if base in (
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "HUGEINT",
        "UHUGEINT",
    ):
        return f"{place}::VARCHAR", "integer", literal
    if base == "DECIMAL":
        return f"{place}::VARCHAR", "number", literal
    if base == "DOUBLE":
        return place, "number", to_json
    if base == "FLOAT":  # through its text: 0.1, not 0.10000000149011612
        return f"TRY_CAST({place}::VARCHAR AS DOUBLE)", "number", to_json
    if base == "BLOB":
        return f"base64({place})", "text", to_json
    # Text and types with a text form: dates (2018-01-14 15:53:16), UUIDs, intervals, enums.
    return f"{place}::VARCHAR", "text", to_json


def _nested(value: str | None) -> str:
    if value is None:
        return "null"
    if "NaN" in value or "Infinity" in value:
        return to_json(json.loads(value, parse_constant=lambda _: None, parse_float=Decimal))
    return value


class ParquetReader(TableReader):
    """A Parquet file. Values keep their types; NaN and infinities, which JSON lacks, become null."""

    def __init__(self, spec: CollectionSpec, path: Path, where: str, expected: Mapping[str, ColumnType]) -> None:
        super().__init__(spec, path, where)
        if spec.types:
            self.close()
            raise ConfigurationError("`types` is for CSV files; a Parquet file brings its own")
        scan = (
            "read_parquet($path, hive_partitioning=false, union_by_name=false, filename=false, file_row_number=false,"
            " binary_as_string=false)"
        )
        self._parameters = {"path": self._pattern}
        try:
            self._connection.execute("SET TimeZone = 'UTC'")
            kinds = [str(row[1]) for row in self._fetch(f"DESCRIBE SELECT * FROM {scan}")]  # noqa: S608  # a constant
            found = dict(zip(self._names(where), kinds, strict=True))
            # By position, because DuckDB renames columns whose names differ only in case.
            places = {name: f"c{number}" for number, name in enumerate(found)}
            self._scan = f"{scan} AS file({', '.join(places.values())})"
            self.total = self._fetch(f"SELECT count(*) FROM {self._scan}")[0][0]  # noqa: S608  # c0, c1…
            check_columns(spec, found, where)
        except StoreError:
            self.close()
            raise
        kept = list(found) if spec.fields is None else kept_fields(spec)
        self.left_out = frozenset(found).difference(kept)
        columns = {name: _parquet_column(places[name], found[name]) for name in kept}
        self._types = {name: kind for name, (_, kind, _) in columns.items()}
        for name, kind in expected.items():
            if name in self._types and kind not in (self._types[name], "json"):
                if kind != "number" or self._types[name] != "integer":
                    self.close()
                    raise StoreError(
                        f"{where}: the column {name!r} is {self._types[name]}, and {kind} in the collection; cast it,"
                        " or drop the collection and build it again to change the type"
                    )
                self._types[name] = "number"
        if self._types[spec.key] not in ("text", "integer") or found[spec.key] == "BLOB":
            self.close()
            raise StoreError(
                f"{where}: the key column {spec.key!r} is {found[spec.key]}; a key is text or an integer, so cast it"
            )
        self._encoders = [encode for _, _, encode in columns.values()]
        self._query = f"SELECT {', '.join(sql for sql, _, _ in columns.values())} FROM {self._scan}"  # noqa: S608  # quoted names
        self._places: dict[str, str] = {}
        # Python encodes nested values and floating-point numbers.
        if all(encode is literal or kind in ("text", "boolean") for _, kind, encode in columns.values()):
            self._places = {
                name: f"{sql}::VARCHAR" if kind == "boolean" else sql for name, (sql, kind, _) in columns.items()
            }
            self._look(spec, list(columns))

    def _names(self, where: str) -> list[str]:
        """Return the column names of the file.

        Raises:
            StoreError: two columns have the same name.
        """
        names: list[str] = []
        inside = 0  # nodes of the schema that belong to enclosing columns
        schema = self._fetch_all("SELECT name, coalesce(num_children, 0) FROM parquet_schema($path)")
        for name, children in schema[1:]:
            if not inside:
                names.append(str(name))
            inside += children - (1 if inside else 0)
        if len(set(names)) < len(names):
            twice = next(name for number, name in enumerate(names) if name in names[:number])
            raise StoreError(f"{where}: two columns are named {twice!r}; rename one")
        return names

    def _fetch_all(self, query: str) -> list[tuple[Any, ...]]:
        rows = batch = self._fetch(query)
        while batch:
            batch = self._fetch(None)
            rows = rows + batch
        return rows

    def _look(self, spec: CollectionSpec, kept: Sequence[str]) -> None:
        facts = ", ".join(validity_facts(self._places[spec.key], list(self._places.values())))
        try:
            odd, longest = self._fetch(f"SELECT {facts} FROM {self._scan}")[0]  # noqa: S608  # quoted names
        except StoreError:  # a page of the file is damaged
            self.close()
            raise
        self.all_valid = not self.rejects.kept and rows_are_valid(kept, odd, longest)

    @property
    def places(self) -> Mapping[str, str]:
        """SQL for each kept column as text; empty if Python must encode one of them."""
        return self._places

    def _explain(self, message: str) -> str:
        return f"{self.where} cannot be read as Parquet; is it whole?"
