"""`ProfileKey`: the type and value of an identifier."""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import TypeGuard

from ..errors import InvalidKeyError

__all__ = ["MAX_KEY_BYTES", "ProfileKey", "is_type_name"]

MAX_KEY_BYTES = 2048
"""The longest identifier, in bytes of UTF-8. Longer ones do not fit into every vendor's URL."""

MAX_TYPE_LENGTH = 256
"""The longest name of an identifier's type, in characters."""

_SALT = os.environ.get("PROFILE_ENRICH_LOG_SALT", "").encode() or os.urandom(16)


class ProfileKey:
    """The key of a lookup: the type of an identifier and its value.

    Args:
        value: the identifier exactly as in the source, 1 to 2,048 bytes of UTF-8; not trimmed, case-sensitive. A UUID
            is converted to text.
        type: the identifier's type: `"id"` (default) is the source's primary key; some sources also accept other
            attributes, e.g. `"email"`.

    Raises:
        InvalidKeyError: the value is not a string, empty, too long, or not encodable as UTF-8.

    The `repr` shows a salted hash instead of the value. Set `PROFILE_ENRICH_LOG_SALT` to the same secret in all
    processes to correlate their logs; without it each process has a random salt.
    """

    __slots__ = ("_digest", "_hash", "type", "value")

    type: str
    value: str
    _digest: str | None
    _hash: int

    def __init__(self, value: str | uuid.UUID, type: str = "id") -> None:
        if isinstance(value, uuid.UUID):
            value = str(value)
        if not isinstance(value, str):
            raise InvalidKeyError(
                f"a profile key must be a string, not {_type_name(value)}; pass str(value) if its text form is the id"
            )
        if not is_type_name(type):
            raise InvalidKeyError("the type of a profile key must be a short name such as 'id' or 'email'")
        if not value:
            raise InvalidKeyError("a profile key must not be empty")
        if len(value) > MAX_KEY_BYTES or not value.isascii():
            try:
                size = len(value.encode())
            except UnicodeEncodeError:
                size = -1
            if size < 0:  # raised outside of the handler, because the UnicodeEncodeError quotes the value
                raise InvalidKeyError("a profile key must be valid Unicode; this one holds a lone surrogate")
            if size > MAX_KEY_BYTES:
                raise InvalidKeyError(
                    f"a profile key has at most {MAX_KEY_BYTES:,} bytes of UTF-8; this one has {size:,}"
                )
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "type", type)
        object.__setattr__(self, "_hash", hash((value, type)))
        object.__setattr__(self, "_digest", None)

    @classmethod
    def of(cls, key: str | uuid.UUID | ProfileKey) -> ProfileKey:
        """Return the key itself, or a primary key made of a string or a UUID."""
        return key if isinstance(key, ProfileKey) else cls(key)

    def digest(self) -> str:
        """Return a salted hash of type and value, 12 hex characters, for logs, metrics and hooks."""
        digest = self._digest
        if digest is None:
            text = f"{self.type}\0{self.value}".encode()
            digest = hashlib.blake2b(text, digest_size=6, key=_SALT[:64]).hexdigest()
            object.__setattr__(self, "_digest", digest)
        return digest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProfileKey):
            return NotImplemented
        return self.value == other.value and self.type == other.type

    def __hash__(self) -> int:
        return self._hash

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"ProfileKey is immutable; cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"ProfileKey is immutable; cannot delete {name}")

    def __reduce__(self) -> tuple[object, ...]:
        return (ProfileKey, (self.value, self.type))

    def __repr__(self) -> str:
        return f"<ProfileKey {self.type}:#{self.digest()}>"


def is_type_name(value: object) -> TypeGuard[str]:
    """Return whether a value can be the type of a key."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TYPE_LENGTH and value.isprintable()


def _type_name(value: object) -> str:
    return type(value).__name__
