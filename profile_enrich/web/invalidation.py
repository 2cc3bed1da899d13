"""A small ASGI app that drops profiles when a reverse-ETL tool says that they changed.

```python
routes = [Route("/profile-webhook", ProfileInvalidation(profiles, secret=...)), ...]
```

A call is a POST of JSON, at most 1 MiB:

```json
{"keys": ["u1", {"type": "email", "value": "ann@shop.example"}], "tags": ["vip"], "all": false}
```

with two headers: `X-Profile-Timestamp`, the time of the call in whole seconds since the epoch, and
`X-Profile-Signature`, `sha256=` and the hexadecimal HMAC-SHA256 (RFC 2104) of the timestamp as it is in the header, a
dot, and the body. `sign` makes both.

Each process has a cache of its own: a call drops profiles in the process that answers it, and in no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, Secret
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .._utils.fork import reset_after_fork
from ..client.client import ProfileClient
from ..errors import ConfigurationError, SharedCacheUnavailable
from .invalidation_payload import SLICE, InvalidationPayload, MalformedPayload, parse_changes

__all__ = ["ProfileInvalidation", "sign"]

logger = logging.getLogger("profile_enrich")

MIN_SECRET = 16
"""The shortest secret, in characters."""

QUIET_SECONDS = 60.0
"""Refused calls of the same kind are logged at most once in so many seconds."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")


def sign(secret: str | Secret, body: bytes, timestamp: int | None = None) -> dict[str, str]:
    """The two headers that a call needs, for senders.

    Args:
        secret: what sender and receiver share, at least 16 characters of printable ASCII.
        body: the bytes of the body exactly as they are sent.
        timestamp: seconds since the epoch; now when not given.

    Returns:
        `X-Profile-Timestamp` and `X-Profile-Signature`.

    Raises:
        ConfigurationError: the secret is too short or has other characters.
    """
    text = str(int(time.time()) if timestamp is None else timestamp)
    return {"X-Profile-Timestamp": text, "X-Profile-Signature": f"sha256={_mac(_secret(secret), text, body).hex()}"}


def _mac(secret: Secret, timestamp: str, body: bytes) -> bytes:
    mac = hmac.new(str(secret).encode(), timestamp.encode(), hashlib.sha256)
    mac.update(b".")
    mac.update(body)
    return mac.digest()


