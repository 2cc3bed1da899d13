"""The profile where a handler wants it: for Starlette, FastAPI and whatever else has an `HTTPConnection`."""

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
    """A dependency for a profile under another name than `request.state.profile`. Equal ones count as one.

    Args:
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.
        required: whether a missing profile is an error, as for `require_profile`. Default false.
    """

    attribute: str = "profile"
    required: bool = False

    async def __call__(self, connection: HTTPConnection) -> Profile:
        """The profile of this request; see `get_profile` and `require_profile`."""
        lookup = lookup_of(connection, self.attribute)
        if lookup is None:
            profile = _not_installed(self.attribute)
        else:
            try:
                profile = await lookup.current(connection.scope)
            finally:  # asked for is read: a response cache inside may answer the next time without calling the handler
                lookup.mark_read(declared=True)
        return required(connection, profile) if self.required else profile


def required(connection: HTTPConnection, profile: Profile) -> Profile:
    """The profile, where it was found; else the error of `require_profile`."""
    if profile:
        return profile
    error = refusal(profile)
    if connection.scope["type"] == "websocket":
        raise WebSocketException(code=POLICY_VIOLATION, reason=str(error.detail))
    raise error


_get = ProfileDependency()
_require = ProfileDependency(required=True)


async def get_profile(connection: HTTPConnection) -> Profile:
    """The profile of whoever is in session, looked up now if it was not yet. Never raises.

    Args:
        connection: the request or the WebSocket.

    Returns:
        The profile; empty and falsy when nobody is in session, or when there is none.
    """
    return await _get(connection)


async def require_profile(connection: HTTPConnection, profile: Profile | None = None) -> Profile:
    """The profile of whoever is in session, or an error that the framework turns into a response.

    Args:
        connection: the request or the WebSocket.
        profile: where it is known already; looked up by default. FastAPI fills it in with what `get_profile`, or what
            overrides it, returns.

    Returns:
        The profile, found.

    Raises:
        ProfileRequired: an HTTP exception: 401 nobody in session, 403 excluded or no consent, 404 unknown, 503 not
            available now, 500 not looked up on this path.
        WebSocketException: the same for a WebSocket, with close code 1008.
    """
    return await _require(connection) if profile is None else required(connection, profile)


# Frameworks that fill in parameters see the connection alone; `profile_enrich.fastapi` adds the other one for FastAPI.
_seen = inspect.signature(require_profile, eval_str=True)
require_profile.__signature__ = _seen.replace(parameters=[_seen.parameters["connection"]])  # type: ignore[attr-defined]


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
    """The HTTP error for a profile that is required and missing: its reason decides the status code."""
    reason = profile.reason or Reason.UNAVAILABLE
    status, message = _REFUSALS[reason]
    return ProfileRequired(message, status_code=status, reason=reason.value)


async def refresh_profile(connection: HTTPConnection, attribute: str = "profile", *, rekey: bool = False) -> Profile:
    """Look up the profile of whoever is in session now. Never raises.

    Call it after a handler has signed somebody in or out, or has switched users: until then the profile is the one of
    whoever was in session before. `request.state.profile` and what dependencies have returned show the new answer,
    since they are the same object; after a sign-out they are empty. On a long-lived response or a WebSocket, call it to
    see the profile of now. Consent is asked again.

    Args:
        connection: the request or the WebSocket.
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.
        rekey: whether to move what was laid over the visitor's profile (`client.overlay`) to the person who has just
            signed in; see `ProfileClient.rekey`. Never on sign-out or a switch of users. Default false.

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
    """How the lookup of this request went. Unlike the profile itself, looking at it does not personalise the response.

    Args:
        connection: the request or the WebSocket.
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.

    Returns:
        The details; `None` where the middleware is not installed.
    """
    lookup = lookup_of(connection, attribute)
    return None if lookup is None else lookup.details()


def personalised(connection: HTTPConnection) -> None:
    """Say that the response is made for whoever is in session, before the profile is read.

    For a response that starts streaming first: its headers are sent by then, and could not say so any more. It gets the
    `Vary` and `Cache-Control: private` of a page that read the profile. Call it in the handler, or let FastAPI do so
    with `dependencies=[Depends(personalised)]`. Without `ProfileMiddleware` it does nothing.

    Args:
        connection: the request.
    """
    for lookup in lookups_of(connection):
        lookup.mark_read(declared=True)
