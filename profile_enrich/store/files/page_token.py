"""Page tokens: opaque, signed, bound to what they continue.

A token holds the number of the last record of its page (and an id of what is paged through). Records keep their numbers
over refreshes, so a token does not grow old: the next page is what lies behind that record in the newest data.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from ...errors import CursorError

__all__ = ["filter_scope", "open_cursor", "open_key_cursor", "sign_cursor", "sign_key_cursor"]

_MAC = 17
# 8 bytes id, 8 bytes position, 17 bytes MAC: 33 bytes are exactly 44 characters of base64, with no spare bits
# that could be changed without notice.
_SIZE = 8 + 8 + _MAC


def filter_scope(collection: str, filters: Mapping[str, str]) -> bytes:
    """What a cursor is bound to: the collection and the filters, in whatever order they were given."""
    parts = [collection, *(text for item in sorted(filters.items()) for text in item)]
    encoded = [part.encode(errors="surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _mac(secret: bytes, scope: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"cursor\0" + body + hashlib.sha256(scope).digest(), "sha256")[:_MAC]


def sign_cursor(secret: bytes, scope: bytes, owner: int, position: int) -> str:
    """The token for the page after this position. `owner` is the id of what is paged through, never used twice."""
    body = owner.to_bytes(8, "big") + position.to_bytes(8, "big")
    return base64.urlsafe_b64encode(body + _mac(secret, scope, body)).decode()


def open_cursor(secret: bytes, scope: bytes, owner: int, token: str) -> int:
    """The position that a token continues from.

    Raises:
        CursorError: it was changed, or belongs to another collection or filter, or to one that was dropped.
    """
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # Compared as text too: the decoder takes more than one spelling of the same bytes.
    if len(raw) == _SIZE and base64.urlsafe_b64encode(raw).decode() == token:
        body, mac = raw[:16], raw[16:]
        if hmac.compare_digest(mac, _mac(secret, scope, body)):
            if int.from_bytes(body[:8], "big") == owner:
                return int.from_bytes(body[8:], "big")
            raise CursorError("the page token is of a collection that was dropped since; start from the first page")
    raise CursorError("the page token is not one that was given for this collection and these filters")


def sign_key_cursor(secret: bytes, scope: bytes, key: str) -> str:
    """The token for the page after the record with this key, of a collection that is ordered by its keys."""
    body = key.encode()
    return base64.urlsafe_b64encode(_mac(secret, b"key\0" + scope, body) + body).decode()


def open_key_cursor(secret: bytes, scope: bytes, token: str) -> str:
    """The key that a token continues after.

    Raises:
        CursorError: it was changed, or belongs to another collection or filter.
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
    raise CursorError("the page token is not one that was given for this collection and these filters")
