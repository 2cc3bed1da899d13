"""The profile where a handler wants it: for Starlette, FastAPI and whatever else has an `HTTPConnection`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from .._utils.log_once import LogOnce
from ..errors import ProfileRequired
from ..profile import Profile, Reason
from .request_lookup import LookupView, attachment_of, attachments_of

__all__ = ["LookupView", "ProfileDependency", "get_profile", "lookup_details", "personalised", "require_profile"]

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
        attachment = attachment_of(connection, self.attribute)
        if attachment is not None:
            profile = await attachment.resolve()
        else:
            profile = Profile(reason=Reason.NOT_LOOKED_UP)
            if _once.first("missing", self.attribute):
                logger.warning(
                    "there is no %r on this request: add ProfileMiddleware to the application; until then it is empty",
                    self.attribute,
                )
        if self.required and not profile:
            error = refusal(profile)
            if connection.scope["type"] == "websocket":
                raise WebSocketException(code=POLICY_VIOLATION, reason=str(error.detail))
            raise error
        return profile


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


async def require_profile(connection: HTTPConnection) -> Profile:
    """The profile of whoever is in session, or an error that the framework turns into a response.

    Args:
        connection: the request or the WebSocket.

    Returns:
        The profile, found.

    Raises:
        ProfileRequired: an HTTP exception: 401 nobody in session, 403 excluded or no consent, 404 unknown, 503 not
            available now, 500 not looked up on this path.
        WebSocketException: the same for a WebSocket, with close code 1008.
    """
    return await _require(connection)


_REFUSALS: dict[Reason, tuple[int, str]] = {
    Reason.ANONYMOUS: (401, "Nobody is signed in."),
    Reason.NO_CONSENT: (403, "There is no consent to look the profile up."),
    Reason.EXCLUDED: (403, "The profile is excluded."),
    Reason.NOT_FOUND: (404, "There is no profile."),
    Reason.UNAVAILABLE: (503, "The profile is not available at the moment."),
    Reason.NOT_LOOKED_UP: (500, "The profile is not looked up on this path."),
}


def refusal(profile: Profile) -> ProfileRequired:
    """The HTTP error for a profile that is required and missing: its reason decides the status code."""
    reason = profile.reason or Reason.UNAVAILABLE
    status, message = _REFUSALS[reason]
    return ProfileRequired(message, status_code=status, reason=reason.value)


def lookup_details(connection: HTTPConnection, attribute: str = "profile") -> LookupView | None:
    """How the lookup of this request went. Unlike the profile itself, looking at it does not personalise the response.

    Args:
        connection: the request or the WebSocket.
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.

    Returns:
        The details; `None` where the middleware is not installed.
    """
    attachment = attachment_of(connection, attribute)
    return None if attachment is None else attachment.details()


def personalised(connection: HTTPConnection) -> None:
    """Says that the response is made for whoever is in session, before the profile is read.

    For a response that starts streaming first: its headers are sent by then, and could not say so any more. It gets the
    `Vary` and `Cache-Control: private` of a page that read the profile. Call it in the handler, or let FastAPI do so
    with `dependencies=[Depends(personalised)]`. Without `ProfileMiddleware` it does nothing.

    Args:
        connection: the request.
    """
    for attachment in attachments_of(connection):
        attachment.mark_read()
