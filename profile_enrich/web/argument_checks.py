"""Validation of the arguments common to all integrations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from inspect import isfunction
from typing import cast

from .._utils.validation import check_bool, check_number
from ..client.client import ProfileClient
from ..errors import ConfigurationError
from ..profile.key import is_type_name

__all__ = [
    "check_arguments",
    "check_attribute",
    "check_cookie_name",
    "check_header_names",
    "check_key_type",
    "is_excluded",
    "vary_of",
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2."""

_COOKIE_NAME = re.compile(r"[^\s=;,\"\x00-\x20\x7f]+")


def check_arguments(
    *,
    client: object,
    identify: object,
    budget: object,
    consent: object,
    exclude: object,
    vary_on: object,
    server_timing: object,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check the common arguments.

    Returns:
        The excluded path prefixes, and the request headers that determine the identity.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """
    if not isinstance(client, ProfileClient):
        raise ConfigurationError(f"client must be a ProfileClient, not {type(client).__name__}")
    _check_function("identify", identify, "from_session('user_id')")
    if consent is not None:
        _check_function("consent", consent, "honour_gpc()")
    if budget is not None:
        check_number("budget", budget)
    check_bool("server_timing", server_timing)
    if vary_on is not None:
        headers = check_header_names("vary_on", vary_on)
    else:
        headers = vary_of(identify) if consent is None else (*vary_of(consent, "consent"), *vary_of(identify))
    return _path_prefixes(exclude), headers


def _check_function(argument: str, value: object, example: str) -> None:
    if isfunction(value) and str(value.__module__).startswith(f"{__package__}."):  # it makes the function
        raise ConfigurationError(f"{argument} is {value.__name__} itself: call it, e.g. {example}")
    if not callable(value):
        raise ConfigurationError(f"{argument} must be callable, e.g. {example}")


def _path_prefixes(exclude: object) -> tuple[str, ...]:
    if isinstance(exclude, str) or not isinstance(exclude, Iterable):
        raise ConfigurationError("exclude must be a list of path prefixes, e.g. ['/static']")
    prefixes = tuple(cast("Iterable[object]", exclude))
    if not all(isinstance(prefix, str) and prefix.startswith("/") for prefix in prefixes):
        raise ConfigurationError("exclude: each path prefix must start with '/', e.g. '/static'")
    return tuple(cast(str, prefix).rstrip("/") or "/" for prefix in prefixes)


def is_excluded(path: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether a path is excluded, compared by whole segments; `/` matches only the root page."""
    return any(path == prefix or (prefix != "/" and path.startswith(prefix + "/")) for prefix in prefixes)


def check_attribute(value: object) -> str:
    """Return the name of the request attribute, if valid.

    Raises:
        ConfigurationError: the name is invalid.
    """
    if not isinstance(value, str) or not value.isidentifier():
        raise ConfigurationError(f"attribute must be a name such as 'profile', not {value!r}")
    return value


def check_header_names(argument: str, value: object) -> tuple[str, ...]:
    """Return the names of headers, if valid. A single string is rejected, as it would be a list of letters.

    Raises:
        ConfigurationError: the value is not a list, or a name is invalid; the message names the argument.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{argument} must be a list of header names, e.g. ['Cookie']")
    names = tuple(cast("Iterable[object]", value))
    for name in names:
        if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
            raise ConfigurationError(f"{argument}: {name!r} is not the name of a header, such as 'Cookie'")
    return cast("tuple[str, ...]", names)


def check_cookie_name(value: object, argument: str = "name") -> str:
    """Return the name of a cookie, if valid.

    Raises:
        ConfigurationError: the name is invalid.
    """
    if not isinstance(value, str) or _COOKIE_NAME.fullmatch(value) is None:
        raise ConfigurationError(f"{argument} must be the name of a cookie, such as 'visitor', not {value!r}")
    return value


def check_key_type(value: object) -> str:
    """Return the type of a profile key, if valid.

    Raises:
        ConfigurationError: the type is invalid.
    """
    if not is_type_name(value):
        raise ConfigurationError(f"type must be a short name such as 'id' or 'email', not {value!r}")
    return value


def vary_of(function: object, argument: str = "identify") -> tuple[str, ...]:
    """Return the request headers that an identity or consent function reads; `("Cookie",)` for a custom one.

    Raises:
        ConfigurationError: the function's `vary` is not a list of header names.
    """
    return check_header_names(f"{argument}: vary", getattr(function, "vary", ("Cookie",)))
