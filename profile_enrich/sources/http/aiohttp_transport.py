"""Transports over aiohttp."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
import httpx
import yarl

from ..._utils.deadline import Deadline
from ...errors import ConfigurationError, ProfileEnrichError, SourceConnectionError, SourceResponseError
from .body_reader import BodyReader
from .client_per_loop import LoopClients
from .failures import connection_failed, cut_short, not_connected, timed_out, unexpected
from .messages import Headers, HttpRequest, HttpResponse, TransportOptions
from .proxies import Proxies
from .quiet_logging import quiet, silence_loggers
from .tls import default_tls

__all__ = ["AiohttpTransport", "HandedInAiohttp"]


_opens: ContextVar[list[object]] = ContextVar("profile_enrich_opens")
"""The addresses to which the current request opens connections."""


def _open_socket(address: Any) -> socket.socket:
    # A `TraceConfig` would say the same, and add a tenth to the cost of each request.
    _opens.get().append(address)
    return socket.socket(*address[:3])


class _Session:
    """A session of one event loop, with the proxies from the environment at the time it was opened."""

    def __init__(self, options: TransportOptions, tls: ssl.SSLContext) -> None:
        # aiohttp's `trust_env` would read the environment and ~/.netrc in a thread for each request.
        self.proxies = Proxies(read=options.environment)
        self._options = options
        self._tls = tls
        self._fresh: aiohttp.ClientSession | None = None
        self.session = self._open(keepalive_timeout=options.keepalive_seconds, socket_factory=_open_socket)

    def fresh(self) -> aiohttp.ClientSession:
        """Return a session that opens a new connection for each request."""
        if self._fresh is None:
            self._fresh = self._open(force_close=True)
        return self._fresh

    def _open(self, **connector: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._options.max_connections, ssl=self._tls, **connector),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close both sessions."""
        await self.session.close()
        if self._fresh is not None:
            await self._fresh.close()


class _Aiohttp:
    """Base of both aiohttp transports: send a request, read the response, map the errors."""

    def __init__(self, max_body_bytes: int) -> None:
        self._limit = max_body_bytes
        silence_loggers("aiohttp.client", "aiohttp.internal")

    @property
    def name(self) -> str:
        return "aiohttp"

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        request: HttpRequest,
        deadline: Deadline,
        proxy: str | None,
        *,
        again: Callable[[], aiohttp.ClientSession] | None = None,
    ) -> HttpResponse:
        """Send a request and read the response. Errors are raised outside of the handlers, so that aiohttp's
        exceptions, which hold the request and its URL, are not chained to ours.

        The server may close an idle connection while a request is being sent on it. All requests are idempotent, so it
        is sent once more through the session that `again` returns (RFC 9112, section 9.3.1). aiohttp repeats idempotent
        requests too, but may pick another idle connection.
        """
        left = deadline.remaining()
        if left <= 0.0:
            raise timed_out(deadline.seconds)
        failure: ProfileEnrichError
        response: aiohttp.ClientResponse | None = None
        opens: list[object] = []
        context = _opens.set(opens)
        try:
            with quiet():
                response = await session.request(
                    request.method,
                    yarl.URL(request.url, encoded=True),
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,
                    auto_decompress=False,
                    raise_for_status=False,
                    proxy=proxy,
                    # One timer covers connecting, sending and reading; the threshold prevents rounding up.
                    timeout=aiohttp.ClientTimeout(total=left, ceil_threshold=math.inf),
                )
                headers = Headers(response.raw_headers)
                body = BodyReader(headers, self._limit)
                async for chunk in response.content.iter_any():
                    body.feed(chunk)
            return HttpResponse(response.status, headers, body.end())
        except ProfileEnrichError:
            raise
        except TimeoutError:
            failure = timed_out(deadline.seconds)
        except Exception as error:  # noqa: BLE001  # whatever it is, it may hold the URL
            failure = cut_short() if response is not None else self._name(error)
            if opens or session.closed or isinstance(error, aiohttp.ClientConnectorError):
                again = None  # the connection, if there was one, had not been idle
        finally:
            _opens.reset(context)
            if response is not None:
                response.close()  # returns a fully read connection to the pool, closes any other
        if again is not None and response is None and isinstance(failure, SourceConnectionError):
            return await self._exchange(again(), request, deadline, proxy)
        raise failure

    def _name(self, error: Exception) -> ProfileEnrichError:
        if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            return SourceConnectionError("the proxy that the environment names refused the connection")
        if isinstance(error, aiohttp.InvalidURL):
            return ConfigurationError("the HTTP client refuses the URL; check base_url and the length of the key")
        if isinstance(error, aiohttp.ClientConnectorError):
            return not_connected(error)
        if isinstance(error, aiohttp.ClientConnectionError | OSError):
            return connection_failed(error)
        if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
            return SourceResponseError("the source's answer is not HTTP")
        if isinstance(error, RuntimeError | ValueError):
            return ConfigurationError(
                "the HTTP client refuses the request: is the session that was handed in closed, of another event loop, "
                "or set up with credentials of its own?"
            )
        return unexpected(error)


class AiohttpTransport(_Aiohttp):
    """Send requests through sessions that the transport opens, one per event loop."""

    def __init__(self, options: TransportOptions, max_body_bytes: int) -> None:
        super().__init__(max_body_bytes)
        self._options = options
        self._clients = LoopClients(self._open, _Session.aclose)

    def _open(self) -> _Session:
        # httpx's default context, so that all transports trust the same authorities.
        return _Session(self._options, self._options.tls or default_tls(httpx))

    async def send(self, request: HttpRequest, *, deadline: Deadline) -> HttpResponse:
        """Send one request; see `Transport.send`."""
        lease = await self._clients.acquire()
        try:
            opened = lease.client
            proxy = opened.proxies.of(request.url)
            return await self._exchange(opened.session, request, deadline, proxy, again=opened.fresh)
        finally:
            # On cancellation aiohttp closes the connection and frees its slot; the session stays usable.
            self._clients.release(lease)

    async def aclose(self) -> None:
        """Close what this transport opened."""
        await self._clients.aclose()


class HandedInAiohttp(_Aiohttp):
    """Send requests through a session that the user passed and keeps ownership of.

    Raises:
        ConfigurationError: the session stores cookies. One person's cookies would be sent with another's request, and
            aiohttp cannot omit them per request.
    """

    def __init__(self, session: aiohttp.ClientSession, max_body_bytes: int) -> None:
        super().__init__(max_body_bytes)
        if not isinstance(session.cookie_jar, aiohttp.DummyCookieJar):
            raise ConfigurationError(
                "transport: the aiohttp.ClientSession keeps cookies, which would ride on other people's requests; make "
                "it with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())"
            )
        self._session = session

    async def send(self, request: HttpRequest, *, deadline: Deadline) -> HttpResponse:
        """Send one request; see `Transport.send`."""
        return await self._exchange(self._session, request, deadline, None)

    async def aclose(self) -> None:
        """Close what this transport opened."""
        return
