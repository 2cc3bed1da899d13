"""Conversion of Arrow values to Python, including those that Python's types cannot represent."""

from __future__ import annotations

import re
from typing import Any

from .formats import arrow

__all__ = ["Unreadable", "python_values"]

_OFFSET = re.compile(r"([+-]\d\d)(\d\d)$")


class Unreadable:
    """A value that Python and JSON cannot represent.

    Args:
        why: the reason, without the value.
    """

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __str__(self) -> str:
        return "(unreadable)"


def python_values(column: Any) -> list[Any]:
    """Return the values of a column. An unconvertible value does not affect the others.

    Nanoseconds (without pandas) and years beyond 9999 become ISO 8601 text; other unconvertible values are
    `Unreadable`.
    """
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, ImportError, ArithmeticError):  # pyarrow's own errors are ValueErrors, too
        pass
    return [_value(column, place) for place in range(len(column))]


def _value(column: Any, place: int) -> Any:
    try:
        return column[place].as_py()
    except (ValueError, OverflowError, ImportError, ArithmeticError):
        pass
    pa = arrow()
    kind = column.type
    if not (pa.types.is_temporal(kind) and not pa.types.is_duration(kind)):
        return Unreadable(f"a value of the type {kind} that JSON and Python cannot hold")
    text = str(column.slice(place, 1).cast(pa.string())[0].as_py())
    if text.startswith("<"):
        return Unreadable("a time outside of the calendar")
    return _OFFSET.sub(r"\1:\2", text.replace(" ", "T", 1))
