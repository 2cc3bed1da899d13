"""Open the reader for a collection: the one place that knows every kind of input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import ConfigurationError, StoreError
from ..input_types import FORMATS, SqlQuery, Stream
from ..model import CollectionSpec
from .base import InputReader, kind_of
from .objects import JsonLines, ObjectReader, mappings
from .open_table import open_table
from .rejects import Rejects

__all__ = ["open_reader"]


def open_reader(spec: CollectionSpec) -> InputReader:
    """The reader for a specification's source.

    Raises:
        ConfigurationError: the file's suffix says nothing, or no such format is known.
        StoreError: there is no such file, or it lacks a column; the database does not answer.
        MissingExtraError: CSV and Parquet need the extra `server`, databases the extra `sql`.
    """
    source = spec.source
    if spec.format is not None and spec.format not in FORMATS:
        raise ConfigurationError(f"the format {spec.format!r} is not known; there are: {', '.join(FORMATS)}")
    if isinstance(source, SqlQuery):
        from .sql import SqlReader  # SQLAlchemy, only when it is needed

        return SqlReader(spec, source)
    if isinstance(source, Stream):
        from .stdin import open_stream

        return open_stream(spec, source)
    if not isinstance(source, str | Path):
        if isinstance(source, Mapping) or not isinstance(source, Iterable):
            raise ConfigurationError(
                "the source of a collection is a path or an iterable of dicts, a SqlQuery or a Stream"
            )
        where = f"the source of {spec.name!r}"
        return ObjectReader(spec, mappings(source), where, Rejects(spec.rejects, where))
    path = Path(source)
    if not path.is_file():
        raise StoreError(f"{path} is not there" if not path.exists() else f"{path} is not a file")
    kind, gzipped = kind_of(path, spec.format)
    if kind == "jsonl":
        lines = JsonLines(path, spec.encoding, gzipped, Rejects(spec.rejects, str(path)))
        return ObjectReader(spec, lines.objects(), str(path), lines.rejects, lines)
    return open_table(spec, path, kind, str(path))
