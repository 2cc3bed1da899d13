"""Reads the data: iterables of dicts and JSONL here; CSV in `tables`, Parquet in `parquet`, databases in `sql`."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Protocol, cast

from ...errors import ConfigurationError, StoreError
from ..files.row_encoder import merge_types, to_json, type_of
from ..model import CollectionSpec, ColumnType
from .input_types import FORMATS, Format, SqlQuery, Stream
from .rejects import Rejects

__all__ = ["Reader", "check_columns", "open_reader"]

MAX_COLUMNS = 2000
"""More columns than this are data that became names."""

Row = tuple[Sequence[str], Sequence[object]]


class Reader(Protocol):
    """Rows of one source, in its order."""

    @property
    def where(self) -> str:
        """The source, for messages."""
        ...

    @property
    def total(self) -> int | None:
        """How many rows there are, where that is known beforehand."""
        ...

    @property
    def rejects(self) -> Rejects:
        """The rows that were left out, so far."""
        ...

    def reject(self, number: int, names: Sequence[str], values: Sequence[object], reason: str) -> None:
        """Leaves out the row that `rows` gave last; `number` counts from 1."""
        ...

    def columns(self) -> dict[str, ColumnType]:
        """The columns and their types; complete once all rows were read."""
        ...

    def rows(self) -> Iterator[Row]:
        """Names and values of each row."""
        ...

    def texts(self, values: Sequence[object]) -> list[str]:
        """The values of a row as JSON."""
        ...

    def close(self) -> None:
        """Frees what was opened."""
        ...


def open_reader(spec: CollectionSpec) -> Reader:
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
        return ObjectReader(spec, _objects(source), where, Rejects(spec.rejects, where))
    path = Path(source)
    if not path.is_file():
        raise StoreError(f"{path} is not there" if not path.exists() else f"{path} is not a file")
    kind, gzipped = kind_of(path, spec.format)
    if kind == "jsonl":
        lines = JsonLines(path, spec.encoding, gzipped, Rejects(spec.rejects, str(path)))
        return ObjectReader(spec, lines.objects(), str(path), lines.rejects, lines)
    return open_table(spec, path, kind, str(path))


def open_table(spec: CollectionSpec, path: Path, kind: Format, where: str) -> Reader:
    """The reader of a CSV or Parquet file; `where` names it in messages."""
    from .csv import CsvReader
    from .parquet import ParquetReader  # DuckDB, only when it is needed

    return ParquetReader(spec, path, where) if kind == "parquet" else CsvReader(spec, path, kind, where)


_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def kind_of(path: Path, said: Format | None) -> tuple[Format, bool]:
    """How a file is written, by what is said of it or else by its suffix; and whether it is packed with gzip.

    Raises:
        ConfigurationError: nothing is said and the suffix says nothing.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    gzipped = suffixes[-1:] == [".gz"]
    kind = said or _SUFFIXES.get("".join((suffixes[:-1] if gzipped else suffixes)[-1:]))
    if kind is None or (kind == "parquet" and gzipped):
        raise ConfigurationError(
            f"{path.name}: its suffix does not say what it is; .csv, .tsv, .jsonl, .ndjson (also .gz) and .parquet are"
            " read; or say its format"
        )
    return kind, gzipped


def check_columns(spec: CollectionSpec, names: Iterable[str], where: str) -> None:
    """That the columns which a specification speaks of are there.

    Raises:
        StoreError: one is not; it lists those that are.
    """
    there = list(names)
    known = set(there)
    shown = ", ".join(there[:50]) + (f" and {len(there) - 50} more" if len(there) > 50 else "")
    asked = {
        "key": [spec.key],
        "fields": list(spec.fields or ()),
        "filterable": list(spec.filterable),
        "index_fields": list(spec.index_fields or ()),
        "types": list(spec.types),
    }
    for argument, columns in asked.items():
        for column in columns:
            if column not in known:
                hint = "; say which one identifies a record: key, or --id" if argument == "key" else ""
                raise StoreError(
                    f"{where} has no column {column!r} ({argument}); its columns are: {shown or 'none'}{hint}"
                )


class ObjectReader:
    """Rows that each bring their own names.

    Args:
        spec: which fields to keep.
        objects: the rows.
        where: the source, for messages.
        rejects: takes the rows that are left out.
        lines: says on which line the last row is, if the source has lines.
    """

    def __init__(
        self,
        spec: CollectionSpec,
        objects: Generator[Mapping[str, Any]],
        where: str,
        rejects: Rejects,
        lines: JsonLines | None = None,
    ) -> None:
        self._kept = None if spec.fields is None else kept_fields(spec)
        self._objects = objects
        self._types: dict[str, ColumnType | None] = {}
        self._lines = lines
        self.where = where
        self.rejects = rejects

    @property
    def total(self) -> int | None:
        """About how many rows there are, as far as that can be told."""
        return None if self._lines is None else self._lines.total()

    def reject(self, number: int, names: Sequence[str], values: Sequence[object], reason: str) -> None:
        """Leaves out the row that `rows` gave last."""
        line = None if self._lines is None else self._lines.line
        self.rejects.add(reason, row=number, line=line, data=dict(zip(names, values, strict=True)))

    def columns(self) -> dict[str, ColumnType]:
        """The columns seen so far. One that is null in every row counts as text."""
        return {name: kind or "text" for name, kind in self._types.items()}

    def rows(self) -> Iterator[Row]:
        """Names and values of each row."""
        types = self._types
        for item in self._objects:
            if self._kept is not None:
                item = {name: item[name] for name in self._kept if name in item}
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
        """The values of a row as JSON."""
        return [to_json(value) for value in values]

    def close(self) -> None:
        """Closes the file, if it is one."""
        self._objects.close()
        self.rejects.close()


