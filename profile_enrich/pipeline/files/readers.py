"""Records of a file, one after the other, each with its place. What is wrong with one record is said, not raised."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from ...errors import ConfigurationError, InputError
from .formats import FileSpec, Text, arrow, open_binary, sniff

__all__ = ["Item", "RecordReader", "open_reader"]

BATCH = 8192
"""Records of a Parquet file that are in memory at a time."""


class Item:
    """One record of the input.

    Args:
        number: of the record, from 1.
        line: in which it begins, from 1; 0 where there are no lines.
        key: what to look up, as it stands there.
        raw: its text without the end of the line; `None` where it is no text.
        record: its values: a list (CSV), a dict (JSONL), a batch and the place in it (Parquet).
        fault: why it cannot be used; `None` when it can.
    """

    __slots__ = ("fault", "key", "line", "number", "raw", "record")

    def __init__(self, number: int, line: int, key: object, raw: str | None, record: Any, fault: str | None) -> None:
        self.number = number
        self.line = line
        self.key = key
        self.raw = raw
        self.record = record
        self.fault = fault

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"line {self.line:,}" if self.line else f"row {self.number:,}"


class RecordReader:
    """An open input. Iterate over it once, then close it.

    Args:
        spec: the file.
        key: the column.
    """

    columns: list[str] | None = None
    """The columns, where they are known before the records."""
    total: int | None = None
    """The number of records, where the file says it."""
    schema: Any = None
    """The Arrow schema of a Parquet file."""
    newline = "\n"
    """How the lines end."""
    text = Text()
    """How the characters are written."""

    def __init__(self, spec: FileSpec, key: str) -> None:
        self.spec = spec
        self.key = key

    def __iter__(self) -> Iterator[Item]:
        raise NotImplementedError

    def values(self, item: Item) -> dict[str, Any]:
        """The record as a dict."""
        raise NotImplementedError

    @property
    def fraction(self) -> float | None:
        """How much of the input was read, from 0 to 1; `None` when that cannot be known."""
        return None

    def close(self) -> None:
        """Closes the file."""

    def _broken(self, why: str, line: int) -> InputError:
        return InputError(f"{self.spec.name}, line {line:,}: {why}")


class _TextReader(RecordReader):
    def __init__(self, spec: FileSpec, key: str, encoding: str | None, file: BinaryIO) -> None:
        super().__init__(spec, key)
        self._file = file
        self._size = spec.path.stat().st_size if spec.path is not None and not spec.gzip else 0
        self._read = 0
        head = self._file.read(4)
        while 0 < len(head) < 4 and (more := self._file.read(4 - len(head))):  # a pipe gives what is there
            head += more
        self.text = sniff(head, encoding)
        self._stream = io.BufferedReader(_Joined(head[len(self.text.mark) :], self._file), 2**17)
        self._line = 0

    def _lines(self) -> Iterator[bytes]:
        """The lines, with their ends, without the byte order mark. Counts them."""
        for raw in self._stream:
            self._read += len(raw)
            self._line += 1
            yield raw

    def _strings(self) -> Iterator[str]:
        """The lines as text.

        Raises:
            InputError: one is not written in the encoding.
        """
        codec = self.text.codec
        if self.text.by_bytes:
            for raw in self._lines():
                text = _decoded(raw, codec)
                if text is None:
                    raise self._broken(f"not {codec}; say how the file is written, e.g. latin-1", self._line)
                yield text
            return
        lines = io.TextIOWrapper(self._stream, encoding=codec, newline="\n")
        while True:
            line: str | None
            try:
                line = lines.readline()
            except UnicodeDecodeError:
                line = None
            if line is None:
                raise self._broken(f"not {codec}; say how the file is written", self._line + 1)
            if not line:
                lines.detach()
                return
            self._line += 1
            self._read += 2 * len(line)
            yield line

    @property
    def fraction(self) -> float | None:
        return min(1.0, self._read / self._size) if self._size else None

    def close(self) -> None:
        if self.spec.path is not None:
            self._file.close()


class _Joined(io.RawIOBase):
    """The bytes that were read to look at them, then the rest of the file."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head or self._file.read(len(buffer))
        self._head = piece[len(buffer) :]
        piece = piece[: len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)


def _decoded(raw: bytes, codec: str) -> str | None:
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        return None


