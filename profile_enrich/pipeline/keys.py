"""Keys of records: reading and validation."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex, cast
from uuid import UUID

from ..errors import ConfigurationError, InvalidKeyError, MissingKeyError
from ..profile import ProfileKey

__all__ = ["KeyOf", "key_of", "key_reader"]

KeyOf = str | Callable[[Any], object]
"""The name of a field (of a mapping, else an attribute), or a function that takes the record and returns its key."""

_ABSENT = object()

_NULLS = frozenset({"NAType", "NaTType"})
"""The names of pandas' missing values, compared by name because importing pandas is slow."""


def key_of(value: object) -> str | ProfileKey:
    """Convert a field's value to a lookup key.

    Args:
        value: text or a `ProfileKey`, unchanged; an integer (of Python, NumPy or Arrow) or a `UUID`, as text. `None`,
            empty text, NaN and pandas' missing values are missing keys. Other types are rejected, because floats, dates
            and bytes have no unique text form.

    Raises:
        MissingKeyError: the key is missing.
        InvalidKeyError: the value has another type, or cannot be looked up (see `ProfileKey`).
    """
    if isinstance(value, ProfileKey):
        return value
    if isinstance(value, str) and value:
        return ProfileKey(value).value
    if value is None or value == "" or type(value).__name__ in _NULLS or (isinstance(value, float) and value != value):
        raise MissingKeyError("the record has no key: the field is null or empty")
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        try:
            return str(operator.index(cast("SupportsIndex", value)))
        except TypeError:  # arrays have the method, too
            pass
    name = type(value).__name__
    hint = "; a column of integers with missing values becomes a float column" if isinstance(value, float) else ""
    raise InvalidKeyError(f"a key must be text, a whole number or a UUID, not {name}{hint}; make text of it first")


def key_reader(key: KeyOf) -> Callable[[Any], object]:
    """Return a function that reads a record's raw key.

    Args:
        key: a field's name, or a function of the record.

    Returns:
        A function of the record. It raises `MissingKeyError` if the record lacks the field, and `InvalidKeyError` if
        the user's function fails. The message names only the type of the exception, whose text may quote the record.

    Raises:
        ConfigurationError: `key` is neither a name nor a function.
    """
    if isinstance(key, str) and key:
        return _field(key)
    if callable(key):
        return _function(key)
    raise ConfigurationError(f"key must be the name of a field or a function of the record, not {type(key).__name__}")


def _field(name: str) -> Callable[[Any], object]:
    def read(row: Any) -> object:
        # The first test is for speed: most rows are dicts, and the second test takes ten times as long.
        kind = cast("type[object]", type(row))
        mapped = kind is dict or issubclass(kind, Mapping)
        value: Any = row.get(name, _ABSENT) if mapped else getattr(row, name, _ABSENT)
        if value is _ABSENT:
            raise MissingKeyError(f"the record has no field {name!r}")
        return value

    return read


def _function(function: Callable[[Any], object]) -> Callable[[Any], object]:
    def read(row: Any) -> object:
        try:
            return function(row)
        except InvalidKeyError:
            raise
        except Exception as error:  # noqa: BLE001  # the user's function; its text may quote the record
            failure = type(error).__name__
        raise InvalidKeyError(f"the key function raised {failure}")

    return read
