"""Invalidation webhook: an ASGI app that removes changed profiles from the cache.

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

Without a `SharedCache`, a call removes profiles only from the process that receives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, Secret
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .._utils.fork import reset_after_fork
from .._utils.log_once import LogOnce
from .._utils.validation import check_int, check_number
from ..client.client import ProfileClient
from ..errors import ConfigurationError, SharedCacheUnavailable
from .invalidation_payload import SLICE, InvalidationPayload, MalformedPayload, parse_changes

__all__ = ["ProfileInvalidation", "sign"]

logger = logging.getLogger("profile_enrich")

MIN_SECRET = 16
"""The shortest secret, in characters."""

QUIET_SECONDS = 60.0
"""Rejected calls of one kind are logged at most once in this many seconds."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")


def sign(secret: str | Secret, body: bytes, timestamp: int | None = None) -> dict[str, str]:
    """Return the two headers of a signed call, for senders.

    Args:
        secret: the shared secret, at least 16 characters of printable ASCII.
        body: the bytes of the body exactly as they are sent.
        timestamp: seconds since the epoch; the current time by default.

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
    """Remove the profiles named in a signed call from the cache of a client; results of running loads are discarded.

    It responds with 200 and the numbers of keys and tags, once every process with the same `SharedCache` has removed
    them; with 400 to a malformed body, without removing anything; with 401 to a missing or wrong signature or
    timestamp; with 405, 408, 413 and 415; and with 503 if another process did not acknowledge in time. A repeated call
    is not executed again: it gets 200 with `"repeated": true`.

    Args:
        client: the client.
        secret: the shared secret, at least 16 characters of printable ASCII; or several for rotation, all of which are
            accepted.
        window: the largest difference between timestamp and clock, in seconds. Default 300.
        max_body: the largest body, in bytes. Default 1 MiB.
        body_timeout: the time limit for receiving the body, in seconds. Default 10.
        remember: the number of recent calls kept to detect repetitions. Default 10,000.
        clock: seconds since the epoch.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
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
            check_number(name, seconds, positive=True)
        for name, number in (("max_body", max_body), ("remember", remember)):
            check_int(name, number)
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
        self._refused = LogOnce(QUIET_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call, at any path."""
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
        # Wait for an identical running call; if it fails, execute this one.
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
        """Return the timestamp and the signature, after the checks that do not need the body."""
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
        # Check every secret, so that the timing does not reveal which one matched.
        macs = [_mac(secret, timestamp, body) for secret in self._secrets]
        if not sum([hmac.compare_digest(mac, given) for mac in macs]):
            raise self._unauthorized("with a wrong signature")
        return macs[0]

    def _unauthorized(self, how: str) -> _Refused:
        if self._refused.first(how):
            logger.warning("a call that asks to drop profiles came %s; it was refused", how)
        text = "the timestamp or the signature is missing, wrong or too old"
        return _Refused(401, "unauthorized", text, {"WWW-Authenticate": "ProfileSignature"})

    # --- what is sent -----------------------------------------------------------------------------------------------

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """Read the body; `None` if the caller disconnected."""
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
    """Carries the response to a rejected call."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = JSONResponse({"error": {"code": code, "message": message}}, status, headers)


class _Seen:
    """The latest `limit` executed calls, to detect repetitions."""

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
    """Handle the lifespan of a standalone app."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
