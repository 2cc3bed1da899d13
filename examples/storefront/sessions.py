"""Who is signed in, and whether the shop may look them up. Both are in the session, a signed cookie."""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request

HOUSEHOLD = "household_id"
CONSENT = "consent"
NOTICE = "notice"


def consent_in_session(connection: HTTPConnection) -> bool:
    """Return whether the profile may be looked up: the consent function of the middleware."""
    return connection.scope.get("session", {}).get(CONSENT, True) is True


def signed_in(request: Request) -> str | None:
    """Return the number of the signed-in household."""
    number: str | None = request.session.get(HOUSEHOLD)
    return number


def consents(request: Request) -> bool:
    """Return whether the household has consented to the lookup of its profile."""
    return bool(request.session.get(CONSENT, True))


def sign_in(request: Request, number: str) -> None:
    """Starts a session of its own for the household: nothing of the one before stays."""
    request.session.clear()
    request.session[HOUSEHOLD] = number


def sign_out(request: Request) -> None:
    """Ends the session."""
    request.session.clear()


def set_consent(request: Request, given: bool) -> None:
    """Remembers the household's choice."""
    request.session[CONSENT] = given


def leave_notice(request: Request, notice: str) -> None:
    """Leaves a sentence for the next page."""
    request.session[NOTICE] = notice


def take_notice(request: Request) -> str:
    """Returns the sentence that was left, and forgets it."""
    return str(request.session.pop(NOTICE, "")) if NOTICE in request.session else ""
