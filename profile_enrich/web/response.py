"""Response of a request with a profile: its cache headers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

from starlette.types import Message, Send

from .cache_headers import Headers, is_plain, personalise
from .config import MiddlewareConfig
from .framework_caches import inner_cache, warn_inner_cache
from .request_lookup import INSIDE, RequestLookup

__all__ = ["marking", "start_headers"]

logger = logging.getLogger("profile_enrich")


def marking(lookup: RequestLookup, send: Send, enclosing: tuple[RequestLookup, ...]) -> Send:
    """Return a `send` that marks the response as personal if the profile was read.

    Args:
        lookup: of the request.
        send: the `send` of the server or outer middleware.
        enclosing: the lookups of the enclosing middleware.
    """
    # A function, because calling an object takes twice as long; not a coroutine, because most messages pass through.

    def marked(message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.start":
            if lookup.read or lookup.config.server_timing:
                message = _start(lookup, message)
            lookup.headers_sent = True
        elif kind != "http.response.body":
            return send(message)
        elif not message.get("more_body"):
            lookup.completed = True
        return send(message) if lookup.read else _send_outside(send, message, enclosing)

    return marked


async def _send_outside(send: Send, message: Message, enclosing: tuple[RequestLookup, ...]) -> None:
    """Send a part of a cacheable page; a later read of the profile is an error."""
    token = INSIDE.set(enclosing)
    try:
        await send(message)
    finally:
        INSIDE.reset(token)


def _start(lookup: RequestLookup, message: Message) -> Message:
    """Return the start of a response with the headers of this request."""
    headers: Any = message.get("headers") or []
    if lookup.read:
        if type(headers) not in (list, tuple):  # an iterator can be read only once
            headers = list(headers)
        remedy = inner_cache(lookup.scope, headers, declared=lookup.declared)
        if remedy is not None:
            warn_inner_cache(remedy, once=lookup.config.once, endpoint=lookup.endpoint())
    return {**message, "headers": start_headers(lookup, headers)}


def start_headers(lookup: RequestLookup, headers: Headers) -> Headers:
    """Return the headers of a response, made personal if the profile was read, with `Server-Timing`.

    Args:
        lookup: of the request.
        headers: the application's headers.
    """
    if lookup.read:
        headers = _personal(lookup, headers)
    if lookup.config.server_timing:
        details = lookup.details()
        timing = f'profile;desc="{details.status.value}";dur={1000 * details.seconds:.2f}'.encode()
        headers = [*headers, (b"server-timing", timing)]  # W3C: the lookup's status, and how long the request waited
    return headers


def _personal(lookup: RequestLookup, headers: Headers) -> Headers:
    config, session = lookup.config, lookup.scope.get("session")
    vary_on = config.vary_on if session is None else _vary_on(config, session)
    if vary_on is config.vary_on and type(headers) is list and is_plain(headers):  # the usual case
        return headers + config.personal_lines
    headers, invited = personalise(headers, vary_on)
    if invited and config.once.first("shared", lookup.endpoint()):
        logger.warning(
            "%s read the profile and allowed shared caches to keep the page; it was made private. Do not set "
            "public, s-maxage or a CDN's own cache header on a page that reads the profile",
            lookup.endpoint(),
        )
    return headers


def _vary_on(config: MiddlewareConfig, session: object) -> tuple[str, ...]:
    """Return the request headers for `Vary`, without those that an outer middleware will add."""
    if getattr(session, "accessed", False) and type(session).__module__ == "starlette.middleware.sessions":
        # Starlette's SessionMiddleware appends `Cookie` even if it is already there.
        return tuple(name for name in config.vary_on if name.lower() != "cookie")
    return config.vary_on
