"""Routing of paths to the kind of request and its dialect."""

from __future__ import annotations

from typing import Protocol

from ..store import Collection, ProfileStore
from . import page
from .auth.api_keys import ApiKey
from .dialects import amperity, census
from .endpoints import amperity_tokens as tokens
from .endpoints import batch
from .http.messages import Request, Response

__all__ = ["Dialect", "Headers", "route"]

Headers = tuple[tuple[bytes, bytes], ...]


class Dialect(Protocol):
    """The interface of the modules `census` and `amperity`."""

    def error(self, status: int, message: str, headers: Headers = ...) -> Response:
        """Return an error in the vendor's envelope."""
        ...

    def answer(self, kind: str, request: Request, store: ProfileStore, key: ApiKey) -> Response:
        """Return the response to a read."""
        ...

    def collection_of(self, request: Request, store: ProfileStore, key: ApiKey) -> Collection | Response:
        """Return the collection in the path, or the error response for this key."""
        ...

    def record_id_of(self, request: Request) -> str:
        """The record that a request names."""
        ...


def route(segments: list[bytes]) -> tuple[str, Dialect]:
    """Return the kind of a request and its dialect."""
    if segments[:1] == [b"api"]:
        rest = segments[2:]
        if segments[1:2] == [b"v1"]:
            if len(rest) == 3 and rest[0] == b"entities" and rest[2] == b"changes":
                return "census.changes", census
            return census.route(rest) or "census.unknown", census
        if segments[1:2] == [b"v0"]:
            return tokens.route(rest) or "amperity.unknown", amperity
        if segments[1:2] == [b"x"]:
            extension = batch.route(rest)
            return extension or "unknown", amperity if extension == "amperity.batch" else census
        if segments[1:2] == [b"indexes"]:
            if len(segments) == 4 and segments[3] == b"changes":
                return "amperity.changes", amperity
            return amperity.route(segments[1:]) or "amperity.unknown", amperity
    if segments[:1] == [b"attribute"] and len(segments) > 1:  # Amperity's earlier API
        return "unknown.version", amperity
    if segments == [b"openapi.json"]:
        return "openapi", census
    if segments == [b"postman.json"]:
        return "postman", census
    if len(segments) == 1 and segments[0] in page.KINDS:
        return page.KINDS[segments[0]], census
    if segments in ([b"healthz"], [b"status"], [b"metrics"]):
        return segments[0].decode(), census
    return "unknown", census
