"""Identity functions: ready-made functions that return the key of a request's person.

An identity function takes the connection and returns a key (a string or a `ProfileKey`), or `None` for nobody; it may
be `async`. The ready-made ones also declare the request headers that they read, for `Vary`.
"""

from __future__ import annotations

import hashlib
import inspect
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection

from .._utils.validation import check_text, is_int
from ..errors import ConfigurationError
from ..profile import ProfileKey
from .argument_checks import check_cookie_name, check_header_names, check_key_type, vary_of
from .native_request import ask
from .request_values import is_session_doubtful, one_cookie, one_header

__all__ = [
    "Identify",
    "Identity",
    "first_of",
    "from_cookie",
    "from_header",
    "from_session",
    "from_user",
    "hashed_email",
    "key_from",
]

Identity = str | int | uuid.UUID | ProfileKey | None
"""A key, or `None` for nobody. An integer or a UUID, as sessions and users often hold, becomes text."""

Identify = Callable[[HTTPConnection], Identity | Awaitable[Identity]]
"""An identity function."""


def hashed_email(email: str) -> str:
    """Return Amperity's documented hash of an e-mail address: `SHA256(UPPER(TRIM(email)))`.

    Args:
        email: the address.

    Returns:
        64 lower-case hex characters.
    """
    return hashlib.sha256(email.strip().upper().encode()).hexdigest()


def key_from(value: object, type_: str) -> Identity:
    """Convert a value from a session, cookie or header to a key; an empty one means nobody."""
    if value is None or value == "":
        return None
    if is_int(value) or isinstance(value, uuid.UUID):
        value = str(value)
    if type_ == "id" and isinstance(value, str):
        return value  # the client converts it to a key
    return ProfileKey(cast(str, value), type_)


def _check_cookie(value: object) -> str | None:
    return None if value is None else check_cookie_name(value, "cookie")


@dataclass(frozen=True, slots=True)
class _FromSession:
    name: str
    type: str
    cookie: str | None
    vary: tuple[str, ...] = ("Cookie",)
    requires: tuple[str, ...] = ("session",)

    def __call__(self, connection: HTTPConnection) -> Identity:
        # Not `connection.session`, which would mark the session as accessed.
        session = connection.scope.get("session")
        if session is None or is_session_doubtful(connection, self.cookie):
            return None
        return key_from(session.get(self.name), self.type)


def from_session(name: str = "user_id", *, type: str = "id", cookie: str | None = None) -> Identify:
    """Return an identity function that reads the key from the session.

    `SessionMiddleware` must be outside of `ProfileMiddleware`: list it first.

    Args:
        name: the session's key. Default `"user_id"`.
        type: the type of the profile key. Default `"id"`.
        cookie: the name of the session's cookie. A request that has it twice is nobody's: one of the two may have been
            set by somebody else. Default: as Django and Flask are configured, `"session"` elsewhere.
    """
    return _FromSession(check_text("name", name), check_key_type(type), _check_cookie(cookie))


@dataclass(frozen=True, slots=True)
class _FromUser:
    attribute: str
    type: str
    vary: tuple[str, ...]
    cookie: str | None
    requires: tuple[str, ...] = ("user",)

    def __call__(self, connection: HTTPConnection) -> Identity:
        user = connection.scope.get("user")
        if user is None or is_session_doubtful(connection, self.cookie):
            return None
        if not getattr(user, "is_authenticated", False):
            return None
        return key_from(getattr(user, self.attribute), self.type)


def from_user(
    attribute: str = "identity",
    *,
    type: str = "id",
    vary: Sequence[str] = ("Authorization", "Cookie"),
    cookie: str | None = None,
) -> Identify:
    """Return an identity function that reads the key from the authenticated user (Starlette's or Django's).

    Args:
        attribute: the attribute of `connection.user`, such as `"username"` or `"pk"`. Default `"identity"`.
        type: the type of the profile key. Default `"id"`.
        vary: the request headers that the authentication reads. Default `Authorization` and `Cookie`.
        cookie: the name of the session's cookie. A request that has it twice is nobody's: one of the two may have been
            set by somebody else. Default: as Django and Flask are configured, `"session"` elsewhere.
    """
    headers = check_header_names("vary", vary)
    return _FromUser(check_text("attribute", attribute), check_key_type(type), headers, _check_cookie(cookie))


@dataclass(frozen=True, slots=True)
class _FromCookie:
    name: str
    type: str
    vary: tuple[str, ...] = ("Cookie",)

    def __call__(self, connection: HTTPConnection) -> Identity:
        return key_from(one_cookie(connection, self.name), self.type)


def from_cookie(name: str, *, type: str = "id") -> Identify:
    """Return an identity function that reads the key from an unsigned cookie.

    Clients can send any cookie: use it only for identifiers that need no protection, such as an anonymous visitor's id;
    otherwise use `from_signed_cookie` or `from_session`.

    Args:
        name: the cookie's name.
        type: the type of the profile key. Default `"id"`.
    """
    return _FromCookie(check_cookie_name(name), check_key_type(type))


@dataclass(frozen=True, slots=True)
class _FromHeader:
    name: str
    type: str
    vary: tuple[str, ...]

    def __call__(self, connection: HTTPConnection) -> Identity:
        return key_from(one_header(connection, self.name), self.type)


def from_header(name: str, *, trusted: bool, type: str = "id") -> Identify:
    """Return an identity function that reads the key from a request header that a proxy sets.

    Args:
        name: the header's name, e.g. `"X-User-Id"`.
        trusted: must be `True`, which confirms that the proxy removes this header from client requests. Otherwise
            clients could impersonate anyone.
        type: the type of the profile key. Default `"id"`.

    Raises:
        ConfigurationError: the header is not trusted.
    """
    check_header_names("name", [name])
    if trusted is not True:
        raise ConfigurationError(
            f"from_header({name!r}): clients can send any header; pass trusted=True once your proxy strips and sets it"
        )
    return _FromHeader(name, check_key_type(type), (name,))


class _FirstOf:
    __slots__ = ("_choices", "requires", "vary")

    def __init__(self, choices: tuple[Callable[[Any], Identity | Awaitable[Identity]], ...]) -> None:
        self._choices = choices
        self.vary = tuple(dict.fromkeys(name for choice in choices for name in vary_of(choice)))
        self.requires = tuple(dict.fromkeys(name for choice in choices for name in getattr(choice, "requires", ())))

    def __call__(self, connection: HTTPConnection) -> Identity | Awaitable[Identity]:
        for index, choice in enumerate(self._choices):
            identity: Identity | Awaitable[Identity] = ask(choice, connection)
            if inspect.isawaitable(identity):
                return self._rest(connection, identity, index)
            if identity not in (None, ""):
                return identity
        return None

    async def _rest(self, connection: HTTPConnection, first: Awaitable[Identity], index: int) -> Identity:
        identity = await first
        for choice in self._choices[index + 1 :]:
            if identity not in (None, ""):
                break
            answer = ask(choice, connection)
            identity = await answer if inspect.isawaitable(answer) else answer
        return identity

    def __repr__(self) -> str:
        return f"first_of({', '.join(map(repr, self._choices))})"


def first_of(*choices: Callable[[Any], Identity | Awaitable[Identity]]) -> Identify:
    """Return an identity function that uses the first key found by several functions.

    `Vary` names the headers of all of them.

    Raises:
        ConfigurationError: none was given, or one is not callable.
    """
    if not choices or not all(callable(choice) for choice in choices):
        raise ConfigurationError(
            "first_of takes one or more identity functions, e.g. first_of(from_session(), from_user())"
        )
    return _FirstOf(choices)