class _CsvReader(_TextReader):
    """A header, then a record a row. A row can go over several lines, and keeps its text as it is."""

    def __init__(self, spec: FileSpec, key: str, encoding: str | None, file: BinaryIO) -> None:
        super().__init__(spec, key, encoding, file)
        self._taken: list[str] = []
        self._rows = csv.reader(self._remembered(), delimiter=spec.delimiter, strict=True)
        row, fault = self._next()
        if fault is not None or row is None:
            why = "there is no header line" if fault is None else f"the header is {fault}"
            raise self._broken(why, 1)
        self.columns = row
        self.header = "".join(self._taken).rstrip("\r\n")
        self.newline = "\r\n" if self._taken and self._taken[-1].endswith("\r\n") else "\n"
        twice = sorted({name for name in row if row.count(name) > 1})
        if twice:
            raise self._broken(f"the column {twice[0]!r} is there twice; give each a name of its own", 1)
        if key not in row:
            raise ConfigurationError(f"the input has no column {key!r}; it has {', '.join(row[:50])}")
        self._at = row.index(key)

    def _remembered(self) -> Iterator[str]:
        for line in self._strings():
            self._taken.append(line)
            yield line

    def _next(self) -> tuple[list[str] | None, str | None]:
        """The next row that is not blank, or what is wrong with it; twice `None` at the end."""
        while True:
            self._taken.clear()
            failed = False
            row: list[str] | None = None
            try:
                row = next(self._rows, None)
            except csv.Error:
                failed = True
            if failed:
                begun = self._line - len(self._taken) + 1
                if "".join(self._taken).count('"') % 2 or len("".join(self._taken)) >= csv.field_size_limit():
                    raise self._broken("a quote is opened and not closed, or a field is over 128 KiB", begun)
                return None, "not CSV: a quote stands where none can be"
            if row is None:
                return None, None
            if row:
                return row, None

    def __iter__(self) -> Iterator[Item]:
        width = len(self.columns or ())
        number = 0
        taken = self._taken
        while True:
            row, fault = self._next()
            if row is None and fault is None:
                return
            number += 1
            text = taken[0] if len(taken) == 1 else "".join(taken)
            raw = text.rstrip("\r\n") if text.endswith("\n") else text
            if row is not None:
                if "\0" in raw:
                    fault = "a NUL byte"
                elif len(row) != width:
                    fault = f"{len(row)} fields instead of {width}"
            key = None if row is None or fault is not None else row[self._at] or None
            yield Item(number, self._line - len(taken) + 1, key, raw, row, fault)

    def values(self, item: Item) -> dict[str, Any]:
        return dict(zip(self.columns or (), item.record, strict=True))


class _JsonReader(_TextReader):
    """A JSON object a line. A line keeps its text as it is."""

    def __iter__(self) -> Iterator[Item]:
        number = 0
        raws: list[bytes] = []
        lines: Iterator[str | None] = self._decoding(raws) if self.text.by_bytes else self._strings()
        name = self.key
        for line in lines:
            if line is not None and not line.strip():
                continue
            number += 1
            if line is None:
                shown = raws[-1].decode(self.text.codec, "backslashreplace").strip()
                yield Item(number, self._line, None, shown, None, f"not {self.text.codec}")
                continue
            raw = line.strip()
            try:
                record: Any = json.loads(raw)
            except (ValueError, RecursionError):
                yield Item(number, self._line, None, raw, None, "not JSON")
                continue
            if not isinstance(record, dict):
                yield Item(number, self._line, None, raw, None, "JSON, but no object")
                continue
            found = cast("dict[str, Any]", record)
            yield Item(number, self._line, found.get(name), raw, found, None)

    def _decoding(self, raws: list[bytes]) -> Iterator[str | None]:
        for raw in self._lines():
            raws[:] = [raw]
            yield _decoded(raw, self.text.codec)

    def values(self, item: Item) -> dict[str, Any]:
        found: dict[str, Any] = item.record
        return found


class _ParquetReader(RecordReader):
    """Batches of a Parquet file. Values become Python's only where they are asked for."""

    def __init__(self, spec: FileSpec, key: str, *, whole: bool) -> None:
        super().__init__(spec, key)
        parquet = arrow("pyarrow.parquet")
        failed = False
        try:
            self._file = parquet.ParquetFile(spec.path, pre_buffer=False, buffer_size=2**18)
        except (OSError, ValueError):  # pyarrow's own errors are one or the other
            failed = True
        if failed:
            raise InputError(f"{spec.path}: it is not there, or no Parquet file")
        self.schema = self._file.schema_arrow
        self.columns = list(self.schema.names)
        self.total = self._file.metadata.num_rows
        if key not in self.columns:
            self._file.close()
            raise ConfigurationError(f"the input has no column {key!r}; it has {', '.join(self.columns[:50])}")
        self._wanted = None if whole else [key]
        self._done = 0

    def batches(self, size: int = BATCH) -> Iterator[Any]:
        """Record batches with all columns that were asked for."""
        broken = False
        batches = self._file.iter_batches(batch_size=size, columns=self._wanted)
        while True:
            batch: Any = None
            try:
                batch = next(batches, None)
            except (OSError, ValueError):
                broken = True
            if broken:
                raise InputError(f"{self.spec.path}: damaged after row {self._done:,}")
            if batch is None:
                return
            self._done += batch.num_rows
            yield batch

    def __iter__(self) -> Iterator[Item]:
        number = 0
        for batch in self.batches():
            for place, key in enumerate(batch.column(self.key).to_pylist()):
                number += 1
                yield Item(number, 0, key, None, (batch, place), None)

    def values(self, item: Item) -> dict[str, Any]:
        batch, place = item.record
        found: dict[str, Any] = batch.slice(place, 1).to_pylist()[0]
        return found

    @property
    def fraction(self) -> float | None:
        return self._done / self.total if self.total else None

    @property
    def metadata(self) -> Any:
        """The file's own account of itself."""
        return self._file.metadata

    def close(self) -> None:
        self._file.close()


def open_reader(spec: FileSpec, key: str, *, encoding: str | None = None, whole: bool = True) -> RecordReader:
    """Opens an input.

    Args:
        spec: the file.
        key: the column to look up by.
        encoding: of the text; `None`: what the byte order mark says, else UTF-8.
        whole: `False` reads only the key of a Parquet file.

    Raises:
        InputError: it cannot be read.
        ConfigurationError: it has no such column.
    """
    if spec.format == "parquet":
        return _ParquetReader(spec, key, whole=whole)
    made = _CsvReader if spec.format == "csv" else _JsonReader
    file = open_binary(spec)
    try:
        return made(spec, key, encoding, file)
    except BaseException:
        if spec.path is not None:
            file.close()
        raise
