"""Inference of undeclared column types: the narrowest for all values of a run."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any, cast

from ..._utils.freeze import thaw

__all__ = ["alias", "cell", "json_text", "notice", "plain"]

_UNICODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode

_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})
"""Types of values that are in JSON what they are in Python, unless they are NaN or infinite."""

_ALIASES = {"bool": "bool", "int": "int64", "float": "double"}


def notice(kinds: dict[str, str], values: Mapping[str, Any]) -> None:
    """Widen the kinds of columns to include these values. The result does not depend on the order of values.

    Args:
        kinds: `null`, `bool`, `int`, `float` or `text` by column, in the order of first appearance. Modified in place.
        values: the values of one record.
    """
    for name, value in values.items():
        before = kinds.get(name)
        if before == "text":
            continue
        kind = _kind(value)
        if before is None or before == "null":
            kinds[name] = kind
        elif kind not in (before, "null"):
            kinds[name] = "float" if {kind, before} == {"int", "float"} else "text"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "text"
    return "float" if isinstance(value, float) else "text"


def alias(kind: str) -> str:
    """Return the name of the Arrow type. A column without values is text."""
    return _ALIASES.get(kind, "string")


def plain(value: object) -> object:
    """Convert a value to plain JSON data: dates in ISO 8601, decimals as text, bytes in base64, NaN as null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in cast("list[object]", value)]
    return str(thaw(value))


def json_text(value: object, *, ascii_only: bool = False) -> str:
    """Encode a value as JSON. A lone surrogate, which cannot be encoded, is escaped."""
    kind = type(value)
    if kind is not dict or not _AS_THEY_ARE.issuperset(map(type, cast("dict[str, object]", value).values())):
        value = plain(value)
    try:
        text = (_ASCII if ascii_only else _UNICODE)(value)
        if not text.isascii():
            text.encode()
        return text
    except UnicodeEncodeError:
        return _ASCII(value)
    except ValueError:  # NaN, or infinite
        return json_text(plain(value), ascii_only=ascii_only)


def cell(value: object) -> str:
    """Return a value as a CSV field: empty for null, text unchanged, other values as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)
    made = plain(value)
    if made is None:
        return ""
    return made if isinstance(made, str) else json.dumps(made, ensure_ascii=False)
