"""Freezing and thawing of JSON-like data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, cast

from .frozen_types import FrozenDict, FrozenList
from .string_pool import MAX_LENGTH, shared_strings

__all__ = ["MAX_DEPTH", "freeze", "thaw"]

MAX_DEPTH = 64
"""The deepest nesting of a record; deeper data are rejected."""


def freeze(value: object) -> tuple[object, int]:
    """Return a read-only copy of JSON-like data, and its approximate memory in bytes.

    Mappings become `FrozenDict`s; lists, tuples and sets become `FrozenList`s. Strings, numbers, booleans, `None`,
    bytes, dates and other immutable values are not copied. Equal short strings of several records are shared.

    Raises:
        ValueError: the data are nested deeper than 64 levels.
    """
    return _freeze(value, 0, shared_strings.current())


_PLAIN = frozenset({str, int, float, bytes})
_size_of = sys.getsizeof


def _freeze(value: object, depth: int, shared: dict[str, str]) -> tuple[object, int]:
    # Exact types first: nearly all values have them, and checks of abstract classes take three times as long.
    if type(value) is str and len(value) <= MAX_LENGTH:
        text = shared.setdefault(value, value)
        return text, _size_of(text) if text is value else 0
    kind = type(value)
    if kind in _PLAIN:
        return value, _size_of(value)
    if value is None or kind is bool:
        return value, 0
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if kind is dict or isinstance(value, Mapping):
        frozen: dict[str, object] = {}
        size = 0
        for name, item in cast("Mapping[object, object]", value).items():
            if type(item) is str and len(item) <= MAX_LENGTH:  # as above, inlined because calls cost more
                one = shared.setdefault(item, item)
                if one is item:
                    size += _size_of(item)
                item = one
            elif type(item) in _PLAIN:
                size += _size_of(item)
            else:
                item, bytes_ = _freeze(item, depth + 1, shared)
                size += bytes_
            # Names repeat in every record of a source.
            frozen[sys.intern(name) if type(name) is str else str(name)] = item
        kept = FrozenDict(frozen)
        return kept, size + _size_of(kept)
    if isinstance(value, list | tuple | set | frozenset):
        items: list[object] = []
        size = 0
        for item in cast("list[object]", value):
            item, bytes_ = _freeze(item, depth + 1, shared)
            items.append(item)
            size += bytes_
        return FrozenList(items), size + 56 + 8 * len(items)
    if isinstance(value, bytearray):
        value = bytes(value)
    return value, _size_of(value)


def thaw(value: object) -> Any:
    """Reverse `freeze`: return new plain dicts and lists, which the caller may modify."""
    if isinstance(value, Mapping):
        return {name: thaw(item) for name, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in cast("list[object]", value)]
    return value
