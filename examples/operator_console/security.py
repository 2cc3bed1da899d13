"""Security headers on each response, and protection against requests that another site sends."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PANEL = "/panel/"
"""The path prefix of the endpoints for the extension's side panel."""
MOST_BYTES = 16_384
"""The largest request body, in bytes."""
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityMiddleware:
    """Add the headers, and refuse requests that neither the console's own pages nor an extension sent.

    This is the first of three: the session cookie is `SameSite=Lax`, and each form carries its session's token.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal: Response | None = None
        if scope["method"] not in ("GET", "HEAD"):
            refusal = _refusal(scope["path"], Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def _refusal(path: str, headers: Headers) -> Response | None:
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and int(length) <= MOST_BYTES):
        return PlainTextResponse(f"At most {MOST_BYTES:,} bytes are taken, and their number must be said.\n", 413)
    if not _is_allowed(path, headers):
        return PlainTextResponse("This was not sent from a page of the console.\n", 403)
    return None


def _is_allowed(path: str, headers: Headers) -> bool:
    origin = headers.get("origin")
    if path.startswith(PANEL):
        # A site cannot set this header without being asked for leave (CORS), which the console never gives. An
        # extension can, if its user let it reach the console's host; then it could read the pages just as well.
        if headers.get("x-console") != "panel":
            return False
        if origin is not None and urlsplit(origin).scheme == "chrome-extension":
            return True
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def is_token(given: object, expected: str) -> bool:
    """Return whether a form contains its session's token."""
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def local_path(target: str, default: str = "/") -> str:
    """Return a path of the console; the default for anything that could lead to another site."""
    if not target.startswith("/") or target.startswith(("//", "/\\")) or any(ord(c) <= 32 or c == "\\" for c in target):
        return default
    return target
