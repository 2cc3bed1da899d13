"""Read the ids that a mirror is filled with: a file or a query."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError
from ..store import CollectionSpec, SqlQuery
from ..store.files.row_encoder import RowRejected, key_text
from ..store.inputs.base import kind_of
from ..store.inputs.select_reader import open_reader
from ..store.writes.refresh import keys_of

__all__ = ["read_ids"]

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".gz")


def read_ids(source: Path | SqlQuery, column: str = "id") -> Iterator[str]:
    """Read ids one after the other, as text; rows without one are skipped.

    Args:
        source: a CSV, TSV, JSONL or Parquet file, or a query; any other file has an id a line.
        column: that holds the id.

    Raises:
        StoreError: the source cannot be read, or has no such column.
    """
    if isinstance(source, Path) and source.suffix.lower() not in _TABLES:
        yield from keys_of(source)
        return
    is_csv = isinstance(source, Path) and kind_of(source, None)[0] in ("csv", "tsv")
    reader = open_reader(
        CollectionSpec("ids", source, key=column, fields=[column], types={column: "text"} if is_csv else {})
    )
    try:
        for names, values in reader.rows():
            if column not in names:
                raise StoreError(f"{reader.where} has no column {column!r}")
            with contextlib.suppress(RowRejected):
                yield key_text(values[names.index(column)])
    finally:
        reader.close()
