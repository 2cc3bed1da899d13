"""Reader of streams that can be read only once, such as standard input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...errors import ConfigurationError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..input_types import FORMATS, Stream
from .base import InputReader, Row
from .objects import JsonLines, ObjectReader
from .private_copy import PrivateCopy, blocks
from .rejects import Rejects
from .select_duckdb_reader import open_table

__all__ = ["open_stream"]


def open_stream(spec: CollectionSpec, stream: Stream, expected: Mapping[str, ColumnType] | None = None) -> InputReader:
    """Open the reader of a stream.

    Raises:
        ConfigurationError: the format is unknown.
        StoreError: the stream cannot be read, or not copied to a temporary file.
    """
    if stream.format not in FORMATS:
        raise ConfigurationError(f"the format of {stream.name} is one of: {', '.join(FORMATS)}")
    if stream.format == "jsonl":
        lines = JsonLines(stream.file, spec.encoding, False, Rejects(spec.rejects, stream.name), stream.name)
        return ObjectReader(spec, lines.objects(), stream.name, lines.rejects, lines, expected)
    copy = PrivateCopy(blocks(stream.file), f".{stream.format}", stream.name)
    try:
        return _Spooled(open_table(spec, copy.path, stream.format, stream.name, expected), copy)
    except BaseException:
        copy.close()
        raise


class _Spooled:
    """A reader of a temporary file, which it removes at the end: CSV is read twice and Parquet from its end."""

    def __init__(self, reader: InputReader, copy: PrivateCopy) -> None:
        self._reader = reader
        self._copy = copy
        self.where = reader.where
        self.total = reader.total
        self.left_out = reader.left_out
        self.rejects = reader.rejects

    def columns(self) -> dict[str, ColumnType]:
        return self._reader.columns()

    def rows(self) -> Iterator[Row]:
        return self._reader.rows()

    def texts(self, values: Sequence[object]) -> list[str]:
        return self._reader.texts(values)

    def reject(self, number: int, names: Sequence[str], values: Sequence[object], reason: str) -> None:
        self._reader.reject(number, names, values, reason)

    def close(self) -> None:
        self._reader.close()
        self._copy.close()
