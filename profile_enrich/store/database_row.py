"""Stored form of a record in database stores: its JSON, and comparable text of each filterable value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from json.encoder import encode_basestring as quote

from .collection import Collection, Dialect

__all__ = ["comparable", "content_hash", "payload", "storable", "stored_values"]

_LONGEST = 256
"""Longer values are compared by digest, because a PostgreSQL index entry has at most 2,704 bytes."""

_DECODER = json.JSONDecoder()
_scan: Callable[[str, int], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]  # pyright: ignore  # not in typeshed


def comparable(value: str | None) -> str | None:
    """Return the comparable form of a value: `=` and the value, or `#` and the digest of a long one."""
    if value is None:
        return None
    if len(value) <= _LONGEST and "\0" not in value:
        return "=" + value
    return "#" + hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()


def storable(key: str) -> bool:
    """Return whether PostgreSQL can store a text: it has no NUL character and no lone surrogate."""
    try:
        return "\0" not in key and bool(key.encode())
    except UnicodeEncodeError:
        return False


def content_hash(attributes: str) -> bytes:
    """Return a hash that detects a changed record."""
    return hashlib.blake2b(attributes.encode(), digest_size=16).digest()


def payload(collection: Collection, key: str, attributes: str, dialect: Dialect) -> bytes:
    """Return the body of a vendor's response; Amperity's has strings, without nulls, of the fields of the index."""
    if dialect == "census":
        return b'{"data":' + attributes.encode() + b"}"
    shown = None if collection.index_fields is None else frozenset(collection.index_fields)
    parts = [
        f"{quote(name)}:{_as_string(text)}"
        for name, text in _members(attributes)
        if text != "null" and (shown is None or name in shown)
    ]
    head = f'{{"id":{quote(key)},"index_id":{quote(collection.index_id)},"attributes":{{'
    return f"{head}{','.join(parts)}}}}}".encode()


def stored_values(attributes: str, filterable: Sequence[str]) -> tuple[str | None, ...]:
    """Return the comparable values of a stored record."""
    if not filterable:
        return ()
    wanted = set(filterable)
    values = {name: text for name, text in _members(attributes) if name in wanted}
    return tuple(None if (text := values.get(name, "null")) == "null" else _plain(text) for name in filterable)


def _plain(text: str) -> str:
    return _scan(text, 1)[0] if text[0] == '"' else text


def _as_string(text: str) -> str:
    if text[0] == '"':
        return text
    return quote(text) if text[0] in "[{" else f'"{text}"'


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Split compact JSON into names and literal values, which keeps every digit of a number."""
    at = 1
    while at < len(text) and text[at] == '"':
        name, at = _scan(text, at + 1)
        start = at + 1
        if text[start] == '"':
            _, at = _scan(text, start + 1)
        else:
            _, at = _DECODER.raw_decode(text, start)
        yield name, text[start:at]
        at += 1
