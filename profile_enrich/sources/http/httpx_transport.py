"""Transports over httpx and httpx2, which have the same classes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import ModuleType
from typing import Any, cast

from ..._utils.deadline import Deadline
from ...errors import ConfigurationError, ProfileEnrichError, SourceConnectionError, SourceResponseError
from .body_reader import BodyReader
from .client_per_loop import LoopClients
from .failures import connection_failed, cut_short, not_connected, timed_out, unexpected
from .messages import Headers, HttpRequest, HttpResponse, TransportOptions
from .proxies import Proxies
from .quiet_logging import quiet, silence_loggers
from .tls import default_tls

__all__ = ["HandedInHttpx", "HttpxTransport"]

GRACE_SECONDS = 0.1
"""Seconds after the deadline until the request is cancelled, in case the HTTP client's own timeouts did not fire."""


MOST_IDLE = 20
"""The largest number of idle connections in a pool."""


class _Connection:
    """Record which connection a request was sent on, through httpcore's `trace` extension."""

    __slots__ = ("_opened", "_sent")

    def __init__(self) -> None:
        self._opened = self._sent = False

    async def trace(self, event: str, info: object) -> None:
        """Receive an event of httpcore."""
        if event.endswith(("connect_tcp.started", "connect_unix_socket.started")):
            self._opened = True
        elif event.endswith("send_request_headers.started"):
            self._sent = True

    @property
    def was_idle(self) -> bool:
        """Return whether the request was sent on a reused connection."""
        return self._sent and not self._opened


class _Timeouts(dict[str, float]):
    """The timeouts of a request. Each is the time until the deadline at the moment it starts.

    Fixed timeouts (connect, read, ...) would add up to several times the deadline.
    """

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def get(self, name: str, default: Any = None) -> Any:
        return self._deadline.remaining()


class _Pools:
    """Connection pools of one event loop, one per proxy. `AsyncHTTPTransport` is an httpx client without redirects,
    cookies, authentication flows and logging."""

    def __init__(self, httpx: ModuleType, options: TransportOptions, tls: object) -> None:
        self._httpx = httpx
        self._options = options
        self._tls = tls
        self._proxies = Proxies(read=options.environment)
        self._pools: dict[tuple[str | None, bool], Any] = {}

    def of(self, url: str, *, fresh: bool = False) -> Any:
        """Return the pool for a URL; with `fresh`, one that opens a new connection for each request."""
        proxy = self._proxies.of(url)
        pool = self._pools.get((proxy, fresh))
        if pool is None:
            pool = self._pools[proxy, fresh] = self._httpx.AsyncHTTPTransport(
                verify=self._tls,
                proxy=proxy,
                limits=self._httpx.Limits(
                    max_connections=self._options.max_connections,
                    # httpcore 1.0 checks every idle connection on each request, so a larger pool costs more than it
                    # saves.
                    max_keepalive_connections=0 if fresh else min(MOST_IDLE, self._options.max_connections),
                    keepalive_expiry=self._options.keepalive_seconds,
                ),
            )
        return pool

    async def aclose(self) -> None:
        """Close what this transport opened."""
        for pool in self._pools.values():
            await pool.aclose()


