"""Selection of the reader for an input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..._utils.text_encoding import sniff
from ...errors import ConfigurationError, StoreError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..input_types import FORMATS, SqlQuery, Stream
from .base import InputReader, kind_of, open_bytes
from .objects import JsonLines, ObjectReader, mappings
from .rejects import Rejects
from .select_duckdb_reader import open_table

__all__ = ["open_reader"]


def open_reader(spec: CollectionSpec, expected: Mapping[str, ColumnType] | None = None) -> InputReader:
    """Open the reader for a specification's source.

    Args:
        spec: the specification.
        expected: the current types of the collection's columns. A row with a value of another type is rejected; a typed
            file with a column of another type is an error.

    Raises:
        ConfigurationError: the file's suffix or the format is unknown.
        StoreError: the file does not exist or lacks a column, or the database does not respond.
        MissingExtraError: CSV and Parquet need the extra `server`, databases the extra `sql`.
    """
    source = spec.source
    if spec.format is not None and spec.format not in FORMATS:
        raise ConfigurationError(f"the format {spec.format!r} is not known; there are: {', '.join(FORMATS)}")
    sniff(b"", spec.encoding)  # it raises for an encoding that does not exist
    if isinstance(source, SqlQuery):
        from .sql import SqlReader  # imports SQLAlchemy

        return SqlReader(spec, source, expected or {})
    if isinstance(source, Stream):
        from .stdin import open_stream

        return open_stream(spec, source, expected)
    if not isinstance(source, str | Path):
        if isinstance(source, Mapping) or not isinstance(source, Iterable):
            raise ConfigurationError(
                "the source of a collection is a path or an iterable of dicts, a SqlQuery or a Stream"
            )
        where = f"the source of {spec.name!r}"
        return ObjectReader(spec, mappings(source), where, Rejects(spec.rejects, where), expected=expected)
    path = Path(source)
    if path.is_dir() or not path.exists():
        raise StoreError(f"{path} is a directory" if path.exists() else f"{path} is not there")
    kind, gzipped = kind_of(path, spec.format)
    if not path.is_file() and kind != "jsonl":  # a pipe or device, e.g. /dev/stdin, which can be read once
        from .stdin import open_stream

        with open_bytes(path, gzipped=gzipped) as file:
            return open_stream(spec, Stream(file, kind, str(path)), expected)
    if kind == "jsonl":
        lines = JsonLines(path, spec.encoding, gzipped, Rejects(spec.rejects, str(path)))
        return ObjectReader(spec, lines.objects(), str(path), lines.rejects, lines, expected)
    return open_table(spec, path, kind, str(path), expected)
