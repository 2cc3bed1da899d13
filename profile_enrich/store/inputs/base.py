"""The `InputReader` protocol, and formats, limits, decompression and encodings of all readers."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, Protocol, cast

from ..._utils.file_identity import FileIdentity
from ..._utils.text_encoding import sniff, why_not_text
from ...errors import ConfigurationError, InputError, StoreError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..input_types import Format
from .rejects import Rejects

__all__ = [
    "DAMAGED",
    "MAX_COLUMNS",
    "UNREADABLE",
    "InputReader",
    "Row",
    "check_columns",
    "codec_of",
    "kept_fields",
    "kind_of",
    "misfit",
    "open_bytes",
    "unchanged",
    "wrong_encoding",
]

DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
"""The exceptions of decompressing a damaged file."""

UNREADABLE = (OSError, *DAMAGED)
"""The exceptions of reading a damaged file, compressed or not."""

MAX_COLUMNS = 2000
"""The largest number of columns; more are probably values used as names."""


Row = tuple[Sequence[str], Sequence[object]]


class InputReader(Protocol):
    """Reader of one input's rows, in order."""

    @property
    def left_out(self) -> AbstractSet[str]:
        """The columns that are not kept; complete after the last row."""
        ...

    @property
    def where(self) -> str:
        """The name of the input, for messages."""
        ...

    @property
    def total(self) -> int | None:
        """The number of rows, if known in advance."""
        ...

    @property
    def rejects(self) -> Rejects:
        """The rows rejected so far."""
        ...

    def reject(self, number: int, names: Sequence[str], values: Sequence[object], reason: str) -> None:
        """Reject the row that `rows` returned last; `number` counts from 1."""
        ...

    def columns(self) -> dict[str, ColumnType]:
        """The columns and their types; complete after the last row."""
        ...

    def rows(self) -> Iterator[Row]:
        """Iterate over the names and values of the rows."""
        ...

    def texts(self, values: Sequence[object]) -> list[str]:
        """Return the values of a row as JSON."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def kind_of(path: Path, said: Format | None) -> tuple[Format, bool]:
    """Return the format of a file, as specified or by its suffix, and whether it is gzipped.

    Raises:
        ConfigurationError: no format is specified, and the suffix is unknown.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    gzipped = suffixes[-1:] == [".gz"]
    kind = said or _SUFFIXES.get("".join((suffixes[:-1] if gzipped else suffixes)[-1:]))
    if kind is None or (kind == "parquet" and gzipped):
        raise ConfigurationError(
            f"{path.name}: its suffix does not say what it is; .csv, .tsv, .jsonl, .ndjson (also .gz) and .parquet are"
            " read; or pass format='csv' (or tsv, jsonl, parquet)"
        )
    return kind, gzipped


def check_columns(spec: CollectionSpec, names: Iterable[str], where: str) -> None:
    """Check that the columns named in a specification exist.

    Raises:
        StoreError: a column is missing; the message lists the existing ones.
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
                hint = "; name the one that identifies a record: key, or --id" if argument == "key" else ""
                role = ", a field of the collection" if argument == "fields" else f" ({argument})"
                raise StoreError(f"{where} has no column {column!r}{role}; its columns are: {shown or 'none'}{hint}")


def misfit(column: str, kind: ColumnType) -> str:
    """Return the reason for rejecting a value of the wrong type."""
    return f"the value of {column!r} does not fit the column's type, {kind}"


def kept_fields(spec: CollectionSpec) -> list[str]:
    """Return the fields to keep: the requested ones and the key."""
    fields = list(spec.fields or ())
    return fields if spec.key in fields else [spec.key, *fields]


@contextlib.contextmanager
def unchanged(source: object) -> Generator[None]:
    """Check at the end of the `with` block that a file is still the one that it was at its beginning, byte for byte.

    The database engine that reads a table several times does not show which bytes it reads.

    Raises:
        StoreError: it was replaced, written to or removed.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    identity: FileIdentity | None = None
    with contextlib.suppress(InputError):  # the reader reports an unreadable file
        identity = None if path is None or not path.is_file() else FileIdentity.of(path, whole=True)
    yield
    problem = ""
    try:
        if identity is not None and path is not None:
            identity.check(path)
    except InputError as error:
        problem = error.message
    if problem:
        raise StoreError(problem)


def open_bytes(path: Path, *, gzipped: bool) -> IO[bytes]:
    """Open a file, decompressed.

    Raises:
        StoreError: the file cannot be opened.
    """
    try:
        return cast("IO[bytes]", gzip.open(path)) if gzipped else path.open("rb")
    except OSError as error:
        problem = error.strerror
    raise StoreError(f"{path} cannot be read: {problem}")


def codec_of(path: Path, encoding: str, where: str, *, gzipped: bool) -> str:
    """Return Python's name of a text file's encoding: as said, unless it begins with another byte order mark.

    Raises:
        ConfigurationError: there is no such encoding.
        StoreError: the file cannot be read, or holds UTF-16 that does not say so.
    """
    head, problem = b"", ""
    try:
        with open_bytes(path, gzipped=gzipped) as file:
            head = file.read(4)
    except UNREADABLE:
        problem = f"{where} cannot be {'unpacked; is it whole?' if gzipped else 'read'}"
    if problem:
        raise StoreError(problem)
    text = sniff(head, None if encoding == "utf-8" else encoding)
    if reason := why_not_text(head, text):
        raise StoreError(f"{where}: {reason}")
    return text.codec


def wrong_encoding(where: str | Path, line: int, codec: str) -> str:
    """Return what to say about a file that is not in its encoding."""
    return (
        f"{where}, line {line:,}: not valid {codec.upper()}; pass encoding='cp1252' (Windows), 'latin-1' or 'utf-16' if"
        " it is that, or convert the file to UTF-8"
    )
