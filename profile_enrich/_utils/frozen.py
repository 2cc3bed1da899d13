"""JSON-like data made read-only, and plain again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

__all__ = ["MAX_DEPTH", "freeze", "thaw"]

MAX_DEPTH = 64
"""The deepest nesting of a record; what is deeper is refused rather than recursed into."""


def freeze(value: object) -> tuple[object, int]:
    """A read-only copy of JSON-like data, and roughly the bytes of memory it takes.

    Mappings become read-only mappings, lists and tuples become tuples; text, numbers, booleans, `None`, bytes, dates
    and other immutable values stay as they are.

    Raises:
        ValueError: it is nested deeper than 64 levels.
    """
    return _freeze(value, 0)


_PLAIN = frozenset({str, int, float, bytes})
_size_of = sys.getsizeof


def _freeze(value: object, depth: int) -> tuple[object, int]:
    # Exact types first: nearly all values are of these, and looking at abstract classes costs three times as much.
    kind = type(value)
    if kind in _PLAIN:
        return value, _size_of(value)
    if value is None or kind is bool:
        return value, 0
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if kind is dict or isinstance(value, Mapping):
        frozen: dict[str, object] = {}
        size = 48  # the proxy
        for name, item in cast("Mapping[object, object]", value).items():
            text = sys.intern(name) if type(name) is str else str(name)  # names repeat in every record of a source
            if type(item) in _PLAIN:  # as above; a call for each value would cost more than all the rest
                frozen[text] = item
                size += _size_of(item)
            else:
                frozen[text], bytes_ = _freeze(item, depth + 1)
                size += bytes_
        return MappingProxyType(frozen), size + _size_of(frozen)
    if isinstance(value, list | tuple | set | frozenset):
        items: list[object] = []
        size = 0
        for item in cast("list[object]", value):
            kept, bytes_ = _freeze(item, depth + 1)
            items.append(kept)
            size += bytes_
        return tuple(items), size + 40 + 8 * len(items)
    if isinstance(value, bytearray):
        value = bytes(value)
    return value, _size_of(value)


def thaw(value: object) -> Any:
    """The reverse of `freeze`: fresh, plain dicts and lists that the caller may change."""
    if isinstance(value, Mapping):
        return {name: thaw(item) for name, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, tuple):
        return [thaw(item) for item in cast("tuple[object, ...]", value)]
    return value
