"""The profile of one request: who is asked for, the lookup, and whether the page read it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Message, Scope, Send

from .._utils.deadline import Deadline
from .._utils.log_once import LogOnce
from ..client.client import ProfileClient
from ..client.lookup import PendingLookup
from ..errors import InvalidKeyError, ProfileEnrichError
from ..profile import Profile, ProfileKey, Reason, Status, pending
from .cache_headers import Headers, is_plain, personal_lines, personalise
from .consent import Consent
from .identity import Identify

__all__ = ["SCOPE_KEY", "LookupView", "MiddlewareConfig", "RequestLookup", "attachment_of", "attachments_of"]

Key = str | ProfileKey

_NOT_ASKED: Any = object()

_ENDED: Scope = {}

_ANONYMOUS = "the page is served anonymous"

SCOPE_KEY = "profile_enrich."
"""Where the attachments of a request are in its ASGI scope: under this and the name of the state's attribute."""

logger = logging.getLogger("profile_enrich")


@dataclass(frozen=True, slots=True)
class MiddlewareConfig:
    """What a middleware was told, shared by all its requests."""

    client: ProfileClient
    identify: Identify
    budget: float | None
    vary_on: tuple[str, ...]
    once: LogOnce
    consent: Consent | None = None
    server_timing: bool = False
    personal_lines: Headers = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "personal_lines", personal_lines(self.vary_on))


@dataclass(frozen=True, slots=True)
class LookupView:
    """How the lookup of a request went, without what it brought.

    Args:
        status: how it was answered.
        reason: why the profile is empty; `None` when it was found.
        seconds: how long the request waited.
        age: seconds since the source was asked; `None` without a record.
    """

    status: Status
    reason: Reason | None
    seconds: float
    age: float | None


