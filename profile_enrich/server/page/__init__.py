"""The entities page: static files that call the API with the key that the user enters."""

from __future__ import annotations

import html
from functools import cache
from pathlib import Path

from ..http.messages import Response

__all__ = ["KINDS", "page_response"]

KINDS = {b"": "page.html", b"page.css": "page.css", b"page.js": "page.js"}
"""The files by path."""

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
}
_HEADERS = (
    # No inline scripts or styles, and no external resources: the key can be sent only to this server.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def page_response(kind: str, root: str) -> Response:
    """Return one of the page's files.

    Args:
        kind: a value of `KINDS`.
        root: the path at which the application is mounted.
    """
    text = _text(kind)
    if kind == "page.html":
        text = text.replace("{root}", html.escape(root, quote=True))
    return Response(200, text.encode(), (*_HEADERS, (b"content-type", _TYPES[kind.partition(".")[2]])))
