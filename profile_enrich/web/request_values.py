"""Values of request headers and cookies that must not be repeated."""

from __future__ import annotations

import logging

from starlette.requests import HTTPConnection, cookie_parser

from .._utils.log_once import LogOnce

__all__ = ["SESSION_COOKIE", "is_session_doubtful", "one_cookie", "one_header"]

SESSION_COOKIE = "profile_enrich.session_cookie"
"""The scope key under which an integration stores the name of the session cookie."""

logger = logging.getLogger("profile_enrich")

_once = LogOnce()


def one_cookie(connection: HTTPConnection, name: str) -> str | None:
    """Return the value of a cookie; `None` if it is missing or repeated.

    If a cookie is repeated, one may have been set by another site of the parent domain, or for another path (RFC 6265,
    section 8.6, "weak integrity"), and there is no way to distinguish them.
    """
    parts = _cookie_parts(connection, name)
    if len(parts) > 1:
        _say_twice("cookie", name)
    return cookie_parser(parts[0])[name] if len(parts) == 1 else None


def is_session_doubtful(connection: HTTPConnection, cookie: str | None) -> bool:
    """Return whether the session cookie is repeated, so that the session may have been set by somebody else.

    Args:
        connection: the request.
        cookie: the cookie's name; `None` for the framework's own, or `session`.
    """
    scope = connection.scope
    name: str = cookie or scope.get(SESSION_COOKIE) or "session"
    marker = f"{name}=".encode("latin-1", "replace")
    seen = sum(value.count(marker) for key, value in scope.get("headers", ()) if key == b"cookie")
    if seen < 2 or len(_cookie_parts(connection, name)) < 2:  # most requests need only the first check
        return False
    _say_twice("cookie", name)
    return True


def _cookie_parts(connection: HTTPConnection, name: str) -> list[str]:
    """Return the pairs of the `Cookie` headers that have this name."""
    parts = [part for field in connection.headers.getlist("cookie") for part in field.split(";")]
    return [part for part in parts if "=" in part and part.partition("=")[0].strip() == name]


def one_header(connection: HTTPConnection, name: str) -> str | None:
    """Return the value of a header as text; `None` if it is missing or repeated.

    The bytes are decoded as UTF-8 or, if invalid, as Latin-1 (RFC 9110, section 5.5, leaves it to the application).
    """
    wanted = name.lower().encode("latin-1")
    values: list[bytes] = [value for key, value in connection.scope["headers"] if key.lower() == wanted]
    if len(values) != 1:
        if values:  # the client may have sent one, to which a proxy has only added another
            _say_twice("header", name)
        return None
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError:
        if _once.first("latin-1", name):
            logger.warning("the header %s is not UTF-8, and is read as Latin-1: have your proxy send UTF-8", name)
        return values[0].decode("latin-1")


def _say_twice(what: str, name: str) -> None:
    if _once.first(what, name):
        logger.warning("a request had the %s %s twice, so nobody is signed in on it: either may be forged", what, name)
