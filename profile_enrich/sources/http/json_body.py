"""Strict decoding of JSON bodies."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from ..._utils.strict_json import StrictJsonError, strict_decoder
from ...errors import SourceResponseError

__all__ = ["WRONG_URL", "array", "decode_json", "decode_list", "is_json_object", "obj"]

WRONG_URL = "is base_url the one of this API, with its whole path?"
"""The hint for an answer that is not of the API, such as a 404 that does not concern a record."""

# An escaped surrogate; matches of whole pairs are sorted out afterwards.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode_json(body: bytes, *, url: str = "base_url") -> Any:
    """Decode a JSON body.

    Args:
        body: the body.
        url: the argument that an answer in HTML casts doubt on.

    Raises:
        SourceResponseError: the body is not JSON in UTF-8 (RFC 8259), is nested too deeply, or holds `NaN`, an infinite
            number, a number with thousands of digits, a name twice in one object or a lone surrogate. The message does
            not quote the body.
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
    except StrictJsonError as error:
        fault = f"is not JSON: {error.reason}"
    except ValueError:  # JSONDecodeError holds the whole document
        fault = "is not JSON"
        if body.lstrip()[:1] == b"<":
            fault = f"is HTML, not JSON; {WRONG_URL.replace('base_url', url)}"
    if fault:
        raise SourceResponseError(f"the source's answer {fault}")
    return value


_decoder = strict_decoder()


def decode_list(body: bytes, name: str) -> tuple[Any, list[str]] | None:
    """The value that a body holds, and the text of each object of the list that it begins with.

    Args:
        body: an object in JSON whose first member is the list, without white space before its first entry.
        name: the name of that member.

    Returns:
        `None` for all else, and where the texts may hold more than one line or half a surrogate pair.
    """
    start = f'{{"{name}":['
    rows: list[object] = []
    texts: list[str] = []
    try:
        text = body.decode()
        if not text.startswith(start) or _SURROGATE.search(body) or "\n" in text or "\r" in text:
            return None
        at = len(start)
        while text[at] == "{":
            row, end = _decoder.raw_decode(text, at)
            rows.append(row)
            texts.append(text[at:end])
            at = end + (text[end : end + 2] == ",{")
        rest: Any = _decoder.decode(start + text[at:])
    except (ValueError, IndexError, RecursionError):
        return None
    if rest.get(name) != []:
        return None
    return {**rest, name: rows}, texts


def is_json_object(body: bytes) -> bool:
    """Return whether a body is a JSON object, which tells an API's error from an HTML page."""
    try:
        return isinstance(decode_json(body), dict)
    except SourceResponseError:
        return False


def obj(value: object, what: str) -> dict[str, Any]:
    """Return the value, checked to be a JSON object.

    Raises:
        SourceResponseError: the value has another type.
    """
    if not isinstance(value, dict):
        raise SourceResponseError(f"the source's answer is not as documented: {what} is not an object")
    return cast("dict[str, Any]", value)


def array(value: object, what: str) -> list[object]:
    """Return the value, checked to be a JSON array.

    Raises:
        SourceResponseError: the value has another type.
    """
    if not isinstance(value, list):
        raise SourceResponseError(f"the source's answer is not as documented: {what} is not an array")
    return cast("list[object]", value)
