"""JSON from a vendor, with nothing in it that could hurt later."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

from ...errors import SourceResponseError

__all__ = ["array", "decode_json", "is_json_object", "obj"]

# Half a surrogate pair, written as an escape; whole pairs match too and are then looked at closely.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode_json(body: bytes) -> Any:
    """The value that a body holds.

    Raises:
        SourceResponseError: it is not JSON in UTF-8 (RFC 8259), holds `NaN`, an infinite number, a number of thousands
            of digits or half a surrogate pair, or is nested too deeply. The body is not quoted.
    """
    fault = ""
    value: Any = None
    try:
        value = _decoder.decode(body.decode("utf-8-sig"))
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        fault = "is not valid UTF-8"
    except RecursionError:
        fault = "is nested too deeply"
    except ValueError:  # JSONDecodeError quotes the whole document
        fault = "is not JSON"
    if fault:
        raise SourceResponseError(f"the source's answer {fault}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError("not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("too large")
    return number


_decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)  # `json.loads` would make one each time


def is_json_object(body: bytes) -> bool:
    """Return whether a body is a JSON object, as the errors of an API are and a page for people is not."""
    try:
        return isinstance(decode_json(body), dict)
    except SourceResponseError:
        return False


def obj(value: object, what: str) -> dict[str, Any]:
    """The value, which must be a JSON object.

    Raises:
        SourceResponseError: it is something else.
    """
    if not isinstance(value, dict):
        raise SourceResponseError(f"the source's answer is not as documented: {what} is not an object")
    return cast("dict[str, Any]", value)


def array(value: object, what: str) -> list[object]:
    """The value, which must be a JSON array.

    Raises:
        SourceResponseError: it is something else.
    """
    if not isinstance(value, list):
        raise SourceResponseError(f"the source's answer is not as documented: {what} is not an array")
    return cast("list[object]", value)
