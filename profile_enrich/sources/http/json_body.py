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
_lenient = strict_decoder(repeated_names=True)


def decode_list(body: bytes, name: str) -> tuple[Any, list[str]] | None:
    """The value that a body holds, and the text of each object of the list that it begins with.

    Args:
        body: an object in JSON whose first member is the list, without white space before its first entry.
        name: the name of that member.

    Returns:
        `None` for all else, and where the texts may hold more than one line or half a surrogate pair.
    """
    start = f'{{"{name}":['
    try:
        text = body.decode()
        if not text.startswith(start) or _SURROGATE.search(body) or "\n" in text or "\r" in text:
            return None
        compact = not any(each in text for each in _SPACED)
        # At once, not row by row, so that all rows share the names of their members.
        answer: Any = _lenient.decode(text) if compact else None
        if not compact or text.count('":') != _members(answer, answer[name]):
            answer = _decoder.decode(text)
        return answer, _row_texts(text, len(start), len(answer[name]), compact=compact)
    except (ValueError, IndexError, TypeError, AttributeError, RecursionError):
        return None


def _members(answer: Any, rows: Any) -> int:
    """Count the members of an answer, of its rows, and of the objects in these.

    In text without white space after names, there are as many `":` only if no name is repeated in an object, since a
    quote within a string is escaped.
    """
    inner: list[Any] = [each for row in rows for each in row.values() if type(each) is dict]
    return sum(map(len, [answer, *rows, *inner]))


def _row_texts(text: str, at: int, count: int, *, compact: bool) -> list[str]:
    """Return the texts of the objects of a list that begins at a position of valid JSON."""
    opening = _OPENING.match(text, at)
    # Without another list, an object that follows a comma and begins with a name is an entry.
    if compact and opening is not None and text.count('":[') == 1:
        first, *others = text[at:].split(f",{opening[0]}")
        if len(others) == count - 1:
            each = [first, *[opening[0] + other for other in others]]
            return [*each[:-1], each[-1][: _decoder.raw_decode(each[-1])[1]]]
    texts: list[str] = []
    while text[at] == "{":
        _, end = _decoder.raw_decode(text, at)
        texts.append(text[at:end])
        at = end + (text[end : end + 2] == ",{")
    if len(texts) != count:
        raise ValueError("an entry is not an object, or follows white space")
    return texts


_OPENING = re.compile(r'\{"[^"\\]*":')
_SPACED = ("\t", '" ', '": ', "} ")
"""What a text has that holds white space before or after a colon, or after an object."""


def is_json_object(body: bytes) -> bool:
    """Return whether a body is a JSON object, which tells an API's error from an HTML page."""
    try:
        return isinstance(decode_json(body), dict)
    except SourceResponseError:
        return False


def obj(value: Any, what: str) -> dict[str, Any]:
    """Return the value, checked to be a JSON object.

    Raises:
        SourceResponseError: the value has another type.
    """
    if not isinstance(value, dict):
        raise SourceResponseError(f"the source's answer is not as documented: {what} is not an object")
    return value  # pyright: ignore[reportUnknownVariableType]  # `cast` costs as much as the check


def array(value: object, what: str) -> list[object]:
    """Return the value, checked to be a JSON array.

    Raises:
        SourceResponseError: the value has another type.
    """
    if not isinstance(value, list):
        raise SourceResponseError(f"the source's answer is not as documented: {what} is not an array")
    return cast("list[object]", value)
