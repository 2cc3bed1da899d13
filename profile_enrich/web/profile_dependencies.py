"""Dependencies that return the profile, for Starlette, FastAPI and other frameworks with an `HTTPConnection`."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass

from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from .._utils.log_once import LogOnce
from ..errors import ProfileRequired
from ..profile import Profile, Reason
from .request_lookup import LookupView, lookup_of, lookups_of

__all__ = [
    "LookupView",
    "ProfileDependency",
    "get_profile",
    "lookup_details",
    "personalised",
    "refresh_profile",
    "refusal",
    "require_profile",
]

logger = logging.getLogger("profile_enrich")

_once = LogOnce()

POLICY_VIOLATION = 1008
"""The WebSocket close code for a connection that is not allowed (RFC 6455, section 7.4.1)."""


@dataclass(frozen=True, slots=True)
class ProfileDependency:
    """A dependency for a profile with another name than `request.state.profile`. Equal ones are interchangeable.

    Args:
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.
        required: whether a missing profile is an error, as for `require_profile`. Default false.
    """

    attribute: str = "profile"
    required: bool = False

    async def __call__(self, connection: HTTPConnection) -> Profile:
        """Return the profile of this request; see `get_profile` and `require_profile`."""
        lookup = lookup_of(connection, self.attribute)
        if lookup is None:
            profile = _not_installed(self.attribute)
        else:
            try:
                profile = await lookup.current(connection.scope)
            finally:  # counts as read, because an inner response cache may serve the next request without the handler
                lookup.mark_read(declared=True)
        return required(connection, profile) if self.required else profile


def required(connection: HTTPConnection, profile: Profile) -> Profile:
    """Return the profile if found; otherwise raise the error of `require_profile`."""
    if profile:
        return profile
    error = refusal(profile)
    if connection.scope["type"] == "websocket":
        raise WebSocketException(code=POLICY_VIOLATION, reason=str(error.detail))
    raise error


_get = ProfileDependency()
_require = ProfileDependency(required=True)


async def get_profile(connection: HTTPConnection) -> Profile:
    """Return the signed-in person's profile, looked up now if necessary. Never raises.

    Args:
        connection: the request or WebSocket.

    Returns:
        The profile; empty and falsy when nobody is in session, or when there is none.
    """
    return await _get(connection)


async def require_profile(connection: HTTPConnection, profile: Profile | None = None) -> Profile:
    """Return the signed-in person's profile, or raise an error that the framework turns into a response.

    Args:
        connection: the request or WebSocket.
        profile: the profile if known; looked up by default. FastAPI passes the result of `get_profile` or its override.

    Returns:
        The profile, which is found.

    Raises:
        ProfileRequired: an HTTP exception: 401 if nobody is signed in, 403 for an excluded profile or without consent,
            404 if not found, 503 if unavailable, 500 on an excluded path.
        WebSocketException: the same for a WebSocket, with close code 1008.
    """
    return await _require(connection) if profile is None else required(connection, profile)


# Frameworks that inject parameters see only the connection; `profile_enrich.fastapi` adds the profile for FastAPI.
_seen = inspect.signature(require_profile, eval_str=True)
require_profile.__signature__ = _seen.replace(parameters=[_seen.parameters["connection"]])  # type: ignore[attr-defined]  # `inspect` reads it


_REFUSALS: dict[Reason, tuple[int, str]] = {
    Reason.ANONYMOUS: (401, "Nobody is signed in."),
    Reason.NO_CONSENT: (403, "There is no consent to look the profile up."),
    Reason.EXCLUDED: (403, "The profile is excluded."),
    Reason.NOT_FOUND: (404, "There is no profile."),
    Reason.UNAVAILABLE: (503, "The profile is not available at the moment."),
    Reason.NOT_LOOKED_UP: (500, "The profile is not looked up on this path."),
    Reason.SEALED: (500, "The profile is not available outside of its request."),
}


def refusal(profile: Profile) -> ProfileRequired:
    """Return the HTTP error for a missing required profile; its reason determines the status code."""
    reason = profile.reason or Reason.UNAVAILABLE
    status, message = _REFUSALS[reason]
    return ProfileRequired(message, status_code=status, reason=reason.value)


async def refresh_profile(connection: HTTPConnection, attribute: str = "profile", *, rekey: bool = False) -> Profile:
    """Look up the profile again, for the person now signed in. Never raises.

    Call it after a handler has signed a person in or out, or has switched users; until then, the request has the
    profile of the previous person. `request.state.profile` and the results of dependencies are updated, since they are
    the same object; after a sign-out they are empty. On a long-lived response or a WebSocket, call it for the current
    profile. Consent is checked again.

    Args:
        connection: the request or WebSocket.
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.
        rekey: whether to move the visitor's overlay (`client.overlay`) to the person who has just signed in; see
            `ProfileClient.rekey`. Never use it at sign-out or a switch of users. Default false.

    Returns:
        The profile; empty and falsy when nobody is in session, or when there is none.
    """
    lookup = lookup_of(connection, attribute)
    if lookup is None:
        return _not_installed(attribute)
    try:
        return await lookup.renew(connection.scope, rekey=rekey)
    finally:
        lookup.mark_read(declared=True)


def _not_installed(attribute: str) -> Profile:
    if _once.first("missing", attribute):
        logger.warning(
            "there is no %r on this request: add ProfileMiddleware to the application; until then it is empty",
            attribute,
        )
    return Profile(reason=Reason.NOT_LOOKED_UP)


def lookup_details(connection: HTTPConnection, attribute: str = "profile") -> LookupView | None:
    """Return details of this request's lookup. Unlike reading the profile, this does not personalise the response.

    Args:
        connection: the request or WebSocket.
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.

    Returns:
        The details; `None` if the middleware is not installed.
    """
    lookup = lookup_of(connection, attribute)
    return None if lookup is None else lookup.details()


def personalised(connection: HTTPConnection) -> None:
    """Mark the response as personal before the profile is read.

    Use it for a response that starts streaming before the profile is read, when its headers can no longer be changed.
    It gets the `Vary` and `Cache-Control: private` of a page that read the profile. Call it in the handler, or use
    FastAPI's `dependencies=[Depends(personalised)]`. Without `ProfileMiddleware`, it does nothing.

    Args:
        connection: the request.
    """
    for lookup in lookups_of(connection):
        lookup.mark_read(declared=True)
