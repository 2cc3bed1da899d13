"""Rows of a CSV or Parquet file as payloads, made by DuckDB itself: on all cores, while Python only writes them.

The bytes are those that `RowEncoder` makes (a control character may be written with other hexadecimal digits).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from json.encoder import encode_basestring as quote
from typing import Any, Protocol

from ..files.row_encoder import MAX_KEY_BYTES, MAX_RECORD_BYTES, EncodedRow, RowRejected, key_text
from ..index.duckdb_builder import DuckDBPostings, ValueTable
from ..model import MAX_INDEX_FIELDS, CollectionSpec, ColumnType

__all__ = ["BulkReader", "BulkRows", "bulk_rows"]


class BulkReader(ValueTable, Protocol):
    """A reader whose columns DuckDB has as text."""

    @property
    def places(self) -> Mapping[str, str]:
        """SQL for each kept column as text."""
        ...

    @property
    def all_valid(self) -> bool:
        """Whether no row will be refused."""
        ...

    @property
    def total(self) -> int | None:
        """How many rows there are."""
        ...

    def columns(self) -> dict[str, ColumnType]:
        """The columns and their types."""
        ...

    def batches(self, expressions: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """The values of SQL expressions, in the order of the file."""
        ...


_SURELY_SHORT = MAX_KEY_BYTES // 4


def _string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _json(place: str, kind: ColumnType) -> str:
    """SQL for a value as JSON; null when it is null."""
    if kind == "text":
        return f"to_json({place})::VARCHAR"
    return f"lower({place})" if kind == "boolean" else place


def _member(name: str, value: str) -> str:
    return f"{_string(quote(name) + ':')} || {value}"


class BulkRows:
    """Rows as they are stored.

    Args:
        reader: of the file.
        spec: of the collection.
        index_id: of the collection.

    Attributes:
        with_index: whether there is an Amperity view.
    """

    def __init__(self, reader: BulkReader, spec: CollectionSpec, index_id: str) -> None:
        self._reader = reader
        types, places = reader.columns(), reader.places
        shown = list(types) if spec.index_fields is None else list(spec.index_fields)
        self.with_index = len(shown) <= MAX_INDEX_FIELDS
        key = places[spec.key]
        members = [_member(name, f"coalesce({_json(places[name], kind)}, 'null')") for name, kind in types.items()]
        census = f"'{{\"data\":{{' || concat_ws(',', {', '.join(members)}) || '}}}}'"
        amperity = "NULL::BLOB"
        if self.with_index:
            head = f',"index_id":{quote(index_id)},"attributes":{{'
            strings = {
                name: _json(places[name], kind) if kind == "text" else f"'\"' || {_json(places[name], kind)} || '\"'"
                for name, kind in types.items()
                if name in set(shown)
            }
            # `concat_ws` leaves nulls out, as the vendor's attributes, which are strings, do.
            attributes = ", ".join([_member(name, value) for name, value in strings.items()]) or "NULL"
            amperity = (
                f"encode('{{\"id\":' || to_json({key})::VARCHAR || {_string(head)}"
                f" || concat_ws(',', {attributes}) || '}}}}')"
            )
        self._payload = [key, f"encode({census})", amperity]
        self._values = [
            places[name] if types[name] != "boolean" else _json(places[name], "boolean") for name in spec.filterable
        ]

    @property
    def all_valid(self) -> bool:
        """Whether no row will be refused: `plain` and `postings` can then take the place of looking at each."""
        return self._reader.all_valid

    def __iter__(self) -> Iterator[list[tuple[Any, ...]]]:
        return self._reader.batches([*self._payload, *self._values])

    def plain(self) -> Iterator[list[tuple[str, bytes, bytes | None]]]:
        """Key and payloads of each row."""
        return self._reader.batches(self._payload)

    def postings(self) -> DuckDBPostings:
        """The posting lists of all rows. They can be prepared beside `plain`."""
        return DuckDBPostings(self._reader, self._values)


def checked(row: tuple[Any, ...]) -> EncodedRow:
    """One of these rows.

    Raises:
        RowRejected: it cannot be stored.
    """
    key = row[0]
    if not key or len(key) > _SURELY_SHORT:
        key = key_text(key)
    if len(row[1]) > MAX_RECORD_BYTES:
        raise RowRejected(f"it is larger than {MAX_RECORD_BYTES >> 20} MiB")
    return EncodedRow(key, row[1], row[2], row[3:])


def bulk_rows(reader: object, spec: CollectionSpec, index_id: str) -> BulkRows | None:
    """The rows of this reader as payloads, when DuckDB can make them; `None` otherwise."""
    # Rows that are left out are written to a file as they were: only the other way knows how.
    if spec.rejects is not None or not getattr(reader, "places", None):
        return None
    return BulkRows(reader, spec, index_id)  # type: ignore[arg-type]  # it has places  # pyright: ignore
