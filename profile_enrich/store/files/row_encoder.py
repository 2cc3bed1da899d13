"""Encoding of a row as the response bodies of the embedded Profile API, in both dialects."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from json.encoder import encode_basestring as quote
from typing import Any, NamedTuple, cast
from uuid import UUID

from ..collection import ColumnType

__all__ = [
    "MAX_KEY_BYTES",
    "MAX_RECORD_BYTES",
    "EncodedRow",
    "RowEncoder",
    "RowRejected",
    "key_text",
    "stored_values",
    "to_json",
]

MAX_KEY_BYTES = 2048
"""The longest key in bytes of UTF-8, as for the client's keys."""

MAX_RECORD_BYTES = 1 << 20
"""The largest record, in bytes of JSON."""


class RowRejected(Exception):
    """The row cannot be stored. `reason` holds no values, so it can be shown in a report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EncodedRow(NamedTuple):
    """An encoded row.

    Attributes:
        key: the key as text.
        census: `{"data":{…}}`.
        amperity: `{"id":…,"index_id":…,"attributes":{…}}`, or `None` without an Amperity view.
        values: the values of the filterable columns as text; `None` for null.
    """

    key: str
    census: bytes
    amperity: bytes | None
    values: tuple[str | None, ...]


def _of_float(value: float) -> str:
    return repr(value) if math.isfinite(value) else "null"  # JSON has no NaN and no infinity


def _of_decimal(value: Decimal) -> str:
    return format(value, "f") if value.is_finite() else "null"


def _of_time(value: dt.datetime | dt.date | dt.time) -> str:
    return f'"{value.isoformat()}"'


def _of_datetime(value: dt.datetime) -> str:
    return f'"{value.isoformat(sep=" ")}"'  # 2018-01-14 15:53:16, as Census shows it


def _of_bytes(value: bytes | bytearray) -> str:
    return f'"{base64.b64encode(value).decode()}"'


def _of_sequence(value: Iterable[object]) -> str:
    return f"[{','.join([to_json(item) for item in value])}]"


def _of_mapping(value: Mapping[object, object]) -> str:
    return f"{{{','.join([f'{quote(str(name))}:{to_json(item)}' for name, item in value.items()])}}}"


_ENCODERS: dict[type, Callable[[Any], str]] = {
    str: quote,
    int: int.__repr__,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    float: _of_float,
    Decimal: _of_decimal,
    dt.datetime: _of_datetime,
    dt.date: _of_time,
    dt.time: _of_time,
    dt.timedelta: lambda value: f'"{value}"',
    UUID: lambda value: f'"{value}"',
    bytes: _of_bytes,
    bytearray: _of_bytes,
    list: _of_sequence,
    tuple: _of_sequence,
    set: _of_sequence,
    frozenset: _of_sequence,
    dict: _of_mapping,
}


def to_json(value: object) -> str:
    """Encode a value as JSON with its own type. Dates become text (`2018-01-14 15:53:16`), decimals keep their digits.

    Raises:
        RowRejected: JSON cannot represent it.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    # A subclass (IntEnum, pandas Timestamp) or another mapping type.
    if isinstance(value, Mapping):
        return _of_mapping(cast("Mapping[object, object]", value))
    for kind, of in _ENCODERS.items():
        if isinstance(value, kind):
            return of(value)
    raise RowRejected(f"a value is of type {type(value).__name__}, which JSON does not have")