class RequestLookup:
    """The lookup of one request.

    `profile` is made at once and stays the same object; until the lookup was made it is empty, with
    `Reason.NOT_LOOKED_UP`.
    """

    # Defaults on the class: most requests change few of them, and setting each one would be a third of the cost.
    headers_sent: bool = False
    """Whether the response has started: too late for its headers."""
    read: bool = False
    """Whether the application read the profile."""
    resolved: bool = False
    """Whether the lookup was made."""
    seconds: float = 0.0
    """How long the request waited for the lookup."""
    _key: Key | None = None
    _asked: Any = _NOT_ASKED
    _marks_session: bool = False
    _pending: PendingLookup | None = None
    _resolving: asyncio.Future[None] | None = None

    def __init__(self, plan: MiddlewareConfig, scope: Scope, send: Send) -> None:
        self._plan = plan
        self._scope = scope
        self.send = send
        self.profile = pending(self._on_read)

    # --- the lookup -------------------------------------------------------------------------------------------------

    def resolve_now(self) -> bool:
        """Makes the lookup if that needs no waiting, neither for the user's functions nor for the source. Never raises.

        Returns:
            Whether it was made; else `resolve` goes on from where this stopped.
        """
        plan = self._plan
        if self.resolved or plan.consent is not None or self._key is not None or self._asked is not _NOT_ASKED:
            return self.resolved
        role = "the identity function"
        try:
            identity = self._ask(plan.identify)
            if type(identity) is not str or not identity:
                if identity is None or identity == "":
                    self.skip(Reason.ANONYMOUS)
                    return True
                if inspect.isawaitable(identity):
                    self._asked = identity
                    return False
                identity = _key_of(identity)
            role = "the lookup"
            found = plan.client.find(identity)
            if not isinstance(found, Profile):
                self._key, self._pending = identity, found
                return False
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            self._failed(role, plan.identify, error)
            return True
        self.profile._facts = found._facts
        self.resolved = True
        return True

    async def resolve(self) -> Profile:
        """Makes the lookup, once however often it is called, and waits for it within the budget. Never raises."""
        if self.resolved or not self._on_asyncio():
            return self.profile
        if self._resolving is not None:
            await asyncio.shield(self._resolving)
            return self.profile
        self._resolving = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        try:
            await self._resolve()
        finally:
            self.seconds += time.perf_counter() - started
            self.resolved = True
            self._resolving.set_result(None)
            self._resolving = None
        return self.profile

    async def _resolve(self) -> None:
        plan = self._plan
        end = None if plan.budget is None else Deadline(plan.budget)
        key = self._key or await self.identify(end)
        if key is None:
            return
        try:
            found, self._pending = self._pending or plan.client.find(key), None
            if not isinstance(found, Profile):
                found = await found.wait(None if end is None else end.remaining())
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            self._failed("the lookup", plan.client, error)
            return
        self._settle(found)

    async def prefetch(self) -> None:
        """Finds out who is in session and starts the load, without waiting for it."""
        if not self._on_asyncio():
            return
        started = time.perf_counter()
        plan = self._plan
        try:
            key = self._key or await self.identify(None if plan.budget is None else Deadline(plan.budget))
            if key is not None:
                found = self._pending or plan.client.find(key)
                if isinstance(found, Profile):
                    self._settle(found)
                else:
                    self._pending = found
                    found.start()
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            self._failed("the lookup", plan.client, error)
        self.seconds += time.perf_counter() - started

    async def identify(self, end: Deadline | None) -> Key | None:
        """Who is in session; `None` when that settled the profile as an empty one."""
        plan = self._plan
        if plan.consent is not None and not await self._consents(plan.consent, end):
            self.skip(Reason.NO_CONSENT)
            return None
        try:
            asked, self._asked = self._asked, None
            identity = await _within(end, self._ask(plan.identify) if asked is _NOT_ASKED else asked)
            if identity is None or identity == "":
                self.skip(Reason.ANONYMOUS)
            else:
                self._key = _key_of(identity)
        except Exception as error:  # noqa: BLE001  # a user's function must not break the page
            self._failed("the identity function", plan.identify, error)
        return self._key

    async def _consents(self, consent: Consent, end: Deadline | None) -> bool:
        """Whether the lookup is allowed. A consent function that fails, or says anything but `True`, denies it."""
        try:
            return await _within(end, self._ask(consent)) is True
        except Exception as error:  # noqa: BLE001  # a user's function must not break the page
            self._plan.once.failed("the consent function", consent, error, instead=_ANONYMOUS)
            return False

    def _ask(self, function: Callable[[HTTPConnection], Any]) -> Any:
        """Asks a function of the user's about the connection, and leaves no trace of that on the session."""
        session = self._scope.get("session")
        if session is None or getattr(session, "accessed", None) is not False:
            return function(HTTPConnection(self._scope))
        try:
            return function(HTTPConnection(self._scope))
        finally:
            touched = bool(session.accessed)
            if touched and not getattr(session, "modified", False):
                session.accessed = False
            self._marks_session = self._marks_session or touched or getattr(function, "needs_session", False)

    def _on_asyncio(self) -> bool:
        """Whether there is a loop to wait on; where there is none, the profile is settled as not available."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._plan.once.first("loop"):
                logger.error("profile_enrich runs on asyncio only; on this event loop all pages are served anonymous")
            self.skip(Reason.UNAVAILABLE)
            return False
        return True

    def _failed(self, role: str, function: object, error: Exception) -> None:
        """Settles the profile after a failure outside of the source."""
        self._plan.once.failed(role, function, error, instead=_ANONYMOUS)
        status = Status.TIMEOUT if isinstance(error, TimeoutError) else Status.ERROR
        known = error if isinstance(error, ProfileEnrichError) else None
        self._settle(Profile(status=status, reason=Reason.UNAVAILABLE, error=known))

    def _settle(self, answer: Profile) -> None:
        self.profile._facts = answer._facts  # it stays the same object to those who hold it
        self.resolved = True

    def skip(self, reason: Reason) -> None:
        """Settles the profile as one that is not looked up."""
        self._settle(self._plan.client.skip(reason))

    def end(self) -> None:
        """The request has ended: lets go of it, so that what belongs to it is freed at once, not by the collector."""
        if self.resolved:
            self.profile._on_read = None
            self._scope = _ENDED

    def details(self) -> LookupView:
        """How the lookup went. Not a reading of the profile."""
        answer = Profile()
        answer._facts = self.profile._facts
        return LookupView(answer.status, answer.reason, self.seconds, answer.age)

    # --- the response -----------------------------------------------------------------------------------------------

    def respond(self, message: Message) -> Awaitable[None]:
        """Passes a message of the response on to `send`; marks it as personal where the profile was read."""
        # Not a coroutine of its own: most messages only pass through.
        if message["type"] == "http.response.start":
            self.headers_sent = True
            if self.read or self._plan.server_timing:
                message = self._start(message)
        return self.send(message)

    def _start(self, message: Message) -> Message:
        """The start of the response, with the headers that this request's profile asks for."""
        headers: Headers = message.get("headers") or []  # or another iterable of pairs
        if self.read:
            session, plan = self._scope.get("session"), self._plan
            vary_on = plan.vary_on if session is None else self._vary_on(session)
            if vary_on is plan.vary_on and type(headers) is list and is_plain(headers):  # as most are
                headers = headers + plan.personal_lines
            else:
                headers, invited = personalise(headers, vary_on)
                if invited:
                    self._warn_shared()
        if self._plan.server_timing:
            headers = [*headers, (b"server-timing", self._server_timing())]
        return {**message, "headers": headers}

    def _vary_on(self, session: object) -> tuple[str, ...]:
        """The request headers that `Vary` has to name, less what a middleware outside of this one will add itself."""
        if getattr(session, "accessed", False) and type(session).__module__ == "starlette.middleware.sessions":
            # Starlette's SessionMiddleware appends `Cookie` without looking whether it is there.
            return tuple(name for name in self._plan.vary_on if name.lower() != "cookie")
        return self._plan.vary_on

    def _server_timing(self) -> bytes:
        """The lookup as a `Server-Timing` metric (W3C): its status, and how long the request waited for it."""
        details = self.details()
        return f'profile;desc="{details.status.value}";dur={1000 * details.seconds:.2f}'.encode()

    def _warn_shared(self) -> None:
        """Says that a personalised response had invited shared caches."""
        if self._plan.once.first("shared", self._endpoint()):
            logger.warning(
                "%s read the profile and allowed shared caches to keep the page; it was made private. Do not set "
                "public, s-maxage or a CDN's own cache header on a page that reads the profile",
                self._endpoint(),
            )

    # --- reading ----------------------------------------------------------------------------------------------------

    def _on_read(self) -> None:
        if not self.resolved and self._resolving is None:
            self._read_too_early()
        if self.resolved:
            self.profile._on_read = None  # once is enough
        if not self.read:
            self.mark_read()

    def mark_read(self) -> None:
        """The response is made for this person, so it must say that to caches."""
        if self.read:
            return
        self.read = True
        if self._marks_session:
            mark = getattr(self._scope.get("session"), "mark_accessed", None)
            if mark is not None:
                mark()
        if self.headers_sent and self._plan.once.first("late", self._endpoint()):
            logger.warning(
                "the profile was first read after the response had started, in %s: Vary and Cache-Control could not "
                "be set, so a shared cache may keep this page; read the profile before the first byte is sent",
                self._endpoint(),
            )

    def _read_too_early(self) -> None:
        """The page reads the profile without having awaited it: what the cache has is good enough, else it is told."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._peek()  # a synchronous handler, in a thread of its own
        else:
            self._resolve_early()
        if not self.resolved and self._plan.once.first("early", self._endpoint()):
            logger.warning(
                "the profile was read before it was looked up, in %s: with attach='lazy' or 'prefetch', get it with "
                "`await get_profile(request)`",
                self._endpoint(),
            )

    def _resolve_early(self) -> None:
        """On the loop: resolves the profile as far as that needs no waiting."""
        if self._key is None:
            step = self.identify(None)
            try:
                step.send(None)
            except StopIteration:
                pass
            else:
                step.close()  # the user's function wants to be awaited
                self._asked = _NOT_ASKED
        if self._key is not None and not self.resolved:
            found = self._plan.client.find(self._key)
            if isinstance(found, Profile):
                self._settle(found)

    def _peek(self) -> None:
        """In another thread: takes what the cache holds, for whom a prefetch has already found out."""
        answer = None if self._key is None else self._plan.client.peek(self._key)
        if answer is not None:
            self._settle(answer)

    def _endpoint(self) -> str:
        endpoint = self._scope.get("endpoint")
        return getattr(endpoint, "__qualname__", "the application")


def attachment_of(connection: HTTPConnection, attribute: str = "profile") -> RequestLookup | None:
    """The attachment that `ProfileMiddleware` made for this request; `None` where it is not installed."""
    attachment: RequestLookup | None = connection.scope.get(SCOPE_KEY + attribute)
    return attachment


def attachments_of(connection: HTTPConnection) -> list[RequestLookup]:
    """All attachments of this request: one for each `ProfileMiddleware` with an attribute of its own."""
    return [value for value in connection.scope.values() if isinstance(value, RequestLookup)]


async def _within(end: Deadline | None, answer: Any) -> Any:
    """The answer, awaited if need be, until the deadline."""
    if not inspect.isawaitable(answer):
        return answer
    async with asyncio.timeout(None if end is None else end.remaining()):
        return await answer


def _key_of(identity: object) -> Key:
    """What the client takes; a whole number, as sessions often hold, counts as its decimal text."""
    if type(identity) is str or type(identity) is ProfileKey:
        return identity
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str | ProfileKey):
        raise InvalidKeyError(
            f"an identity function must return a string, a ProfileKey or None, not {type(identity).__name__}"
        )
    return identity
