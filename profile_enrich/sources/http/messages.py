"""Request, response and the `Transport` protocol."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ..._utils.deadline import Deadline
from ..._utils.validation import check_bool, check_int, check_number
from ...errors import ConfigurationError

__all__ = ["MAX_BODY_BYTES", "Headers", "HttpRequest", "HttpResponse", "Transport", "TransportOptions"]

MAX_BODY_BYTES = 10 * 1024 * 1024
"""The default of `max_body_bytes`: the largest response accepted, in bytes after decompression."""


class Headers(Mapping[str, str]):
    """Response headers with case-insensitive names. A repeated header is joined with commas (RFC 9110, section 5.3).

    Args:
        raw: the header lines as received, in order.
    """

    __slots__ = ("_lines",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._lines: dict[str, list[str]] = {}
        for name, value in raw:
            self._lines.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def get_all(self, name: str) -> list[str]:
        """Return the values of all lines with this name, in order."""
        return list(self._lines.get(name.lower(), ()))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._lines[name.lower()])

    def __contains__(self, name: object) -> bool:  # `Mapping`'s own raises and catches a KeyError for each miss
        return isinstance(name, str) and name.lower() in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self._lines)}>"  # values may be cookies or ids


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    Args:
        method: the method in capitals.
        url: the absolute, percent-encoded URL; it is sent unchanged.
        headers: names and values; values without control characters.
        body: the request body, if any.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response.

    Args:
        status: the HTTP status.
        headers: the response headers.
        body: the whole body, decompressed, within the transport's size limit.
    """

    status: int
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Settings of the HTTP client that a source opens. They do not apply to a client that you pass.

    Args:
        max_connections: the largest number of open connections per event loop.
        keepalive_seconds: how long an idle connection is kept, in seconds.
        tls: a TLS context, e.g. with a company's own certificate authority. By default certificates are verified
            against the usual authorities, or those that `SSL_CERT_FILE` / `SSL_CERT_DIR` name.
        environment: whether to use `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. They are read when a client
            is opened.

    Raises:
        ConfigurationError: a value is invalid; the message names it.
    """

    max_connections: int = 100
    keepalive_seconds: float = 15.0
    tls: ssl.SSLContext | None = None
    environment: bool = True

    def __post_init__(self) -> None:
        check_int("max_connections", self.max_connections)
        check_number("keepalive_seconds", self.keepalive_seconds)
        if self.tls is not None and not isinstance(self.tls, ssl.SSLContext):
            raise ConfigurationError(f"tls must be an ssl.SSLContext, not {type(self.tls).__name__}")
        check_bool("environment", self.environment)


@runtime_checkable
class Transport(Protocol):
    """A transport that sends HTTP requests.

    It follows no redirects, stores no cookies and verifies TLS certificates.
    """

    @property
    def name(self) -> str:
        """The HTTP client underneath: `"aiohttp"`, `"httpx2"`, `"httpx"`."""
        ...

    async def send(self, request: HttpRequest, *, deadline: Deadline) -> HttpResponse:
        """Send one request and read the whole answer.

        Raises:
            SourceTimeout: the deadline passed first.
            SourceConnectionError: there is no connection, or it broke before the response began.
            SourceResponseError: the response is not HTTP, is incomplete, too large or wrongly compressed.
        """
        ...

    async def aclose(self) -> None:
        """Close what was opened on the running loop. The next request opens it again."""
        ...
