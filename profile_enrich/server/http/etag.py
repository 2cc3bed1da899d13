"""HTTP caching: `ETag`, `If-None-Match`, `Cache-Control` (RFC 9110, section 13; RFC 9111)."""

from __future__ import annotations

import hashlib
import re

from ..._utils.validation import check_int
from .messages import Request, Response

__all__ = ["HttpCaching"]

_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_NO_STORE = ((b"cache-control", b"no-store"),)


class HttpCaching:
    """Add caching headers to responses, and return 304 if the client's copy is current.

    All responses are `private`, because profiles are personal data and must not be stored by shared caches. Responses
    other than profiles, entities and indexes (errors, tokens, `/status`) are `no-store`.

    Args:
        max_age: the `max-age` of responses, in seconds; `None` for none.

    Raises:
        ConfigurationError: `max_age` is negative or not an integer.
    """

    def __init__(self, max_age: int | None = None) -> None:
        if max_age is not None:
            check_int("max_age", max_age, least=0)
        control = b"private" if max_age is None else b"private, max-age=%d" % max_age
        self._control = (b"cache-control", control)

    def answer(self, request: Request, response: Response) -> Response:
        """Return the response with caching headers, or a 304 without body if the client's copy is current."""
        if response.status != 200:
            return Response(response.status, response.body, response.headers + _NO_STORE)
        # A strong tag of the content only, so it is the same on all workers and after a rebuild.
        tag = b'"%s"' % hashlib.sha256(response.body).hexdigest()[:24].encode()
        headers = (*response.headers, (b"etag", tag), self._control)
        asked = request.header(b"if-none-match")
        if asked and _matches(b",".join(asked), tag):
            return Response(304, b"", headers)
        return Response(200, response.body, headers)


def _matches(asked: bytes, tag: bytes) -> bool:
    asked = asked.strip()
    if asked == b"*":
        return True
    at = 0
    while match := _TAG.match(asked, at):
        # Weak comparison (RFC 9110, section 13.1.2). The tag of a compressed copy has a suffix; the content is the
        # same.
        if match[1] == tag or match[1] == tag[:-1] + b'.gz"':
            return True
        at = match.end()
        while asked[at : at + 1] in (b" ", b"\t"):
            at += 1
    return False