def kept_fields(spec: CollectionSpec) -> list[str]:
    """The fields to keep: those asked for, with the key."""
    fields = list(spec.fields or ())
    return fields if spec.key in fields else [spec.key, *fields]


def _objects(source: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any]]:
    for number, item in enumerate(source, 1):
        if not isinstance(item, Mapping):
            raise StoreError(f"row {number:,} is not a mapping but of type {type(item).__name__}")
        yield item


def open_bytes(path: Path, *, gzipped: bool) -> IO[bytes]:
    """The file's bytes, unpacked.

    Raises:
        StoreError: it cannot be opened.
    """
    try:
        return cast("IO[bytes]", gzip.open(path)) if gzipped else path.open("rb")
    except OSError as error:
        problem = error.strerror
    raise StoreError(f"{path} cannot be read: {problem}")


def _number(text: str) -> object:
    return float(text) if "e" in text or "E" in text else Decimal(text)  # a decimal keeps its digits: 12.50


_NOT_OBJECT = "not a JSON object; one object a line is read"
_NOT_JSON = "not JSON; one JSON object a line is read"
_DEEP = "nested too deeply"


class JsonLines:
    """The objects of a JSONL file.

    Args:
        source: the file, or its bytes.
        encoding: of the text.
        gzipped: for messages about a broken file.
        rejects: where it keeps rows, it takes the broken lines; else the first one ends the reading.
        where: the source, for messages; the path by default.

    Attributes:
        line: the number of the last line that was read.
    """

    def __init__(
        self, source: Path | IO[bytes], encoding: str, gzipped: bool, rejects: Rejects, where: str | None = None
    ) -> None:
        self._source = source
        self._encoding = encoding
        self._gzipped = gzipped
        self._where = where or str(source)
        self.rejects = rejects
        self.line = 0
        self._raw: IO[bytes] | None = None

    def total(self) -> int | None:
        """About how many lines there are, from how much of the file those that were read take up."""
        if self._raw is None or self._gzipped or not isinstance(self._source, Path) or not self.line:
            return None
        with contextlib.suppress(OSError, ValueError):  # it is closed
            read = self._raw.tell()
            return self.line * self._source.stat().st_size // read if read else None
        return None

    def objects(self) -> Generator[Mapping[str, Any]]:
        """One mapping a line.

        Raises:
            StoreError: a line is broken, the encoding is wrong, or the file cannot be read to its end.
        """
        source, problem = self._source, ""
        opened = contextlib.nullcontext(source) if not isinstance(source, Path) else self._open(source)
        with opened as raw:
            self._raw = raw
            # UTF-16 cannot be split into lines before it is decoded.
            wide = self._encoding == "utf-16"
            lines: IO[Any] = io.TextIOWrapper(raw, encoding=self._encoding, newline="\n") if wide else raw
            try:
                for self.line, line in enumerate(lines, 1):
                    item = self._decoded(line)
                    if item is not None:
                        yield item
            except UnicodeDecodeError:  # UTF-16 alone: the others are decoded line by line
                self.line += 1
                problem = wrong_encoding(self._where, self.line, self._encoding)
            except (OSError, EOFError):  # a broken gzip file
                problem = f"{self._where} cannot be {'unpacked' if self._gzipped else 'read'} after line {self.line:,}"
                problem += "; is it whole?"
        if problem:
            raise StoreError(problem)

    def _open(self, path: Path) -> IO[bytes]:
        return open_bytes(path, gzipped=self._gzipped)

    def _decoded(self, line: bytes | str) -> dict[str, Any] | None:
        """The line's object; `None` for an empty line and for one that was left out."""
        reason = ""
        try:
            text = line if isinstance(line, str) else line.decode(self._encoding)
            text = text.strip("\ufeff \t\r\n")
            item = _DECODE(text) if text else None
            if not text or isinstance(item, dict):
                return cast("dict[str, Any] | None", item)
            reason = _NOT_OBJECT
        except UnicodeDecodeError:
            reason = f"not valid {self._encoding.upper()}"
        except RecursionError:
            reason = _DEEP
        except ValueError:
            reason = _NOT_JSON
        if self.rejects.kept:
            raw = line if isinstance(line, str) else line.decode(self._encoding, "backslashreplace")
            self.rejects.add(reason, line=self.line, raw=raw.rstrip("\r\n"))
            return None
        if reason.startswith("not valid"):
            raise StoreError(wrong_encoding(self._where, self.line, self._encoding))
        raise StoreError(f"{self._where}, line {self.line:,}: {reason}")


_DECODE = json.JSONDecoder(parse_float=_number, parse_constant=lambda _: None).decode


def wrong_encoding(where: str | Path, line: int, encoding: str) -> str:
    """What to say about a file that is not in its encoding."""
    return (
        f"{where}, line {line:,}: not valid {encoding.upper()}; say encoding='latin-1' or 'utf-16' (--encoding) if it"
        " is that, or convert the file to UTF-8"
    )
