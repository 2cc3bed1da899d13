"""Identification: who is signed in, and whether they consent to the lookup."""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import Awaitable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from .._utils.deadline import Deadline
from .._utils.validation import is_int
from ..errors import InvalidKeyError, ProfileEnrichError
from ..profile import Profile, ProfileKey, Reason, Status
from .config import MiddlewareConfig
from .user_callbacks import await_within, call, is_own_cancellation

__all__ = ["Identification", "Key"]

Key = str | ProfileKey

logger = logging.getLogger("profile_enrich")

_ENDED: Scope = {}

_ANONYMOUS = "the page is served anonymous"

_REQUIREMENTS = {
    "session": "there is no session where ProfileMiddleware looks for one: put SessionMiddleware before it in the "
    "middleware list, so that it is outside; until then all pages are served anonymous",
    "user": "there is no user where ProfileMiddleware looks for one: put AuthenticationMiddleware before it in the "
    "middleware list, so that it is outside. Django under ASGI sets no user outside of itself: use "
    "profile_enrich.django there. Until then all pages are served anonymous",
}
"""The messages, logged once, if the scope lacks something that an identity function requires."""


class Identification:
    """Identify the person of one request: consent first, then the identity function. Never raises.

    The result is a key, or an empty profile with the reason for no lookup.
    """

    __slots__ = ("_config", "_consented", "_pending", "_scope", "marks_session")

    def __init__(self, config: MiddlewareConfig, scope: Scope) -> None:
        self._config = config
        self._scope = scope
        self._consented = config.consent is None
        self._pending: Awaitable[Any] | None = None
        self.marks_session = False
        """Whether the session was read, so that a page with the profile depends on it."""

    def find_now(self) -> Key | Profile | None:
        """Return the key or an empty profile; `None` if a function must be awaited, for which call `find`."""
        if self._pending is not None:
            return None
        if not self._consented:
            denied = self._ask_consent()
            if not self._consented:
                return denied
        config = self._config
        try:
            identity = self._ask("identity", config.identify)
            if type(identity) is str and identity:
                return identity
            if inspect.isawaitable(identity):
                self._pending = identity
                return None
            return self._who(identity)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a user's function must not break the page
            return self._identity_failed(error)

    async def find(self, end: Deadline) -> Key | Profile:
        """Return the key or an empty profile.

        Args:
            end: the deadline of the functions; a timeout counts as no.
        """
        found = self.find_now()
        while found is None:
            pending, self._pending = self._pending, None
            if pending is None:  # unreachable: `find_now` returns None only with something to await
                return self._config.client.skip(Reason.UNAVAILABLE)
            if not self._consented:
                found = await self._await_consent(pending, end)
                if found is None:
                    found = self.find_now()
            else:
                try:
                    found = self._who(await await_within(pending, end.remaining()))
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as above
                    found = self._identity_failed(error)
        return found

    def close(self) -> None:
        """Drop the connection, and a coroutine that will not be awaited."""
        self._scope = _ENDED
        if self._pending is not None:
            pending, self._pending = self._pending, None
            if inspect.iscoroutine(pending):
                pending.close()

    # --- consent ----------------------------------------------------------------------------------------------------

    def _ask_consent(self) -> Profile | None:
        config = self._config
        try:
            answer = self._ask("consent", config.consent)
            if inspect.isawaitable(answer):
                self._pending = answer
                return None
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a user's function must not break the page
            answer = self._consent_failed(error)
        return self._decide(answer)

    async def _await_consent(self, pending: Awaitable[Any], end: Deadline) -> Profile | None:
        try:
            answer = await await_within(pending, end.remaining())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as above
            answer = self._consent_failed(error)
        return self._decide(answer)

    def _decide(self, answer: object) -> Profile | None:
        """Return whether a lookup is allowed: only for `True`."""
        self._consented = answer is True
        return None if self._consented else self._config.client.skip(Reason.NO_CONSENT)

    def _consent_failed(self, error: BaseException) -> bool:
        if isinstance(error, asyncio.CancelledError) and is_own_cancellation():
            raise error
        self._config.once.failed("the consent function", self._config.consent, error, instead=_ANONYMOUS)
        return False

    # --- identity ---------------------------------------------------------------------------------------------------

    def _who(self, identity: object) -> Key | Profile:
        if identity is None or identity == "":
            self._warn_missing()
            return self._config.client.skip(Reason.ANONYMOUS)
        return key_of(identity)

    def _warn_missing(self) -> None:
        for required in getattr(self._config.identify, "requires", ()):
            if required not in self._scope and self._config.once.first("required", required):
                logger.warning(_REQUIREMENTS[required])

    def _identity_failed(self, error: BaseException) -> Profile:
        if isinstance(error, asyncio.CancelledError) and is_own_cancellation():
            raise error
        instead = _ANONYMOUS
        if type(error).__name__ == "SynchronousOnlyOperation":  # Django's: a lazy user that was not loaded yet
            instead += (
                ". It asks Django's database, which the event loop must not wait for: wrap it, in_thread(function)"
            )
        self._config.once.failed("the identity function", self._config.identify, error, instead=instead)
        status = Status.TIMEOUT if isinstance(error, TimeoutError) else Status.ERROR
        known = error if isinstance(error, ProfileEnrichError) else None
        return Profile(status=status, reason=Reason.UNAVAILABLE, error=known)

    def _ask(self, role: str, function: Any) -> Any:
        """Call a user's function with the connection, without marking the session as accessed."""
        scope, once = self._scope, self._config.once
        session = scope.get("session")
        if session is None or getattr(session, "accessed", None) is not False:
            return call(role, function, HTTPConnection(scope), once)
        try:
            return call(role, function, HTTPConnection(scope), once)
        finally:
            touched = bool(session.accessed)
            if touched and not getattr(session, "modified", False):
                session.accessed = False
            self.marks_session = self.marks_session or touched or "session" in getattr(function, "requires", ())


def key_of(identity: object) -> Key:
    """Convert an identity to a key for the client. An integer or a UUID becomes text."""
    if type(identity) is str or type(identity) is ProfileKey:
        return identity
    if is_int(identity) or isinstance(identity, uuid.UUID):
        identity = str(identity)
    if not isinstance(identity, str | ProfileKey):
        raise InvalidKeyError(
            "an identity function must return a string, a whole number, a UUID, a ProfileKey or None, not "
            f"{type(identity).__name__}"
        )
    return identity
