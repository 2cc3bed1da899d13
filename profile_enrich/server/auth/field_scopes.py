"""Field scopes of API keys: fields in clear, as keyed hashes, redacted, or hidden.

Payloads for keys without field scopes are sent as stored.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from ...errors import ConfigurationError
from ...store import Collection

__all__ = ["REDACTED", "FieldScope", "View", "derive_salt"]

REDACTED = "[redacted]"
"""The placeholder of a redacted value."""

_decode = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class FieldScope:
    """The visible fields of one entity. Other fields are hidden, including fields added later.

    Only fields in clear can be filtered by, because a match would reveal the value.

    Args:
        show: fields in clear.
        hash: fields as HMAC-SHA256 of their text with the key's salt, 64 hexadecimal digits. Equal values have equal
            hashes under one key, so they can be counted and joined. Hashes differ between keys, and values cannot be
            guessed without the salt. The frequency of values remains visible.
        redact: fields as `"[redacted]"`. The presence of a value remains visible.

    Raises:
        ConfigurationError: no field is named, or a field is named twice.
    """

    show: frozenset[str] = frozenset()
    hash: frozenset[str] = frozenset()
    redact: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("show", "hash", "redact"):
            given: object = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise ConfigurationError(f"{name} of a field scope is a sequence of field names")
            # Accept lists and tuples, and store an immutable set.
            object.__setattr__(self, name, frozenset(cast("Iterable[str]", given)))
        if not self.named or not all(isinstance(field, str) and field for field in self.named):
            raise ConfigurationError("a field scope names at least one field; to show all, give the key no field scope")
        if len(self.named) != len(self.show) + len(self.hash) + len(self.redact):
            raise ConfigurationError("a field scope names a field twice; it is shown, hashed or redacted")

    @property
    def named(self) -> frozenset[str]:
        """All fields that are visible in any form."""
        return self.show | self.hash | self.redact


def derive_salt(secret: bytes, key_id: str) -> bytes:
    """Derive the salt of a key without one from the store's secret."""
    return hmac.digest(secret, b"salt\0" + key_id.encode(), "sha256")


class View:
    """The view of one key on one collection.

    Args:
        collection: the collection.
        scope: the field scope.
        salt: the salt of the key.
    """

    __slots__ = ("_collection", "_salt", "_scope")

    def __init__(self, collection: Collection, scope: FieldScope, salt: bytes) -> None:
        self._collection = collection
        self._scope = scope
        self._salt = salt

    @property
    def may_list(self) -> bool:
        """Whether profiles may be listed, which requires ids in clear."""
        return self._collection.key in self._scope.show

    @property
    def filterable(self) -> tuple[str, ...]:
        """The fields that the key may filter by."""
        return tuple(name for name in self._collection.filterable if name in self._scope.show)

    def census(self, payload: bytes) -> bytes:
        """Return the body of a record in Census's dialect, with the visible fields."""
        text = payload.decode()
        data = next(raw for name, raw in _members(text) if name == "data")
        return f'{{"data":{self._project(data)}}}'.encode()

    def amperity(self, payload: bytes) -> bytes:
        """Return a profile in Amperity's dialect, with the visible attributes."""
        parts = [
            f"{_quote(name)}:{self._project(raw) if name == 'attributes' else raw}"
            for name, raw in _members(payload.decode())
        ]
        return f"{{{','.join(parts)}}}".encode()

    def _project(self, text: str) -> str:
        scope = self._scope
        parts: list[str] = []
        for name, raw in _members(text):
            if name in scope.show or (name in scope.named and raw == "null"):
                parts.append(f"{_quote(name)}:{raw}")
            elif name in scope.hash:
                parts.append(f'{_quote(name)}:"{self._hash(raw)}"')
            elif name in scope.redact:
                parts.append(f'{_quote(name)}:"{REDACTED}"')
        return f"{{{','.join(parts)}}}"

    def _hash(self, raw: str) -> str:
        # Hash the text, which is the same in both dialects: Amperity's attributes are the texts of Census's values.
        text: str = json.loads(raw) if raw[0] == '"' else raw
        return hmac.digest(self._salt, text.encode(errors="surrogatepass"), hashlib.sha256).hex()


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Split a JSON object into names and literal values, which keeps every digit of a number."""
    at = 1
    while True:
        at = _skip(text, at)
        if text[at] == "}":
            return
        name, at = _decode(text, at)
        start = _skip(text, _skip(text, at) + 1)  # after the colon
        _, at = _decode(text, start)
        yield name, text[start:at]
        at = _skip(text, at)
        at += text[at] == ","


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space is not None else at


def freeze_scopes(fields: Mapping[str, FieldScope]) -> dict[str, FieldScope]:
    """Validate and copy the field scopes of a key.

    Raises:
        ConfigurationError: it is not a mapping of entity names to `FieldScope`s.
    """
    for entity, scope in fields.items():
        if not isinstance(entity, str) or not isinstance(scope, FieldScope):
            raise ConfigurationError("fields of a key maps the name of an entity to a FieldScope")
    return dict(fields)
