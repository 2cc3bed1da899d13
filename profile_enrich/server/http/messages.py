"""Request and response of the endpoints, with strict parsing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Receive, Scope

__all__ = [
    "JSON",
    "MAX_ID_BYTES",
    "VARY",
    "AuditContext",
    "BadRequest",
    "Request",
    "Response",
    "json_response",
    "read_body",
]

MAX_ID_BYTES = 2048
"""The longest record id, in bytes, as in the store."""

MAX_BODY_BYTES = 64 * 1024

JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")

VARY: tuple[bytes, bytes] = (b"vary", b"authorization, authentication")
"""Headers of responses that depend on the key, so that caches do not serve them to another one."""

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class BadRequest(Exception):
    """The request is malformed. `message` gives the reason without quoting the request."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Response(NamedTuple):
    """A complete response.

    Attributes:
        status: the HTTP status.
        body: JSON, or empty for statuses such as 204.
        headers: the headers, without `content-type` and `content-length`.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(status: int, content: object, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    """Return a response with this JSON."""
    return Response(status, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), headers)


def _checked(raw: bytes) -> str:
    """Return the text, still percent-encoded, after checking its encoding."""
    # A lenient decoder would accept two spellings of one record: `%zz` and `%25zz`.
    if b"%" in raw and _BAD_PERCENT.search(raw):
        raise BadRequest("a percent sign must be followed by two hexadecimal digits")
    return _text(raw)


def _unquote(checked: str) -> str:
    return checked if "%" not in checked else _text(unquote_to_bytes(checked))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    raise BadRequest("percent-encoded text must be UTF-8")


@dataclass(slots=True)
class AuditContext:
    """The details of a request for the audit log.

    Attributes:
        key: the id of the API key.
        entity: the requested collection, if the key may read it.
        records: the requested ids, each with its status if it differs from the response's.
        profiles: the number of profiles on a page of an index; `None` for other requests.
    """

    key: str | None = None
    entity: str | None = None
    records: list[tuple[str, int | None]] = field(default_factory=list[tuple[str, int | None]], repr=False)
    profiles: int | None = None


class Request:
    """A request's line and headers.

    Args:
        scope: the ASGI scope of type `http`.
    """

    __slots__ = ("_headers", "_pairs", "limits", "method", "noted", "query", "root", "segments")

    def __init__(self, scope: Scope) -> None:
        self.method: str = scope["method"]
        self.query: bytes = scope.get("query_string", b"")
        self.root: str = scope.get("root_path", "").rstrip("/")
        """The path at which the application is mounted."""
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._pairs: list[tuple[str, str]] | None = None
        self.limits: tuple[tuple[bytes, bytes], ...] = ()
        """Headers of every response: the remaining quota of the key."""
        self.noted = AuditContext()
        self.segments = _segments(scope)
        """The path below the mount point, split at slashes, still percent-encoded, without a trailing slash."""

    def header(self, name: bytes) -> list[bytes]:
        """Return all values of a header; the name is in lower case."""
        return [value for key, value in self._headers if key == name]

    def one_header(self, name: bytes) -> bytes | None:
        """Return the value of a header that must not be repeated; `None` if it is missing or repeated."""
        values = self.header(name)
        return values[0].strip() if len(values) == 1 else None

    def parameters(self) -> list[tuple[str, str]]:
        """Parse the query to names and values, in order (application/x-www-form-urlencoded).

        Raises:
            BadRequest: the encoding is invalid.
        """
        if self._pairs is None:
            self._pairs = form_pairs(self.query)
        return self._pairs


def form_pairs(raw: bytes) -> list[tuple[str, str]]:
    """Parse application/x-www-form-urlencoded text to names and values, in order.

    Raises:
        BadRequest: the encoding is invalid.
    """
    pairs: list[tuple[str, str]] = []
    for part in _checked(raw.replace(b"+", b" ")).split("&"):  # checked as a whole: `&` and `=` are ASCII
        if part:
            name, _, value = part.partition("=")
            pairs.append((_unquote(name), _unquote(value)))
    return pairs


def form_text(raw: bytes) -> str:
    """Return one decoded value of application/x-www-form-urlencoded text.

    Raises:
        BadRequest: the encoding is invalid.
    """
    return _unquote(_checked(raw.replace(b"+", b" ")))


def segment_text(raw: bytes) -> str:
    """Decode a path segment.

    Raises:
        BadRequest: the encoding is invalid.
    """
    return _unquote(_checked(raw))


def _segments(scope: Scope) -> list[bytes]:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # optional in ASGI; without it `%2F` in an id cannot be told from a slash
        raw = quote(scope["path"]).encode()
    segments = raw.partition(b"?")[0].split(b"/")[1:]
    root: str = scope.get("root_path", "")
    if root.strip("/"):
        # The path includes the mount point, except on servers that omit it.
        mount = [part.encode() for part in root.strip("/").split("/")]
        if [unquote_to_bytes(part) for part in segments[: len(mount)]] == mount:
            segments = segments[len(mount) :]
    if len(segments) > 1 and not segments[-1]:
        segments.pop()
    return segments


async def read_body(receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes | None:
    """Read the request's body; `None` if it is longer than `limit` bytes or the client disconnected."""
    parts: list[bytes] = []
    size = 0
    while True:
        message: Mapping[str, object] = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        if isinstance(part, bytes):
            size += len(part)
            parts.append(part)
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
