"""Reads the user's data: iterables of dicts, JSONL here; CSV and Parquet in `tables`."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Protocol, cast

from ..errors import ConfigurationError, StoreError
from .encode import merge_types, to_json, type_of
from .model import CollectionSpec, ColumnType

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
        ConfigurationError: the file's suffix says nothing.
        StoreError: there is no such file, or it lacks a column.
        MissingExtraError: CSV and Parquet need the extra `server`.
    """
    source = spec.source
    if not isinstance(source, str | Path):
        if isinstance(source, Mapping) or not isinstance(source, Iterable):
            raise ConfigurationError("the source of a collection is a path or an iterable of dicts")
        return ObjectReader(spec, _objects(source), f"the source of {spec.name!r}")
    path = Path(source)
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    gzipped = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if gzipped else suffixes)[-1:]
    if not path.is_file():
        raise StoreError(f"{path} is not there" if not path.exists() else f"{path} is not a file")
    if kind in ([".csv"], [".tsv"]) or (kind in ([".parquet"], [".pq"]) and not gzipped):
        from .tables import CsvReader, ParquetReader  # DuckDB, only when it is needed

        return CsvReader(spec, path) if kind in ([".csv"], [".tsv"]) else ParquetReader(spec, path)
    if kind in ([".jsonl"], [".ndjson"]):
        return ObjectReader(spec, _json_lines(path, spec.encoding, gzipped), str(path))
    raise ConfigurationError(
        f"{path.name}: its suffix does not say what it is; .csv, .tsv, .jsonl, .ndjson (also .gz) and .parquet are read"
    )


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
                raise StoreError(f"{where} has no column {column!r} ({argument}); its columns are: {shown or 'none'}")


class ObjectReader:
    """Rows that each bring their own names.

    Args:
        spec: which fields to keep.
        objects: the rows.
        where: the source, for messages.
    """

    def __init__(self, spec: CollectionSpec, objects: Generator[Mapping[str, Any]], where: str) -> None:
        self._kept = None if spec.fields is None else kept_fields(spec)
        self._objects = objects
        self._types: dict[str, ColumnType | None] = {}
        self.where = where
        self.total: int | None = None

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


def kept_fields(spec: CollectionSpec) -> list[str]:
    """The fields to keep: those asked for, with the key."""
    fields = list(spec.fields or ())
    return fields if spec.key in fields else [spec.key, *fields]


def _objects(source: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any]]:
    for number, item in enumerate(source, 1):
        if not isinstance(item, Mapping):
            raise StoreError(f"row {number:,} is not a mapping but of type {type(item).__name__}")
        yield item


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked.

    Raises:
        StoreError: it cannot be opened.
    """
    try:
        return cast("IO[bytes]", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as error:
        problem = error.strerror
    raise StoreError(f"{path} cannot be read: {problem}")


def _number(text: str) -> object:
    return float(text) if "e" in text or "E" in text else Decimal(text)  # a decimal keeps its digits: 12.50


def _json_lines(path: Path, encoding: str, gzipped: bool) -> Generator[Mapping[str, Any]]:
    decode = json.JSONDecoder(parse_float=_number, parse_constant=lambda _: None).decode
    number = 0
    problem = ""
    with open_bytes(path) as raw:
        # UTF-16 cannot be split into lines before it is decoded.
        lines: IO[Any] = io.TextIOWrapper(raw, encoding=encoding, newline="\n") if encoding == "utf-16" else raw
        try:
            for number, line in enumerate(lines, 1):
                text: str = line if isinstance(line, str) else line.decode(encoding)
                text = text.strip("\ufeff \t\r\n")
                if not text:
                    continue
                item = decode(text)
                if not isinstance(item, dict):
                    problem = f"{path}, line {number:,}: not a JSON object; one object a line is read"
                    break
                yield cast("dict[str, Any]", item)
        except UnicodeDecodeError:
            problem = wrong_encoding(path, number + (encoding == "utf-16"), encoding)
        except RecursionError:
            problem = f"{path}, line {number:,}: nested too deeply"
        except ValueError:
            problem = f"{path}, line {number:,}: not JSON; one JSON object a line is read"
        except (OSError, EOFError):  # a broken gzip file
            problem = f"{path} cannot be unpacked after line {number:,}; is it whole?"
    if problem:
        raise StoreError(problem)


def wrong_encoding(path: Path, line: int, encoding: str) -> str:
    """What to say about a file that is not in its encoding."""
    return (
        f"{path}, line {line:,}: not valid {encoding.upper()}; say encoding='latin-1' or 'utf-16' if it is that,"
        " or convert the file to UTF-8"
    )
