"""Reads Parquet files with DuckDB (extra `server`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError, StoreError
from ..files.row_encoder import to_json
from ..model import CollectionSpec, ColumnType
from .base import check_columns, kept_fields
from .duckdb_table import TableReader, literal, rows_are_valid, validity_facts

__all__ = ["ParquetReader"]


def _parquet_column(name: str, kind: str) -> tuple[str, ColumnType, Callable[[Any], str]]:
    """How a column is read: the SQL that gives it, its type, and what makes JSON of it."""
    place = '"' + name.replace('"', '""') + '"'
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
    if base == "FLOAT":  # by way of its text: 0.1, not 0.10000000149011612
        return f"TRY_CAST({place}::VARCHAR AS DOUBLE)", "number", to_json
    if base == "BLOB":
        return f"base64({place})", "text", to_json
    # Text, and what has a text form: dates (2018-01-14 15:53:16), UUIDs, intervals, enums.
    return f"{place}::VARCHAR", "text", to_json


def _nested(value: str | None) -> str:
    if value is None:
        return "null"
    if "NaN" in value or "Infinity" in value:
        return to_json(json.loads(value, parse_constant=lambda _: None, parse_float=Decimal))
    return value


class ParquetReader(TableReader):
    """A Parquet file. Values keep its types; NaN and infinities, which JSON does not have, become null."""

    def __init__(self, spec: CollectionSpec, path: Path, where: str) -> None:
        super().__init__(spec, path, where)
        if spec.types:
            self.close()
            raise ConfigurationError("`types` is for CSV files; a Parquet file brings its own")
        self._scan = "read_parquet($path)"
        self._parameters = {"path": self._pattern}
        try:
            self._connection.execute("SET TimeZone = 'UTC'")
            described = self._fetch("DESCRIBE SELECT * FROM read_parquet($path)")
            found = {str(row[0]): str(row[1]) for row in described}
            self.total = self._fetch("SELECT count(*) FROM read_parquet($path)")[0][0]
            check_columns(spec, found, where)
        except StoreError:
            self.close()
            raise
        kept = list(found) if spec.fields is None else kept_fields(spec)
        columns = {name: _parquet_column(name, found[name]) for name in kept}
        self._types = {name: kind for name, (_, kind, _) in columns.items()}
        if self._types[spec.key] not in ("text", "integer") or found[spec.key] == "BLOB":
            self.close()
            raise StoreError(
                f"{where}: the key column {spec.key!r} is {found[spec.key]}; a key is text or an integer, so cast it"
            )
        self._encoders = [encode for _, _, encode in columns.values()]
        self._query = f"SELECT {', '.join(sql for sql, _, _ in columns.values())} FROM {self._scan}"  # noqa: S608  # quoted names
        self._places: dict[str, str] = {}
        # What nests, and floating-point numbers, are written by Python.
        if all(encode is literal or kind in ("text", "boolean") for _, kind, encode in columns.values()):
            self._places = {
                name: f"{sql}::VARCHAR" if kind == "boolean" else sql for name, (sql, kind, _) in columns.items()
            }
            self._look(spec, list(columns))

    def _look(self, spec: CollectionSpec, kept: Sequence[str]) -> None:
        facts = ", ".join(validity_facts(self._places[spec.key], list(self._places.values())))
        try:
            odd, longest = self._fetch(f"SELECT {facts} FROM {self._scan}")[0]  # noqa: S608  # quoted names
        except StoreError:  # a page of the file is broken
            self.close()
            raise
        self.all_valid = not self.rejects.kept and rows_are_valid(kept, odd, longest)

    @property
    def places(self) -> Mapping[str, str]:
        """SQL for each kept column as text; nothing where Python must write one."""
        return self._places

    def _explain(self, message: str) -> str:
        return f"{self.where} cannot be read as Parquet; is it whole?"
