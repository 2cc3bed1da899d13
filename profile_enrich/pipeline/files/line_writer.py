"""Writing of records with added fields as lines of CSV or JSONL."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from ..._utils.text_encoding import Text
from ...profile import Profile
from ..tables.columns import Columns
from .column_types import cell, json_text
from .formats import FileSpec
from .select_reader import Block, Item, RecordReader

__all__ = ["AddedFields", "Attributes", "Lines", "csv_line", "encoded"]

_SPECIAL = frozenset('"\r\n\0')
"""Characters that quotes may be needed for; with a delimiter in a field, the only ones."""

_ESCAPED = re.compile(r'["\\\x00-\x1f]')
"""The characters that JSON escapes (RFC 8259, 7)."""

_REMEMBERED = 4096
"""Profiles whose columns are kept ready: a file often has many records of one key."""


class AddedFields:
    """The fields that a profile adds to a record.

    Args:
        values: the values by column.
        fault: the reason why they cannot be added.
    """

    __slots__ = ("fault", "source", "tail", "values")

    def __init__(self, values: dict[str, Any], fault: str | None = None) -> None:
        self.values = values
        self.fault = fault
        self.source: object = None
        self.tail: str | None = None
        """As the end of a line, when that does not depend on the record."""


class Attributes:
    """Make the added fields of profiles, and cache the latest ones.

    Args:
        make: returns the columns of a profile's attributes, or of none.
        columns: the columns with declared types, which values must fit.
    """

    def __init__(self, make: Callable[[Mapping[str, Any] | None], dict[str, Any]], columns: Columns | None) -> None:
        self._make = make
        self._columns = columns
        self._ready: dict[int, AddedFields] = {}
        self.missing = AddedFields(make(None))

    def of(self, profile: Profile) -> AddedFields:
        """Return the fields that a profile adds, cached by record."""
        if not profile.found:
            return self.missing
        attributes: Mapping[str, Any] = profile.attributes
        ready = self._ready.get(id(attributes))
        if ready is not None:
            return ready
        if len(self._ready) >= _REMEMBERED:
            self._ready.clear()
        added = self._ready[id(attributes)] = self.of_attributes(attributes)
        added.source = attributes  # keep the object, since ids are reused
        return added

    def of_attributes(self, attributes: Mapping[str, Any]) -> AddedFields:
        """Return the fields that these attributes add."""
        values = self._make(attributes)
        fault = None
        if self._columns is not None:
            _, unfit = self._columns.fill([values])
            if unfit:
                fault = "an attribute does not fit its declared type"
        return AddedFields(values, fault)


def csv_line(cells: list[str], delimiter: str) -> str:
    """Return a line of CSV without its line ending, quoted if necessary."""
    line = delimiter.join(cells)
    if len(cells) > 1 and line.count(delimiter) == len(cells) - 1 and _SPECIAL.isdisjoint(line):
        return line
    buffer = io.StringIO()
    # With another line end, Python < 3.13 leaves a bare \\r unquoted.
    csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()[:-2]


def encoded(line: str, text: Text) -> bytes | None:
    """Encode a line; `None` if a character cannot be encoded."""
    try:
        return line.encode(text.codec)
    except UnicodeEncodeError:
        return None


class Lines:
    """Make lines of records with added fields. Existing columns are not changed.

    Args:
        reader: the reader of the records.
        spec: the output file.
        added: the columns added to a CSV; unused for JSONL.
        clashes: counts existing columns. Modified in place.
    """

    def __init__(self, reader: RecordReader, spec: FileSpec, added: list[str], clashes: dict[str, int]) -> None:
        self._reader = reader
        self._spec = spec
        self._clashes = clashes
        self.text = reader.text
        self._end = reader.newline
        there = set(reader.columns or ())
        self._added = [name for name in added if name not in there]
        self._static = [name for name in added if name in there]
        same = reader.spec.format == spec.format
        self._spliced = same and (spec.format == "jsonl" or reader.spec.delimiter == spec.delimiter)
        self.line: Callable[[Item, AddedFields], bytes | None] = self._json if spec.format == "jsonl" else self._csv
        """Returns the line of one record; `None` when it holds a character that the encoding lacks."""
        # A CSV's records as JSON: the same names each time, and nothing but text.
        self._own = dict.fromkeys(reader.columns or ())
        self._template: str | None = None
        self._quoted = encode_basestring if self.text.universal else encode_basestring_ascii
        if reader.spec.format == "csv" and spec.format == "jsonl":
            names = (self._quoted(name).replace("%", "%%") for name in self._own)
            self._template = "{" + ", ".join(f"{name}: %s" for name in names)
            self._unescaped = self._template.replace(": %s", ': "%s"')

    def header(self) -> bytes:
        """Return the text before the first record."""
        if self._spec.format != "csv":
            return self.text.mark
        line = csv_line([*(self._reader.columns or ()), *self._added], self._spec.delimiter) + self._end
        return self.text.mark + (encoded(line, self.text) or line.encode(self.text.codec, "backslashreplace"))

    def starts(self, block: Block) -> list[str] | None:
        """Return the lines of a block up to the added fields; `None` if each is to be made with `line`."""
        lines, delimiter = block.lines, self._reader.spec.delimiter
        if lines is None or (self._spliced and self._spec.format == "csv"):
            return lines
        rows: Iterable[list[str]] = block.rows or (line.split(delimiter) for line in lines)
        if self._template is None:
            return [csv_line(row, self._spec.delimiter) for row in rows]
        if self.text.universal and _ESCAPED.search("".join(lines)) is None:
            return [self._unescaped % (*row,) for row in rows]
        return [self._template % (*map(self._quoted, row),) for row in rows]

    def tail(self, added: AddedFields) -> str | None:
        """Return the end of a line, which is cached; `None` if it depends on the record."""
        if added.tail is None:
            if self._spec.format == "csv":
                values = map(added.values.get, self._added)
                cells = [value if type(value) is str else cell(value) for value in values]
                # Its own line, after a first field: a line of nothing but one empty field would be quoted.
                added.tail = (csv_line(["", *cells], self._spec.delimiter) if cells else "") + self._end
            elif self._own.keys().isdisjoint(added.values):
                added.tail = self._json_tail(added.values)
        return added.tail

    def _json_tail(self, values: dict[str, Any]) -> str:
        return ", " * bool(values) + json_text(values, ascii_only=not self.text.universal)[1:] + self._end

    def clash(self, records: int) -> None:
        """Count the existing columns of this many records in a CSV."""
        for name in self._static:
            self._clashes[name] = self._clashes.get(name, 0) + records

    def _json(self, item: Item, added: AddedFields) -> bytes | None:
        values = added.values
        own: Mapping[str, Any] = (
            self._own if self._template is not None else item.record if self._spliced else self._reader.values(item)
        )
        if own.keys().isdisjoint(values):
            tail = self.tail(added) or ""
        else:
            for name in values.keys() & own.keys():
                self._clashes[name] = self._clashes.get(name, 0) + 1
            tail = self._json_tail({name: value for name, value in values.items() if name not in own})
        if self._spliced and item.raw is not None:
            # Its own text, so that numbers, escapes and order stay as they are.
            body = item.raw[:-1].rstrip()
        elif self._template is not None:
            body = self._template % tuple(map(self._quoted, item.record))
        else:
            body = json_text(own, ascii_only=not self.text.universal)[:-1]
        return encoded(body + (tail if own else tail.removeprefix(", ")), self.text)

    def _csv(self, item: Item, added: AddedFields) -> bytes | None:
        self.clash(1)
        if self._spliced and item.raw is not None:
            start = item.raw
        else:
            start = csv_line([cell(value) for value in self._reader.values(item).values()], self._spec.delimiter)
        return encoded(start + (self.tail(added) or ""), self.text)