class _Httpx:
    """Base of both httpx transports: build the request, read the response, map the errors."""

    def __init__(self, httpx: ModuleType, max_body_bytes: int) -> None:
        self._httpx = httpx
        self._limit = max_body_bytes
        core = httpx.__name__.replace("httpx", "httpcore")
        silence_loggers(
            httpx.__name__, core, *(f"{core}.{part}" for part in ("connection", "http11", "http2", "proxy", "socks"))
        )

    @property
    def name(self) -> str:
        return self._httpx.__name__

    def _request(self, request: HttpRequest, deadline: Deadline, defaults: object, connection: _Connection) -> Any:
        # A client's `build_request` would add cookies of earlier responses, and the client's parameters.
        headers = self._httpx.Headers(defaults)
        headers.update(request.headers)
        return self._httpx.Request(
            request.method,
            request.url,
            headers=headers,
            content=request.body,
            extensions={"timeout": _Timeouts(deadline), "trace": connection.trace},
        )

    async def _exchange(
        self,
        sender: Any,
        request: HttpRequest,
        deadline: Deadline,
        defaults: object = None,
        *,
        again: Callable[[], Any] | None,
    ) -> HttpResponse:
        """Send a request and read the response. Errors are raised outside of the handlers, so that httpx's exceptions,
        which hold the request and its URL, are not chained to ours.

        The server may close an idle connection while a request is being sent on it. All requests are idempotent, so it
        is sent once more through the pool that `again` returns (RFC 9112, section 9.3.1).
        """
        httpx = self._httpx
        connection = _Connection()
        failure: ProfileEnrichError
        response: Any = None
        try:
            response = await sender(self._request(request, deadline, defaults, connection))
            headers = Headers(response.headers.raw)
            body = BodyReader(headers, self._limit)
            # Read the raw stream: httpx's decoders decompress without a limit.
            stream = cast("AsyncIterator[bytes]", response.stream.__aiter__())
            try:
                async for chunk in stream:
                    body.feed(chunk)
                    if deadline.passed:
                        raise timed_out(deadline.seconds)
            finally:
                if isinstance(stream, AsyncGenerator):
                    await stream.aclose()
            return HttpResponse(response.status_code, headers, body.end())
        except httpx.TimeoutException:
            failure = timed_out(deadline.seconds)
        except httpx.TransportError as error:
            failure = cut_short() if response is not None else self._name(error)
        except httpx.InvalidURL:
            failure = ConfigurationError("the HTTP client refuses the URL; check base_url and the length of the key")
        except ProfileEnrichError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it may hold the URL
            if isinstance(error, RuntimeError) and ("event loop" in str(error) or "closed" in str(error)):
                failure = ConfigurationError(
                    "the HTTP client handed in is closed, or belongs to another event loop; without it, each loop gets "
                    "one of its own"
                )
            else:
                failure = unexpected(error)
        finally:
            if response is not None:
                with contextlib.suppress(httpx.TransportError):
                    await response.aclose()
        if (
            again is not None
            and response is None
            and connection.was_idle
            and isinstance(failure, SourceConnectionError)
        ):
            return await self._exchange(again(), request, deadline, defaults, again=None)
        raise failure

    def _name(self, error: Exception) -> ProfileEnrichError:
        httpx = self._httpx
        if isinstance(error, httpx.ConnectError):
            return not_connected(error)
        if isinstance(error, httpx.ProxyError):
            return SourceConnectionError("the proxy that the environment names refused the connection")
        if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
            return SourceResponseError("the source's answer is not HTTP")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return ConfigurationError("the HTTP client refuses the request; check base_url and the credentials")
        return connection_failed(error)


class HttpxTransport(_Httpx):
    """Send requests through connection pools that the transport opens, one set per event loop."""

    def __init__(self, httpx: ModuleType, options: TransportOptions, max_body_bytes: int) -> None:
        super().__init__(httpx, max_body_bytes)
        self._options = options
        self._clients = LoopClients(self._open, _Pools.aclose)

    def _open(self) -> _Pools:
        return _Pools(self._httpx, self._options, self._options.tls or default_tls(self._httpx))

    async def send(self, request: HttpRequest, *, deadline: Deadline) -> HttpResponse:
        """Send one request; see `Transport.send`."""
        left = deadline.remaining()
        if left <= 0.0:
            raise timed_out(deadline.seconds)
        lease = await self._clients.acquire()
        finished = False
        try:
            pools = lease.client

            def again() -> Any:
                return pools.of(request.url, fresh=True).handle_async_request

            with quiet():
                async with asyncio.timeout(left + GRACE_SECONDS):
                    sender = pools.of(request.url).handle_async_request
                    response = await self._exchange(sender, request, deadline, again=again)
            finished = True
            return response
        except ProfileEnrichError:
            finished = True
            raise
        except TimeoutError:
            pass  # the client's own timeouts did not fire
        finally:
            # A cancelled request can leak a connection of its pool (httpcore#1093), so the pool is retired after any
            # cancellation.
            if not finished:
                self._clients.retire(lease)
            self._clients.release(lease)
        raise timed_out(deadline.seconds)

    async def aclose(self) -> None:
        """Close what this transport opened."""
        await self._clients.aclose()


class HandedInHttpx(_Httpx):
    """Send requests through a client that the user passed and keeps ownership of."""

    def __init__(self, httpx: ModuleType, client: Any, max_body_bytes: int) -> None:
        super().__init__(httpx, max_body_bytes)
        self._client = client

    async def send(self, request: HttpRequest, *, deadline: Deadline) -> HttpResponse:
        """Send one request; see `Transport.send`."""
        left = deadline.remaining()
        if left <= 0.0:
            raise timed_out(deadline.seconds)
        try:
            with quiet():
                async with asyncio.timeout(left + GRACE_SECONDS):
                    return await self._exchange(
                        self._send, request, deadline, self._client.headers, again=lambda: self._send
                    )
        except ProfileEnrichError:
            raise
        except TimeoutError:
            pass  # the client's own timeouts did not fire
        raise timed_out(deadline.seconds)

    async def _send(self, request: Any) -> Any:
        return await self._client.send(request, stream=True, auth=None, follow_redirects=False)

    async def aclose(self) -> None:
        """Close what this transport opened."""
        return
