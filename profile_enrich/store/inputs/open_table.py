"""Open a CSV or Parquet file."""

from __future__ import annotations

from pathlib import Path

from ..input_types import Format
from ..model import CollectionSpec
from .base import InputReader

__all__ = ["open_table"]


def open_table(spec: CollectionSpec, path: Path, kind: Format, where: str) -> InputReader:
    """The reader of a CSV or Parquet file; `where` names it in messages."""
    from .csv import CsvReader
    from .parquet import ParquetReader  # DuckDB, only when it is needed

    return ParquetReader(spec, path, where) if kind == "parquet" else CsvReader(spec, path, kind, where)
