"""From a record to the key of its lookup."""

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
"""How pandas names what stands for nothing; importing it to compare would cost more than all else here."""


def key_of(value: object) -> str | ProfileKey:
    """What a lookup can take, made of a field's value.

    Args:
        value: text or a `ProfileKey` as it is; a whole number (of Python, NumPy or Arrow) or a `UUID` as its text.
            `None`, empty text, NaN and the missing values of pandas are no key. All else is refused: how a fraction, a
            date or bytes would be written is not for this package to guess.

    Raises:
        MissingKeyError: there is none.
        InvalidKeyError: it is of another type, or cannot be looked up (see `ProfileKey`).
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
        except TypeError:  # an array of several numbers has the method, too
            pass
    name = type(value).__name__
    hint = "; a column of whole numbers becomes one of fractions where it has gaps" if isinstance(value, float) else ""
    raise InvalidKeyError(f"a key must be text, a whole number or a UUID, not {name}{hint}; make text of it first")


def key_reader(key: KeyOf) -> Callable[[Any], object]:
    """A function that gives a record's raw key.

    Args:
        key: a field's name, or a function of the record.

    Returns:
        A function of the record. It raises `MissingKeyError` when the record has no such field, and `InvalidKeyError`
        when the user's function fails: the message names the exception's type only, as its text may quote the record.

    Raises:
        ConfigurationError: `key` is neither.
    """
    if isinstance(key, str) and key:
        return _field(key)
    if callable(key):
        return _function(key)
    raise ConfigurationError(f"key must be the name of a field or a function of the record, not {type(key).__name__}")


def _field(name: str) -> Callable[[Any], object]:
    def read(row: Any) -> object:
        # The first test is for speed: most rows are plain dicts, and the second costs ten times as much.
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
