"""`RecordReader`: the base of the readers of input files."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from ..._utils.text_encoding import Text
from ...errors import InputError
from .formats import FileSpec

__all__ = ["Block", "Item", "RecordReader", "no_column"]


class Item:
    """One record of the input.

    Args:
        number: the number of the record, from 1.
        line: its first line, from 1; 0 without lines.
        key: the raw key.
        raw: its text without the line ending; `None` if it is not text.
        record: its values: a list (CSV), a dict (JSONL), or a batch and a position in it (Parquet).
        fault: why it is invalid; `None` if valid.
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
        """Return its position, for messages."""
        return f"line {self.line:,}" if self.line else f"row {self.number:,}"


class Block:
    """Consecutive records.

    Args:
        keys: their keys as text; `None` or empty for a record without a usable key.
        item: returns the record at a position.
        lines: the records' own lines without line endings, if each record is one line of a CSV file and valid.
        rows: the fields of these lines, if one has a quote.
    """

    __slots__ = ("item", "keys", "lines", "rows")

    def __init__(
        self,
        keys: list[str | None],
        item: Callable[[int], Item],
        lines: list[str] | None = None,
        rows: list[list[str]] | None = None,
    ) -> None:
        self.keys = keys
        self.item = item
        self.lines = lines
        self.rows = rows

    @classmethod
    def of(cls, items: list[Item]) -> Block:
        """Return the block of these records. Their whole numbers as keys become text."""
        for item in items:
            if type(item.key) is int:
                item.key = str(item.key)
        return cls([item.key if type(item.key) is str else None for item in items], items.__getitem__)


class RecordReader:
    """An open input. Iterate over it once, or over its blocks, then close it.

    Args:
        spec: the file.
        key: the column.
    """

    columns: list[str] | None = None
    """The columns, where they are known before the records."""
    total: int | None = None
    """The number of records, if the file's metadata has it."""
    schema: Any = None
    """The Arrow schema of a Parquet file."""
    newline = "\n"
    """How the lines end."""
    text = Text()
    """How the characters are written."""

    def __init__(self, spec: FileSpec, key: str) -> None:
        self.spec = spec
        self.key = key
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """A digest of the input read so far; after all records, it is equal for two readers of one file."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Item]:
        raise NotImplementedError

    def blocks(self, size: int, skip: int) -> Iterator[Block]:
        """Yield the records in blocks.

        Args:
            size: the largest number of records in a block.
            skip: the number of records to leave out at the beginning.
        """
        items = itertools.islice(iter(self), skip, None)
        while some := list(itertools.islice(items, size)):
            yield Block.of(some)

    def values(self, item: Item) -> dict[str, Any]:
        """Return the record as a dict."""
        raise NotImplementedError

    @property
    def fraction(self) -> float | None:
        """The part of the input read so far, from 0 to 1; `None` if unknown."""
        return None

    def close(self) -> None:
        """Close the file."""

    def _broken(self, why: str, line: int) -> InputError:
        return InputError(f"{self.spec.name}, line {line:,}: {why}")


def no_column(spec: FileSpec, key: str, columns: list[str]) -> str:
    """Return the error message for a missing column, with the likely reason."""
    listed = ", ".join(columns[:50]) + (", …" if len(columns) > 50 else "")
    if len(columns) == 1 and spec.format == "csv":
        inside = next((each for each in ";\t|, " if each != spec.delimiter and each in columns[0]), None)
        if inside is not None:
            return (
                f"{spec.name}: read with the delimiter {spec.delimiter!r}, it has one column. Are its fields separated "
                f"by {inside!r}? Then pass delimiter={inside!r}"
            )
    alike = [name for name in columns if name.strip().lower() == key.strip().lower()]
    hint = f"; did you mean {alike[0]!r}?" if alike else ""
    return f"{spec.name} has no column {key!r}{hint}; it has {len(columns):,}: {listed}"
