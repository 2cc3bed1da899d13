"""Who is in session: ready-made answers to the question that `ProfileMiddleware` asks about each request.

An identity function takes the connection and returns a key (a string or a `ProfileKey`), or `None` for nobody; it may
be `async`. The ones made here also know which request header the identity comes from, so that `Vary` is right.
"""

from __future__ import annotations

import hashlib
import inspect
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection

from .._utils.validation import check_text
from ..errors import ConfigurationError
from ..profile import ProfileKey
from .arguments import check_cookie_name, check_header_names, check_key_type, vary_of
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
"""A key, or nobody. A whole number or a UUID, as sessions and users often hold, counts as its text."""

Identify = Callable[[HTTPConnection], Identity | Awaitable[Identity]]
"""An identity function."""


def hashed_email(email: str) -> str:
    """The hashed form of an e-mail address that Amperity documents: `SHA256(UPPER(TRIM(email)))`.

    Args:
        email: the address, as typed.

    Returns:
        64 lower-case hex characters.
    """
    return hashlib.sha256(email.strip().upper().encode()).hexdigest()


def key_from(value: object, type_: str) -> Identity:
    """A value from a session, a cookie or a header as a key; an empty one means nobody."""
    if value is None or value == "":
        return None
    if (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, uuid.UUID):
        value = str(value)
    if type_ == "id" and isinstance(value, str):
        return value  # the client makes a key of it where it needs one
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
        # Not `connection.session`: looking is not using, and must not mark the session as accessed.
        session = connection.scope.get("session")
        if session is None or is_session_doubtful(connection, self.cookie):
            return None
        return key_from(session.get(self.name), self.type)


def from_session(name: str = "user_id", *, type: str = "id", cookie: str | None = None) -> Identify:
    """The key is in the session, under `name`.

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
    """The key is an attribute of the authenticated user (Starlette's `AuthenticationMiddleware`, Django's user).

    Args:
        attribute: of `connection.user`. Default `"identity"`; `"username"` or `"pk"` are other usual ones.
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
    """The key is the value of a plain cookie.

    Anybody can send any cookie: use this only for identifiers that are no secret worth protecting, such as an anonymous
    visitor's id; else `from_signed_cookie` or `from_session`.

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
    """The key is in a request header that a proxy in front sets.

    Args:
        name: the header's name, e.g. `"X-User-Id"`.
        trusted: must be `True`: the proxy removes this header from what clients send. Without that, anybody could be
            anybody.
        type: the type of the profile key. Default `"id"`.

    Raises:
        ConfigurationError: the header is not trusted.
    """
    check_header_names("name", [name])
    if trusted is not True:
        raise ConfigurationError(
            f"from_header({name!r}): clients can send any header; say trusted=True once your proxy strips and sets it"
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
    """The first of several identity functions that knows somebody.

    `Vary` names the headers of all of them, since each could have decided.

    Raises:
        ConfigurationError: none was given, or one is not callable.
    """
    if not choices or not all(callable(choice) for choice in choices):
        raise ConfigurationError(
            "first_of takes one or more identity functions, e.g. first_of(from_session(), from_user())"
        )
    return _FirstOf(choices)
