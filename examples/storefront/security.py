"""Security headers on each page, and protection against forms that another site sends."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityMiddleware:
    """Adds the headers, and refuses a form that was not sent from one of the shop's own pages.

    Together with a session cookie that is `SameSite=Lax` this is what keeps other sites from signing people in or out,
    or from changing their consent.
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

        if scope["method"] not in ("GET", "HEAD") and not is_from_here(Headers(scope=scope)):
            refusal = PlainTextResponse("This form was not sent from a page of the shop.\n", status_code=403)
            await refusal(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def is_from_here(headers: Headers) -> bool:
    """Return whether a form was sent from the shop's own page, according to the browser's headers.

    Browsers send `Origin` with every form since 2020. A client that sends neither `Origin` nor `Sec-Fetch-Site` is no
    browser, and carries nobody's cookies but its own.
    """
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def local_path(target: str, default: str = "/") -> str:
    """A path of this shop to go back to; anything that could lead elsewhere becomes the default."""
    if not target.startswith("/") or target.startswith(("//", "/\\")) or any(ord(c) <= 32 or c == "\\" for c in target):
        return default
    return target
