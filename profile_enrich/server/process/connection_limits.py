"""Limits of connections before their requests are authenticated.

Unauthenticated clients can use up to `connections` times `head_bytes` of memory per worker, for `receive_timeout`
seconds each, and one file descriptor per connection. If all connections are in use, a new one replaces the one that has
been idle longest; if none is idle, `health_connections` more are accepted, for `/healthz` only.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..dialects import census
from ..http.messages import JSON

__all__ = ["ConnectionLimits", "limited_protocol"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the connections of one worker process.

    Args:
        connections: the largest number of open connections.
        health_connections: the number of additional connections, for `/healthz` only.
        head_bytes: the largest size of a request without its body: request line, headers, chunk framing and trailers.
        header_count: the largest number of headers.
        receive_timeout: seconds from the start of the connection, or the first byte of a later request, to the last
            byte.
        write_timeout: seconds without progress in sending a response.
        idle_timeout: seconds that a connection may be idle after a response.
    """

    connections: int = 2000
    health_connections: int = 8
    head_bytes: int = 32 * 1024
    header_count: int = 100
    receive_timeout: float = 15.0
    write_timeout: float = 20.0
    idle_timeout: int = 5

    @classmethod
    def for_this_process(cls) -> Self:
        """Raise the soft limit of open files to the hard limit, and reserve descriptors for the store and logs."""
        default = cls()
        with contextlib.suppress(ImportError, OSError, ValueError):
            import resource  # not on Windows

            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            wanted = 2 * default.connections
            target = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
            if soft != resource.RLIM_INFINITY and soft < target:
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
                soft = target
            if soft != resource.RLIM_INFINITY:
                return cls(connections=max(8, min(default.connections, soft // 2)))
        return default


_LAST_REQUEST = 0.25
"""Seconds that a server which stops gives an idle connection for a request that is on its way."""


class _HealthOnly:
    """Serve `/healthz`, and return 503 for other requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        full = census.error(503, "All connections are in use; come back later.", ((b"retry-after", b"5"),))
        headers = [*full.headers, JSON, (b"content-length", b"%d" % len(full.body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": full.status, "headers": headers})
        await send({"type": "http.response.body", "body": full.body})


class _LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. Each server has a subclass, whose attributes its connections share."""

    limits: ClassVar[ConnectionLimits]
    waiting: ClassVar[dict[_LimitedProtocol, None]]
    """Connections without a complete request, the oldest first."""

    _overhead = 0
    _body_bytes = 0
    _receiving = False
    _refusal = 400
    _stopping = False
    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        limits = self.limits
        if len(self.connections) > limits.connections:
            oldest = next(iter(self.waiting), None)
            if oldest is not None:
                del self.waiting[oldest]
                oldest.transport.abort()
            elif len(self.connections) <= limits.connections + limits.health_connections:
                self.app = _HealthOnly(self.app)
            else:
                transport.abort()
                return
        self.waiting[self] = None
        self._deadline = self.loop.call_later(limits.receive_timeout, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        self._cancel_deadline()
        self._writable()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Overridden because uvicorn logs a line for each malformed request, which any client can cause.
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._body_bytes = 0
        self._overhead += len(data)
        try:
            self.parser.feed_data(data)  # pyright: ignore[reportOptionalMemberAccess]  # none only once disconnected
        except httptools.HttpParserUpgrade:
            pass  # WebSockets are not supported: the request is treated as plain HTTP
        except httptools.HttpParserError:
            self._refuse(self._refusal)
            return
        if self._receiving:
            self._overhead -= self._body_bytes
            if self._overhead > self.limits.head_bytes or len(self.headers) > self.limits.header_count:
                self._refuse(431)
            elif self._deadline is None:
                self._deadline = self.loop.call_later(self.limits.receive_timeout, self.transport.abort)
        else:
            self._overhead = 0

    def on_message_begin(self) -> None:
        self._receiving = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # A head received in one piece can exceed the limit.
        if len(self.headers) > self.limits.header_count or (
            self._overhead > self.limits.head_bytes
            and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.head_bytes
        ):
            self._refusal = 431
            raise ValueError  # makes httptools stop parsing
        # RFC 9112, section 3.2. A proxy in front may have used the other one.
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise ValueError
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._receiving = False
        self.waiting.pop(self, None)
        if self._deadline is not None:
            self._cancel_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.waiting[self] = None

    def shutdown(self) -> None:
        # A request may be on its way: many clients do not send it again when the connection is closed.
        if not self._stopping and (not self.cycle or self.cycle.response_complete):
            self._stopping = True
            self.loop.call_later(_LAST_REQUEST, self.shutdown)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self.limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self._writable()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        # `close` would wait for a client that does not read.
        self.transport.abort() if self.transport.get_write_buffer_size() else self.transport.close()

    def _refuse(self, status: int) -> None:
        if not self.cycle or self.cycle.response_complete:
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _writable(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None


def limited_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Return a protocol class for one server, with these limits."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits, "waiting": {}})
