"""Values of request headers and cookies, where each may be there once."""

from __future__ import annotations

import logging

from starlette.requests import HTTPConnection, cookie_parser

from .._utils.log_once import LogOnce

__all__ = ["one_cookie", "one_header"]

logger = logging.getLogger("profile_enrich")

_once = LogOnce()


def one_cookie(connection: HTTPConnection, name: str) -> str | None:
    """The value of a cookie; `None` where it is missing, or there twice.

    Of two cookies of one name, one may have been set by somebody else, for a parent domain or another path (RFC 6265,
    section 8.6, "weak integrity"), and neither says which it is.
    """
    found: str | None = None
    for field in connection.headers.getlist("cookie"):
        for part in field.split(";"):
            if part.partition("=")[0].strip() == name and "=" in part:
                if found is not None:
                    _say_twice("cookie", name)
                    return None
                found = cookie_parser(part)[name]
    return found


def one_header(connection: HTTPConnection, name: str) -> str | None:
    """The value of a header as text; `None` where it is missing, or there twice.

    The bytes are UTF-8, or Latin-1 where they are not (RFC 9110, section 5.5, leaves it to the application).
    """
    wanted = name.lower().encode("latin-1")
    values: list[bytes] = [value for key, value in connection.scope["headers"] if key.lower() == wanted]
    if len(values) != 1:
        if values:  # one may have been added by the client, past a proxy that only appends
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
