"""What the endpoints share of HTTP: the request as it came in, taken apart strictly; the response."""

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
"""The longest identifier that is looked up; the store has no longer ones."""

MAX_BODY_BYTES = 64 * 1024

JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")

VARY: tuple[bytes, bytes] = (b"vary", b"authorization, authentication")
"""For each answer that depends on the key: no cache may give it to another one."""

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class BadRequest(Exception):
    """The request is malformed. `message` says how, without quoting it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Response(NamedTuple):
    """A whole response.

    Attributes:
        status: of HTTP.
        body: JSON, except for 204 and the like.
        headers: besides `content-type` and `content-length`.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(status: int, content: object, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    """A response with this JSON."""
    return Response(status, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), headers)


def _percent_decode(raw: bytes) -> bytes:
    if b"%" not in raw:
        return raw
    # A lenient decoder would give one record two spellings: `%zz` and `%25zz`.
    if _BAD_PERCENT.search(raw):
        raise BadRequest("a percent sign must be followed by two hexadecimal digits")
    return unquote_to_bytes(raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    raise BadRequest("percent-encoded text must be UTF-8")


@dataclass(slots=True)
class AuditContext:
    """What the audit log is told about a request.

    Attributes:
        key: the id of the key that asks.
        entity: the collection that is asked for, once it is known that the key may read it.
        records: the ids that are asked for; each with its own status, where that is not the answer's.
    """

    key: str | None = None
    entity: str | None = None
    records: list[tuple[str, int | None]] = field(default_factory=list[tuple[str, int | None]], repr=False)


class Request:
    """A request's line and headers.

    Args:
        scope: of ASGI, type `http`.
    """

    __slots__ = ("_headers", "limits", "method", "noted", "query", "root", "segments")

    def __init__(self, scope: Scope) -> None:
        self.method: str = scope["method"]
        self.query: bytes = scope.get("query_string", b"")
        self.root: str = scope.get("root_path", "").rstrip("/")
        """Where the application is mounted."""
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.limits: tuple[tuple[bytes, bytes], ...] = ()
        """Header fields for every answer: what is left of the key's rate."""
        self.noted = AuditContext()
        self.segments = _segments(scope)
        """The path below the mount point, split at slashes; each part still percent-encoded, a trailing slash gone."""

    def header(self, name: bytes) -> list[bytes]:
        """All values of a header; the name in lower case."""
        return [value for key, value in self._headers if key == name]

    def one_header(self, name: bytes) -> bytes | None:
        """The value of a header that must not be repeated; `None` when it is missing or repeated."""
        values = self.header(name)
        return values[0].strip() if len(values) == 1 else None

    def parameters(self) -> list[tuple[str, str]]:
        """The query's names and values, in order (application/x-www-form-urlencoded).

        Raises:
            BadRequest: it is not properly encoded.
        """
        return form_pairs(self.query)


def form_pairs(raw: bytes) -> list[tuple[str, str]]:
    """Names and values of application/x-www-form-urlencoded text, in order.

    Raises:
        BadRequest: it is not properly encoded.
    """
    pairs: list[tuple[str, str]] = []
    for part in raw.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((form_text(name), form_text(value)))
    return pairs


def form_text(raw: bytes) -> str:
    """Return one decoded value of application/x-www-form-urlencoded text.

    Raises:
        BadRequest: it is not properly encoded.
    """
    return _text(_percent_decode(raw.replace(b"+", b" ")))


def segment_text(raw: bytes) -> str:
    """A path segment's text.

    Raises:
        BadRequest: it is not properly encoded.
    """
    return _text(_percent_decode(raw))


def _segments(scope: Scope) -> list[bytes]:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # optional in ASGI; without it `%2F` in an id cannot be told from a slash
        raw = quote(scope["path"]).encode()
    segments = raw.partition(b"?")[0].split(b"/")[1:]
    root: str = scope.get("root_path", "")
    if root.strip("/"):
        # The path holds the mount point, except on servers that leave it out.
        mount = [part.encode() for part in root.strip("/").split("/")]
        if [unquote_to_bytes(part) for part in segments[: len(mount)]] == mount:
            segments = segments[len(mount) :]
    if len(segments) > 1 and not segments[-1]:
        segments.pop()
    return segments


async def read_body(receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes | None:
    """The request's body; `None` when it is longer than `limit` bytes or the client went away."""
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