class ProfileInvalidation:
    """Drops what a signed call names from the cache of a client; loads of it that are under way are not kept.

    It answers 200 with the numbers of keys and tags, once every process with the same `SharedCache` has dropped
    them; 400 to a body that makes no sense, and then nothing is dropped; 401 to a signature or timestamp that is
    missing or wrong, without saying which; 405, 408, 413 and 415; 503 when another process did not acknowledge in
    time. A call that was carried out already is not carried out again: it gets 200 with `"repeated": true`, so that
    a sender that missed the first answer is content.

    Args:
        client: whose cache it is.
        secret: what sender and receiver share, at least 16 characters of printable ASCII; or several, all of which
            are accepted, to change from one to the next.
        window: seconds by which the timestamp may differ from the clock, both ways. Default 300.
        max_body: the largest body, in bytes. Default 1 MiB.
        body_timeout: seconds in which the body must have arrived. Default 10.
        remember: calls that are remembered, so that they are not carried out twice within the window. Default 10,000.
        clock: seconds since the epoch.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """

    def __init__(
        self,
        client: ProfileClient,
        *,
        secret: str | Secret | Iterable[str | Secret],
        window: float = 300.0,
        max_body: int = 2**20,
        body_timeout: float = 10.0,
        remember: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(client, ProfileClient):
            raise ConfigurationError(f"client must be a ProfileClient, not {type(client).__name__}")
        for name, seconds in (("window", window), ("body_timeout", body_timeout)):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
                raise ConfigurationError(f"{name} must be a positive number of seconds, not {seconds!r}")
        for name, number in (("max_body", max_body), ("remember", remember)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"{name} must be a whole number of at least 1, not {number!r}")
        self._client = client
        self._secrets = [_secret(one) for one in ([secret] if isinstance(secret, str | Secret) else secret)]
        if not self._secrets:
            raise ConfigurationError("secret must be a secret, or several; with none, no call could be accepted")
        self._window = window
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._clock = clock
        self._seen = _Seen(remember)
        self._running: dict[tuple[asyncio.AbstractEventLoop, bytes], asyncio.Event] = {}
        self._said: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, at any path."""
        if scope["type"] == "lifespan":
            await _idle(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        elif scope["type"] == "http":
            response: Response | None
            try:
                response = await self._answer(scope, receive)
            except _Refused as refusal:
                response = refusal.response
            except MalformedPayload as fault:
                response = _Refused(400, "bad_request", str(fault)).response
            if response is not None:
                await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        headers = Headers(scope=scope)
        _check_form(scope["method"], headers)
        timestamp, given = self._credentials(headers)
        body = await self._body(headers, receive)
        if body is None:
            return None
        fingerprint = self._verify(timestamp, given, body)
        # An identical call that is being carried out is waited for; when that one fails, this one is carried out.
        running = (asyncio.get_running_loop(), fingerprint)
        while running in self._running:
            await self._running[running].wait()
        if fingerprint in self._seen:
            return JSONResponse({"keys": 0, "tags": 0, "all": False, "repeated": True})
        done = self._running[running] = asyncio.Event()
        try:
            changes = await parse_changes(body)
            await self._carry_out(changes)
            try:
                await self._client.acknowledged()
            except SharedCacheUnavailable as error:
                raise _Refused(503, "unavailable", f"{error}; send the call again") from None
            self._seen.add(fingerprint)
        finally:
            del self._running[running]
            done.set()
        counts = {"keys": len(changes.keys), "tags": len(changes.tags), "all": changes.all}
        return JSONResponse({**counts, "repeated": False})

    async def _carry_out(self, changes: InvalidationPayload) -> None:
        if changes.all:
            self._client.clear()
        for start in range(0, len(changes.keys), SLICE):
            self._client.invalidate(*changes.keys[start : start + SLICE])
            await asyncio.sleep(0)
        for number, tag in enumerate(changes.tags, 1):
            self._client.invalidate(tag=tag)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        everything = "everything, " if changes.all else ""
        name, keys, tags = self._client.source.name, len(changes.keys), len(changes.tags)
        logger.info("%s: dropped %s%d keys and %d tags from the cache, as asked", name, everything, keys, tags)

    # --- who calls --------------------------------------------------------------------------------------------------

    def _credentials(self, headers: Headers) -> tuple[str, bytes]:
        """The timestamp and the signature, checked as far as that goes without the body."""
        timestamps, signatures = headers.getlist("x-profile-timestamp"), headers.getlist("x-profile-signature")
        if len(timestamps) != 1 or len(signatures) != 1:
            raise self._unauthorized("without exactly one timestamp and one signature")
        signature = _SIGNATURE.fullmatch(signatures[0])
        if signature is None or not _TIMESTAMP.fullmatch(timestamps[0]):
            raise self._unauthorized("with a timestamp or a signature of another form")
        if abs(self._clock() - int(timestamps[0])) > self._window:
            raise self._unauthorized("with a timestamp outside of the window; it is repeated, or a clock is wrong")
        return timestamps[0], bytes.fromhex(signature[1])

    def _verify(self, timestamp: str, given: bytes, body: bytes) -> bytes:
        """Check the signature and return the id that detects a replay of the call."""
        # With every secret each time: how long it takes must not tell which one was right.
        macs = [_mac(secret, timestamp, body) for secret in self._secrets]
        if not sum([hmac.compare_digest(mac, given) for mac in macs]):
            raise self._unauthorized("with a wrong signature")
        return macs[0]

    def _unauthorized(self, how: str) -> _Refused:
        now = time.monotonic()
        if now - self._said.get(how, -QUIET_SECONDS) >= QUIET_SECONDS:
            self._said[how] = now
            logger.warning("a call that asks to drop profiles came %s; it was refused", how)
        text = "the timestamp or the signature is missing, wrong or too old"
        return _Refused(401, "unauthorized", text, {"WWW-Authenticate": "ProfileSignature"})

    # --- what is sent -----------------------------------------------------------------------------------------------

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The body; `None` when the caller went away."""
        too_large = _Refused(413, "too_large", f"the body has more than {self._max_body:,} bytes; send several calls")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:18]) > self._max_body:
            raise too_large
        body = bytearray()
        more = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._body_timeout):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._max_body:
                        raise too_large
                    more = message.get("more_body", False)
        if more:
            raise _Refused(408, "timeout", f"the body was not there within {self._body_timeout:g} s")
        return bytes(body)

    def __repr__(self) -> str:
        return f"<ProfileInvalidation of {self._client.source.name}, {len(self._secrets)} secrets>"


class _Refused(Exception):
    """Carries the answer to a call that is not carried out."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = JSONResponse({"error": {"code": code, "message": message}}, status, headers)


class _Seen:
    """The latest calls that were carried out, `limit` of them. Older ones are outside of the window, or harmless."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: dict[bytes, None] = {}
        self._lock = threading.Lock()
        reset_after_fork(self)

    def __contains__(self, call: bytes) -> bool:
        return call in self._calls

    def add(self, call: bytes) -> None:
        with self._lock:
            self._calls[call] = None
            if len(self._calls) > self._limit:
                del self._calls[next(iter(self._calls))]

    def after_fork(self) -> None:
        self._lock = threading.Lock()


def _secret(secret: str | Secret) -> Secret:
    plain = str(secret) if isinstance(secret, str | Secret) else ""
    if len(plain) < MIN_SECRET or not plain.isascii() or not plain.isprintable():
        raise ConfigurationError(f"secret must have at least {MIN_SECRET} characters of printable ASCII")
    return Secret(plain)


def _check_form(method: str, headers: Headers) -> None:
    if method != "POST":
        raise _Refused(405, "method_not_allowed", "send a POST", {"Allow": "POST"})
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Refused(415, "unsupported_media_type", "send application/json", {"Accept": "application/json"})
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _Refused(415, "unsupported_media_type", "send the body as it is, not compressed")


async def _idle(receive: Receive, send: Send) -> None:
    """The lifespan of an app that has nothing to open: for a server that runs it on its own."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
