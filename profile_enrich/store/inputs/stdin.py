"""Reads a stream that can be read only once, such as standard input."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..._utils.signals import removed_on_signal
from ...errors import ConfigurationError, StoreError
from ..input_types import FORMATS, Stream
from ..model import CollectionSpec, ColumnType
from .base import InputReader, Row
from .objects import JsonLines, ObjectReader
from .open_table import open_table
from .rejects import Rejects

__all__ = ["open_stream"]


def open_stream(spec: CollectionSpec, stream: Stream, expected: Mapping[str, ColumnType] | None = None) -> InputReader:
    """The reader of a stream.

    Raises:
        ConfigurationError: there is no such format.
        StoreError: it cannot be read, or copied to a temporary file.
    """
    if stream.format not in FORMATS:
        raise ConfigurationError(f"the format of {stream.name} is one of: {', '.join(FORMATS)}")
    if stream.format == "jsonl":
        lines = JsonLines(stream.file, spec.encoding, False, Rejects(spec.rejects, stream.name), stream.name)
        return ObjectReader(spec, lines.objects(), stream.name, lines.rejects, lines, expected)
    path = _copied(stream)
    try:
        return _Spooled(open_table(spec, path, stream.format, stream.name, expected), path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _copied(stream: Stream) -> Path:
    """The stream as a file that only its owner can read; CSV is read twice and Parquet from its end."""
    problem = ""
    number, name = tempfile.mkstemp(prefix="profile-enrich-", suffix=f".{stream.format}")
    try:
        with removed_on_signal(Path(name)), os.fdopen(number, "wb") as file:
            shutil.copyfileobj(stream.file, file, 1 << 20)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except BaseException:  # Ctrl-C: nothing of it may stay behind
        Path(name).unlink(missing_ok=True)
        raise
    if problem:
        Path(name).unlink(missing_ok=True)
        raise StoreError(f"{stream.name} cannot be copied to a temporary file: {problem}; TMPDIR says where")
    return Path(name)


class _Spooled:
    """A reader of a temporary file, which it removes at the end."""

    def __init__(self, reader: InputReader, path: Path) -> None:
        self._reader = reader
        self._path = path
        self._registered = contextlib.ExitStack()
        self._registered.enter_context(removed_on_signal(path))
        self.where = reader.where
        self.total = reader.total
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
        self._path.unlink(missing_ok=True)
        self._registered.close()
