"""Payloads of a CSV or Parquet file, encoded by DuckDB on all cores while Python writes them.

The bytes equal those of `RowEncoder`, except for the case of hexadecimal digits in escapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from json.encoder import encode_basestring as quote
from typing import Any, Protocol

from ..collection import ColumnType
from ..collection_specs import MAX_INDEX_FIELDS, CollectionSpec
from ..files.row_encoder import MAX_KEY_BYTES, MAX_RECORD_BYTES, EncodedRow, RowRejected, key_text
from ..index.duckdb_builder import DuckDBPostings, ValueTable

__all__ = ["BulkReader", "BulkRows", "bulk_rows"]


class BulkReader(ValueTable, Protocol):
    """A reader whose columns DuckDB can read as text."""

    @property
    def places(self) -> Mapping[str, str]:
        """SQL for each kept column as text."""
        ...

    @property
    def all_valid(self) -> bool:
        """Whether no row will be rejected."""
        ...

    @property
    def total(self) -> int | None:
        """The number of rows."""
        ...

    def columns(self) -> dict[str, ColumnType]:
        """The columns and their types."""
        ...

    def batches(self, expressions: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """Iterate over the values of SQL expressions, in file order."""
        ...


_SURELY_SHORT = MAX_KEY_BYTES // 4


def _string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _json(place: str, kind: ColumnType) -> str:
    """Return SQL for a value as JSON; null for null."""
    if kind == "text":
        return f"to_json({place})::VARCHAR"
    return f"lower({place})" if kind == "boolean" else place


def _member(name: str, value: str) -> str:
    return f"{_string(quote(name) + ':')} || {value}"


class BulkRows:
    """The encoded rows of a reader.

    Args:
        reader: the reader of the file.
        spec: the specification of the collection.
        index_id: the index id of the collection.

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
            # `concat_ws` omits nulls, and so do the vendor's attributes.
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
        """Whether no row will be rejected, so that `plain` and `postings` can be used instead of `checked`."""
        return self._reader.all_valid

    def __iter__(self) -> Iterator[list[tuple[Any, ...]]]:
        return self._reader.batches([*self._payload, *self._values])

    def plain(self) -> Iterator[list[tuple[str, bytes, bytes | None]]]:
        """Iterate over the keys and payloads of the rows."""
        return self._reader.batches(self._payload)

    def postings(self) -> DuckDBPostings:
        """Return the posting lists of all rows. They can be prepared in parallel to `plain`."""
        return DuckDBPostings(self._reader, self._values)


def checked(row: tuple[Any, ...]) -> EncodedRow:
    """Check and return one of these rows.

    Raises:
        RowRejected: the row cannot be stored.
    """
    key = row[0]
    if not key or len(key) > _SURELY_SHORT:
        key = key_text(key)
    if len(row[1]) > MAX_RECORD_BYTES:
        raise RowRejected(f"it is larger than {MAX_RECORD_BYTES >> 20} MiB")
    return EncodedRow(key, row[1], row[2], row[3:])


def bulk_rows(reader: object, spec: CollectionSpec, index_id: str) -> BulkRows | None:
    """Return the rows of this reader as payloads; `None` if DuckDB cannot encode them."""
    # Only the row-by-row path can write rejected rows to a file.
    if spec.rejects is not None or not getattr(reader, "places", None):
        return None
    return BulkRows(reader, spec, index_id)  # type: ignore[arg-type]  # pyright: ignore  # it has places
