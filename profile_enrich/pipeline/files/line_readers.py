"""Readers of CSV and JSONL files."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, cast

from ..._utils.strict_json import StrictJsonError, finite, strict_decoder
from ..._utils.text_encoding import CR_ALONE, ends_in_cr
from ...errors import ConfigurationError, InputError
from .formats import FileSpec
from .record_reader import Block, Item, no_column
from .text_reader import TextReader, decoded

__all__ = ["CsvRecordReader", "JsonReader"]


class CsvRecordReader(TextReader):
    """Reader of CSV: a header, then one record per row. A row can span several lines, and keeps its text unchanged."""

    def __init__(self, spec: FileSpec, key: str, encoding: str | None, file: BinaryIO) -> None:
        super().__init__(spec, key, encoding, file)
        self._taken: list[str] = []
        self._chunk: list[str] = []
        self._at_line = 0
        self._number = 0
        self._rows = csv.reader(self._remembered(), delimiter=spec.delimiter, strict=True)
        row, fault = self._next()
        self._check_header(row or [], "".join(self._taken))
        if fault is not None or row is None:
            why = "there is no header line" if fault is None else f"the header is {fault}"
            raise self._broken(why, 1)
        self.columns = row
        self.newline = "\r\n" if self._taken and self._taken[-1].endswith("\r\n") else "\n"
        twice = sorted({name for name in row if row.count(name) > 1})
        if twice:
            raise self._broken(f"the column {twice[0]!r} is there twice; give each a name of its own", 1)
        if key not in row:
            raise ConfigurationError(no_column(spec, key, row))
        self._at = row.index(key)

    def _check_header(self, row: list[str], text: str) -> None:
        """Detect a header that was read with the wrong options."""
        name, body = self.spec.name, text.rstrip("\r\n")
        if ends_in_cr(body):
            raise InputError(f"{name}: {CR_ALONE}")
        if len(row) <= 2 and body.lower().startswith("sep="):
            raise InputError(
                f"{name}, line 1: '{body}' is a note for spreadsheets; remove the line and pass delimiter={body[4:]!r}"
            )

    def _remembered(self) -> Iterator[str]:
        while (line := self._pull()) is not None:
            self._taken.append(line)
            yield line

    def _pull(self) -> str | None:
        """Return the next line; `None` at the end."""
        if self._at_line >= len(self._chunk):
            self._chunk, self._at_line = self._some_strings(), 0
            if not self._chunk:
                return None
        line = self._chunk[self._at_line]
        self._at_line += 1
        self._line += 1
        return line

    def _next(self) -> tuple[list[str] | None, str | None]:
        """Return the next row that is not blank, or its problem; `None` for both at the end."""
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
                if '"' not in "".join(self._taken):
                    return None, "not CSV: a carriage return in a field that is not quoted"
                return None, "not CSV: a quote stands where none can be"
            if row is None:
                return None, None
            if row:
                return row, None

    def __iter__(self) -> Iterator[Item]:
        width, delimiter, at = len(self.columns or ()), self.spec.delimiter, self._at
        longest = csv.field_size_limit()
        taken = self._taken
        while (text := self._pull()) is not None:
            raw = text.rstrip("\r\n")
            if '"' in raw or "\r" in raw or "\0" in raw or len(raw) >= longest:
                self._at_line -= 1  # rows with quotes are parsed by the csv module
                self._line -= 1
                row, fault = self._next()
                if row is None and fault is None:
                    return
                text = taken[0] if len(taken) == 1 else "".join(taken)
                raw = text.rstrip("\r\n") if text.endswith("\n") else text
                first = self._line - len(taken) + 1
            elif raw:
                row, fault, first = raw.split(delimiter), None, self._line
            else:
                continue
            self._number += 1
            if row is not None:
                if "\0" in raw:
                    fault = "a NUL byte"
                elif len(row) != width:
                    fault = f"{len(row)} fields instead of {width}"
            key = None if row is None or fault is not None else row[at] or None
            yield Item(self._number, first, key, raw, row, fault)

    def blocks(self, size: int, skip: int) -> Iterator[Block]:
        """See `RecordReader`."""
        items = iter(self)
        while True:
            wanted = min(size, skip) or size
            block = self._plain_block(wanted) or Block.of(list(itertools.islice(items, wanted)))
            if not block.keys:
                return
            if skip:
                skip -= len(block.keys)
            else:
                yield block

    def _plain_block(self, size: int) -> Block | None:
        """Return the records of the next lines; `None` if one is not a valid record of one line, or none is left."""
        del self._chunk[: self._at_line]
        self._at_line = 0
        while len(self._chunk) < size and (more := self._some_strings()):
            self._chunk += more
        text = "".join(self._chunk[:size]).replace("\r\n", "\n").removesuffix("\n")
        lines = text.split("\n")
        if "\r" in text or "\0" in text or "" in lines or max(map(len, lines)) >= csv.field_size_limit():
            return None
        delimiter, width, place = self.spec.delimiter, len(self.columns or ()), self._at
        keys: list[str | None]
        rows: list[list[str]] | None = None
        if '"' in text:
            try:
                rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
            except csv.Error:
                return None
            if len(rows) != len(lines) or {*map(len, rows)} != {width}:
                return None
            keys = [row[place] for row in rows]
        else:
            if {line.count(delimiter) for line in lines} != {width - 1}:
                return None
            keys = [line.split(delimiter, place + 1)[place] for line in lines]
        number, first = self._number + 1, self._line + 1
        self._number += len(lines)
        self._line += len(lines)
        self._at_line = len(lines)

        def item(at: int) -> Item:
            row = lines[at].split(delimiter) if rows is None else rows[at]
            return Item(number + at, first + at, keys[at] or None, lines[at], row, None)

        return Block(keys, item, lines, rows)

    def values(self, item: Item) -> dict[str, Any]:
        """See `RecordReader`."""
        return dict(zip(self.columns or (), item.record, strict=True))


_FLOAT_DIGITS = 17
"""The most significant digits of a number that was written from a float (IEEE 754, 5.12.2)."""


def _number(text: str) -> float | Decimal:
    """Return a float, or a decimal if the number has more digits than a float has."""
    number = finite(text)
    if len(text) <= _FLOAT_DIGITS or len(Decimal(text).as_tuple().digits) <= _FLOAT_DIGITS:
        return number
    return Decimal(text)


_DECODE = strict_decoder(_number).decode


class JsonReader(TextReader):
    """Reader of JSONL: one JSON object per line. A line keeps its text unchanged."""

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
                record: Any = _DECODE(raw)
            except (ValueError, RecursionError) as error:
                reason = f"not JSON: {error.reason}" if isinstance(error, StrictJsonError) else "not JSON"
                yield Item(number, self._line, None, raw, None, reason)
                continue
            if not isinstance(record, dict):
                yield Item(number, self._line, None, raw, None, "JSON, but no object")
                continue
            found = cast("dict[str, Any]", record)
            yield Item(number, self._line, found.get(name), raw, found, None)

    def _decoding(self, raws: list[bytes]) -> Iterator[str | None]:
        for raw in self._lines():
            raws[:] = [raw]
            yield decoded(raw, self.text.codec)

    def values(self, item: Item) -> dict[str, Any]:
        """See `RecordReader`."""
        found: dict[str, Any] = item.record
        return found
