"""Conversion of other frameworks' requests to connections for identity and consent functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

__all__ = ["NATIVE_REQUEST", "ask", "is_ready_made", "requirements_of", "scope_of_environ"]

NATIVE_REQUEST = "profile_enrich.request"
"""The scope key of the framework's request."""

_UNPREFIXED = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}


def ask(function: Callable[[Any], Any], connection: HTTPConnection) -> Any:
    """Call an identity or consent function with its kind of request.

    This package's functions take the connection; custom ones take the framework's request, which under ASGI is the
    connection.
    """
    native = connection.scope.get(NATIVE_REQUEST)
    return function(connection if native is None or is_ready_made(function) else native)


def is_ready_made(function: object) -> bool:
    """Return whether an identity or consent function is one of this package."""
    return type(function).__module__.startswith("profile_enrich.")


def requirements_of(function: object) -> tuple[str, ...]:
    """Return what a ready-made function requires besides the headers: `"session"`, `"user"`."""
    return tuple(getattr(function, "requires", ()))


def scope_of_environ(environ: Mapping[str, Any]) -> Scope:
    """Convert a WSGI request (PEP 3333) to an ASGI scope for identity and consent functions."""
    headers: list[tuple[bytes, bytes]] = []
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            headers.append((name[5:].replace("_", "-").lower().encode("latin-1", "replace"), _bytes(value)))
        elif name in _UNPREFIXED and value:
            headers.append((_UNPREFIXED[name], _bytes(value)))
    root = _text(environ.get("SCRIPT_NAME", ""))
    return {
        "type": "http",
        "method": environ.get("REQUEST_METHOD", "GET"),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "path": root + _text(environ.get("PATH_INFO", "")),
        "root_path": root,
        "query_string": _bytes(environ.get("QUERY_STRING", "")),
        "headers": headers,
    }


def _bytes(value: object) -> bytes:
    # PEP 3333: the bytes of the request, decoded as Latin-1.
    return str(value).encode("latin-1", "replace")


def _text(value: object) -> str:
    return _bytes(value).decode("utf-8", "replace")
