"""Response of a request with a profile: its cache headers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from starlette.types import Message, Send

from .cache_headers import Headers, is_plain, personalise
from .config import MiddlewareConfig
from .framework_caches import inner_cache, warn_inner_cache
from .request_lookup import INSIDE, RequestLookup

__all__ = ["ProfileResponse", "start_headers"]

logger = logging.getLogger("profile_enrich")


class ProfileResponse:
    """Send the messages of a response, marked as personal if the profile was read.

    Args:
        lookup: of the request.
        send: the `send` of the server or outer middleware.
    """

    __slots__ = ("_lookup", "_send")

    def __init__(self, lookup: RequestLookup, send: Send) -> None:
        self._lookup = lookup
        self._send = send

    def __call__(self, message: Message) -> Awaitable[None]:
        """Pass a message on."""
        # Not a coroutine, because most messages only pass through.
        kind = message["type"]
        if kind == "http.response.start":
            return self._start(message)
        if kind != "http.response.body":
            return self._send(message)
        if not message.get("more_body"):
            self._lookup.completed = True
        return self._send(message) if self._lookup.read else self._send_outside(message)

    def _start(self, message: Message) -> Awaitable[None]:
        lookup = self._lookup
        if lookup.read:
            if type(message.get("headers")) not in (list, tuple):  # an iterator can be read only once
                message = {**message, "headers": list(message.get("headers") or [])}
            remedy = inner_cache(lookup.scope, message["headers"], declared=lookup.declared)
            if remedy is not None:
                warn_inner_cache(remedy, once=lookup.config.once, endpoint=lookup.endpoint())
        if lookup.read or lookup.config.server_timing:
            message = {**message, "headers": start_headers(lookup, message.get("headers") or [])}
        lookup.headers_sent = True
        return self._send(message) if lookup.read else self._send_outside(message)

    async def _send_outside(self, message: Message) -> None:
        """Send a part of a cacheable page; a later read of the profile is an error."""
        inside, own = INSIDE.get(), self._lookup
        usual = inside and inside[-1] is own
        token = INSIDE.set(inside[:-1] if usual else tuple(lookup for lookup in inside if lookup is not own))
        try:
            await self._send(message)
        finally:
            INSIDE.reset(token)


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
