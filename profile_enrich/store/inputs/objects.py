"""Read iterables of dicts and JSON Lines."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

from ..._utils.strict_json import StrictJsonError, finite, strict_decoder
from ..._utils.text_encoding import INVALID, Text, decoded_lines
from ...errors import StoreError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..files.row_encoder import RowRejected, merge_types, to_json, type_of
from .base import MAX_COLUMNS, UNREADABLE, Row, codec_of, kept_fields, misfit, open_bytes, wrong_encoding
from .rejects import Rejects

__all__ = ["JsonLines", "ObjectReader", "decode_exactly", "mappings"]


class ObjectReader:
    """Reader of rows that are mappings.

    Args:
        spec: the specification, with the fields to keep.
        objects: the rows.
        where: the name of the input, for messages.
        rejects: collects the rejected rows.
        lines: returns the line of the last row, if the input has lines.
        expected: the current types of the collection's columns; a row with a value of another type is rejected.
    """

    def __init__(
        self,
        spec: CollectionSpec,
        objects: Generator[Mapping[str, Any]],
        where: str,
        rejects: Rejects,
        lines: JsonLines | None = None,
        expected: Mapping[str, ColumnType] | None = None,
    ) -> None:
        self._kept = None if spec.fields is None else dict.fromkeys(kept_fields(spec))
        self._objects = objects
        self._types: dict[str, ColumnType | None] = {}
        self._expected = expected or {}
        self._misfit = ""
        self._lines = lines
        self.left_out: set[str] = set()
        self.where = where
        self.rejects = rejects

    @property
    def total(self) -> int | None:
        """The approximate number of rows, if known."""
        return None if self._lines is None else self._lines.total()

    def reject(self, number: int, names: Sequence[str], values: Sequence[object], reason: str) -> None:
        """Reject the row that `rows` returned last."""
        line = None if self._lines is None else self._lines.line
        self.rejects.add(reason, row=number, line=line, data=dict(zip(names, values, strict=True)))

    def columns(self) -> dict[str, ColumnType]:
        """The columns seen so far. A column without values counts as text."""
        return {name: self._expected.get(name, kind or "text") for name, kind in self._types.items()}

    @property
    def untyped(self) -> set[str]:
        """The columns of unknown type, because no row had a value so far."""
        return {name for name, kind in self._types.items() if kind is None and name not in self._expected}

    def rows(self) -> Iterator[Row]:
        """Iterate over the names and values of the rows."""
        types = self._types
        for item in self._objects:
            if self._kept is not None:
                if len(self.left_out) < MAX_COLUMNS:
                    self.left_out.update(item.keys() - self._kept)
                item = {name: item[name] for name in self._kept if name in item}
            self._misfit = next(
                (misfit(name, kind) for name, kind in self._expected.items() if not _fits(item.get(name), kind)), ""
            )
            for name, value in item.items():
                seen, kind = types.get(name), type_of(value)
                if seen != kind or kind is None:
                    types[name] = merge_types(seen, kind)
                    if len(types) > MAX_COLUMNS:
                        raise StoreError(
                            f"{self.where} has more than {MAX_COLUMNS:,} field names; name those to keep in `fields`"
                        )
            yield list(item), list(item.values())

    def texts(self, values: Sequence[object]) -> list[str]:
        """Return the values of a row as JSON.

        Raises:
            RowRejected: a value has another type than its column.
        """
        self._check_types()
        return [to_json(value) for value in values]

    def _check_types(self) -> None:
        if self._misfit:
            raise RowRejected(self._misfit)

    def close(self) -> None:
        """Close the file, if the input is a file."""
        self._objects.close()
        self.rejects.close()


def _fits(value: object, kind: ColumnType) -> bool:
    found = type_of(value)
    return found is None or kind in (found, "json") or (kind == "number" and found == "integer")


def mappings(source: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any]]:
    """Yield the rows of an iterable; raise an error at a row that is not a mapping."""
    for number, item in enumerate(source, 1):
        if not isinstance(item, Mapping):
            raise StoreError(f"row {number:,} is not a mapping but of type {type(item).__name__}")
        yield item


def _number(text: str) -> object:
    return finite(text) if "e" in text or "E" in text else Decimal(text)  # keep the digits of decimals: 12.50


_NOT_OBJECT = "not a JSON object; the format is one object per line"
_NOT_JSON = "not JSON; the format is one JSON object per line"
_DEEP = "nested too deeply"
decode_exactly = strict_decoder(_number).decode
"""Decode JSON; decimals keep their digits."""


class JsonLines:
    """The objects of a JSONL file.

    Args:
        source: the file, or its bytes.
        encoding: the encoding of the text.
        gzipped: for messages about a broken file.
        rejects: collects malformed lines, if it keeps rows; otherwise the first malformed line is an error.
        where: the name of the input, for messages; the path by default.

    Attributes:
        line: the number of the last line read.
    """

    def __init__(
        self, source: Path | IO[bytes], encoding: str, gzipped: bool, rejects: Rejects, where: str | None = None
    ) -> None:
        self._source = source
        self._gzipped = gzipped
        self._where = where or str(source)
        self._encoding = codecs.lookup(encoding).name
        if isinstance(source, Path) and source.is_file():  # a pipe can be read only once
            try:
                self._encoding = codec_of(source, encoding, self._where, gzipped=gzipped)
            except StoreError:
                rejects.close()
                raise
        self.rejects = rejects
        self.line = 0
        self._raw: IO[bytes] | None = None

    def total(self) -> int | None:
        """The approximate number of lines, extrapolated from the lines read so far."""
        if self._raw is None or self._gzipped or not isinstance(self._source, Path) or not self.line:
            return None
        with contextlib.suppress(OSError, ValueError):  # the file is closed
            read = self._raw.tell()
            return self.line * self._source.stat().st_size // read if read else None
        return None

    def objects(self) -> Generator[Mapping[str, Any]]:
        """Iterate over the lines, one mapping each.

        Raises:
            StoreError: a line is malformed, the encoding is wrong, or the file cannot be read to its end.
        """
        source, problem = self._source, ""
        opened = contextlib.nullcontext(source) if not isinstance(source, Path) else self._open(source)
        with opened as raw:
            self._raw = raw
            # UTF-16 cannot be split into lines before it is decoded.
            wide = not Text(self._encoding).by_bytes
            lines: Iterable[bytes | str] = decoded_lines(raw, self._encoding) if wide else raw
            try:
                for self.line, line in enumerate(lines, 1):
                    item = self._decoded(line)
                    if item is not None:
                        yield item
            except UNREADABLE:  # a broken gzip file
                problem = f"{self._where} cannot be {'unpacked' if self._gzipped else 'read'} after line {self.line:,}"
                problem += "; is it whole?"
        if problem:
            raise StoreError(problem)

    def _open(self, path: Path) -> IO[bytes]:
        return open_bytes(path, gzipped=self._gzipped)

    def _decoded(self, line: bytes | str) -> dict[str, Any] | None:
        """Return the line's object; `None` for an empty or rejected line."""
        if isinstance(line, str) and INVALID in line:  # where the next line begins is unknown
            raise StoreError(wrong_encoding(self._where, self.line, self._encoding))
        reason = ""
        try:
            text = line if isinstance(line, str) else line.decode(self._encoding)
            text = text.strip("\ufeff \t\r\n")
            item = decode_exactly(text) if text else None
            if not text or isinstance(item, dict):
                return cast("dict[str, Any] | None", item)
            reason = _NOT_OBJECT
        except UnicodeDecodeError:
            reason = f"not valid {self._encoding.upper()}"
        except RecursionError:
            reason = _DEEP
        except StrictJsonError as error:
            reason = f"not JSON: {error.reason}"
        except ValueError:
            reason = _NOT_JSON
        if self.rejects.kept:
            raw = line if isinstance(line, str) else line.decode(self._encoding, "backslashreplace")
            self.rejects.add(reason, line=self.line, raw=raw.rstrip("\r\n"))
            return None
        if reason.startswith("not valid"):
            raise StoreError(wrong_encoding(self._where, self.line, self._encoding))
        raise StoreError(f"{self._where}, line {self.line:,}: {reason}")