def type_of(value: object) -> ColumnType | None:
    """Return the column type of a value; `None` for null."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float | Decimal):
        return "number"
    return "json" if isinstance(value, Mapping | list | tuple | set | frozenset) else "text"


def merge_types(one: ColumnType | None, other: ColumnType | None) -> ColumnType | None:
    """Return the type of a column with values of both types."""
    if one is None or other is None or one == other:
        return one or other
    return "number" if {one, other} == {"integer", "number"} else "json"


def key_text(value: object) -> str:
    """Convert a key to text.

    Raises:
        RowRejected: the key is missing, empty, too long, or neither text nor an integer.
    """
    if value is None or value == "":
        raise RowRejected("the key is missing or empty")
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        text = int.__repr__(value)
    elif isinstance(value, UUID):
        text = str(value)
    else:
        raise RowRejected("the key is neither text nor an integer")
    if len(text) * 4 > MAX_KEY_BYTES and len(text.encode(errors="surrogatepass")) > MAX_KEY_BYTES:
        raise RowRejected(f"the key is longer than {MAX_KEY_BYTES:,} bytes")
    return text


def _as_string(text: str) -> str:
    """Convert JSON to the JSON string of an Amperity attribute: numbers are quoted, objects are serialized."""
    first = text[0]
    if first == '"':
        return text
    return quote(text) if first in "[{" else f'"{text}"'


def _as_value(text: str, value: object) -> str | None:
    """Return the text that filters compare: the Amperity attribute."""
    if text[0] != '"':
        return None if text == "null" else text
    return value if isinstance(value, str) else cast("str", json.loads(text))


def stored_values(census: bytes, filterable: Sequence[str]) -> tuple[str | None, ...]:
    """Return the comparable values of a stored record."""
    if not filterable:
        return ()
    text = census.decode()
    values: dict[str, str | None] = {}
    at = len('{"data":{')
    while text[at] == '"':
        name, at = scanstring(text, at + 1)
        if text[at + 1] == '"':
            values[name], end = scanstring(text, at + 2)
        else:
            _, end = _DECODER.raw_decode(text, at + 1)  # keep the literal, e.g. 12.50
            literal = text[at + 1 : end]
            values[name] = None if literal == "null" else literal
        at = end + 1
        if text[end] == "}":
            break
    return tuple([values.get(name) for name in filterable])


_DECODER = json.JSONDecoder()
scanstring: Callable[[str, int], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]  # pyright: ignore  # not in typeshed


class RowEncoder:
    """Encode the rows of one collection.

    Args:
        key: the name of the key column.
        index_id: the index id of the collection.
        index_fields: the columns of the Amperity view; `None` for all.
        filterable: the columns that can be filtered by.

    Attributes:
        with_index: whether to make the Amperity view at all.
    """

    def __init__(
        self, *, key: str, index_id: str, index_fields: Sequence[str] | None, filterable: Sequence[str]
    ) -> None:
        self._key = key
        self._filterable = tuple(filterable)
        self._index_fields = None if index_fields is None else frozenset(index_fields)
        self.with_index = True
        self._head = f',"index_id":{quote(index_id)},"attributes":{{'
        self._names: dict[str, str] = {}

    def encode(self, names: Sequence[str], texts: Sequence[str], row: Sequence[object]) -> EncodedRow:
        """Encode one row.

        Args:
            names: the names of its columns.
            texts: its values as JSON.
            row: the original values, or the JSON literals.

        Raises:
            RowRejected: the row cannot be stored.
        """
        quoted = [self._quoted(name) for name in names]
        key = key_text(row[names.index(self._key)] if self._key in names else None)
        census = '{"data":{' + ",".join([name + text for name, text in zip(quoted, texts, strict=True)]) + "}}"
        amperity = None
        if self.with_index:
            shown = self._index_fields
            attributes = [
                name + _as_string(text)
                for plain, name, text in zip(names, quoted, texts, strict=True)
                if (shown is None or plain in shown)
                and text != "null"  # the vendor's attributes are strings, so null is omitted
            ]
            amperity = '{"id":' + quote(key) + self._head + ",".join(attributes) + "}}"
        try:
            key.encode()
            census_bytes = census.encode()
            amperity_bytes = None if amperity is None else amperity.encode()
        except UnicodeEncodeError:
            census_bytes, amperity_bytes = b"", None
        if not census_bytes:  # raised outside of the handler, because the UnicodeEncodeError quotes the record
            raise RowRejected("it holds a lone surrogate, which is not valid Unicode")
        if len(census_bytes) > MAX_RECORD_BYTES:
            raise RowRejected(f"it is larger than {MAX_RECORD_BYTES >> 20} MiB")
        values: tuple[str | None, ...] = ()
        if self._filterable:
            at = {name: number for number, name in enumerate(names)}
            values = tuple(
                _as_value(texts[at[name]], row[at[name]]) if name in at else None for name in self._filterable
            )
        return EncodedRow(key, census_bytes, amperity_bytes, values)

    def _quoted(self, name: str) -> str:
        quoted = self._names.get(name)
        if quoted is None:
            quoted = self._names[name] = f"{quote(name)}:"
        return quoted
