"""Selection of the DuckDB reader for a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..input_types import Format
from .base import InputReader

__all__ = ["open_table"]


def open_table(
    spec: CollectionSpec, path: Path, kind: Format, where: str, expected: Mapping[str, ColumnType] | None = None
) -> InputReader:
    """Open the reader of a CSV or Parquet file; `where` is its name in messages."""
    from .csv import CsvReader
    from .parquet import ParquetReader  # imports DuckDB

    if kind == "parquet":
        return ParquetReader(spec, path, where, expected or {})
    return CsvReader(spec, path, kind, where, expected or {})
