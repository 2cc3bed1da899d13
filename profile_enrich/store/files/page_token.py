"""Page tokens: opaque, signed, bound to a collection and its filters.

A token holds the docid of the last record on its page and an id of the collection. Records keep their docids over
refreshes, so a token does not expire: the next page starts after that record in the newest data.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from itertools import chain
from json.encoder import encode_basestring_ascii as quote

from ...errors import CursorError

__all__ = ["filter_scope", "open_cursor", "open_key_cursor", "sign_cursor", "sign_key_cursor"]

_MAC = 17
# 8 bytes id, 8 bytes position, 17 bytes MAC: 33 bytes are exactly 44 base64 characters, without unused bits that could
# be altered unnoticed.
_SIZE = 8 + 8 + _MAC


def filter_scope(collection: str, filters: Mapping[str, str]) -> bytes:
    """Return the scope of a cursor: the collection and the filters, in any order."""
    return ",".join(map(quote, [collection, *chain.from_iterable(sorted(filters.items()))])).encode()


def _mac(secret: bytes, scope: bytes, body: bytes) -> bytes:
    # A keyed hash (RFC 7693), at a fraction of the time of an HMAC; hashed, because its key has at most 64 bytes.
    signed = b"cursor\0%d\0%b%b" % (len(body), body, scope)
    return hashlib.blake2b(signed, digest_size=_MAC, key=hashlib.sha256(secret).digest()).digest()


def sign_cursor(secret: bytes, scope: bytes, owner: int, position: int) -> str:
    """Return the token for the page after this position. `owner` is the id of the collection."""
    body = owner.to_bytes(8, "big") + position.to_bytes(8, "big")
    return base64.urlsafe_b64encode(body + _mac(secret, scope, body)).decode()


def open_cursor(secret: bytes, scope: bytes, owner: int, token: str) -> int:
    """Verify a token and return its position.

    Raises:
        CursorError: the token was modified, or belongs to another or a dropped collection, or to other filters.
    """
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # Also compared as text, because the decoder accepts several spellings of the same bytes.
    if len(raw) == _SIZE and base64.urlsafe_b64encode(raw).decode() == token:
        body, mac = raw[:16], raw[16:]
        if hmac.compare_digest(mac, _mac(secret, scope, body)):
            if int.from_bytes(body[:8], "big") == owner:
                return int.from_bytes(body[8:], "big")
            raise CursorError("the collection of the page token was dropped; start from the first page")
    raise CursorError("the page token was not issued for this collection and these filters")


def sign_key_cursor(secret: bytes, scope: bytes, key: str) -> str:
    """Return the token for the page after this key, in a collection ordered by keys."""
    body = key.encode()
    return base64.urlsafe_b64encode(_mac(secret, b"key\0" + scope, body) + body).decode()


def open_key_cursor(secret: bytes, scope: bytes, token: str) -> str:
    """Verify a token and return its key.

    Raises:
        CursorError: the token was modified, or belongs to another collection or filter.
    """
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    mac, body = raw[:_MAC], raw[_MAC:]
    if base64.urlsafe_b64encode(raw).decode() == token and hmac.compare_digest(
        mac, _mac(secret, b"key\0" + scope, body)
    ):
        return body.decode()
    raise CursorError("the page token was not issued for this collection and these filters")
