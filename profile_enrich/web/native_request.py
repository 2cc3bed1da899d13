"""The connection that identity and consent functions are asked about, made from another framework's request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

__all__ = ["NATIVE_REQUEST", "ask", "is_ready_made", "requirements_of", "scope_of_environ"]

NATIVE_REQUEST = "profile_enrich.request"
"""Where the framework's own request is in the scope that is made from it."""

_UNPREFIXED = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}


def ask(function: Callable[[Any], Any], connection: HTTPConnection) -> Any:
    """Call an identity or consent function with what it takes.

    Functions made by this package take the connection; a user's own take the request of the framework in use, which is
    the connection itself under ASGI.
    """
    native = connection.scope.get(NATIVE_REQUEST)
    return function(connection if native is None or is_ready_made(function) else native)


def is_ready_made(function: object) -> bool:
    """Whether an identity or consent function was made by this package."""
    return type(function).__module__.startswith("profile_enrich.")


def requirements_of(function: object) -> tuple[str, ...]:
    """What a ready-made function looks at beside the headers: `"session"`, `"user"`."""
    return tuple(getattr(function, "requires", ()))


def scope_of_environ(environ: Mapping[str, Any]) -> Scope:
    """The ASGI scope of a WSGI request (PEP 3333), as far as identity and consent functions look at it."""
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
    # PEP 3333: the bytes of the request, each as the character of its number.
    return str(value).encode("latin-1", "replace")


def _text(value: object) -> str:
    return _bytes(value).decode("utf-8", "replace")
