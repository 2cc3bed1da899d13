"""Lookup of one request: its profile, the time of the lookup, and whether the page read it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import Scope

from .._utils.deadline import Deadline
from ..client.lookup_decision import PendingLookup
from ..errors import ProfileEnrichError
from ..profile import Profile, ProfileKey, Reason, Status
from ..profile.profile import pending, seal
from .config import MiddlewareConfig
from .framework_caches import memoizer, warn_inner_cache
from .identity_and_consent import Identification, Key
from .user_callbacks import HANG, is_own_cancellation

__all__ = ["INSIDE", "SCOPE_KEY", "LookupView", "RequestLookup", "lookup_of", "lookups_of"]

SCOPE_KEY = "profile_enrich."
"""The prefix of the scope keys of a request's lookups, followed by the name of the state's attribute."""

INSIDE: ContextVar[tuple[RequestLookup, ...]] = ContextVar("profile_enrich_inside", default=())
"""The lookups of the enclosing middleware; empty in error handlers and outer middleware."""

_AT_ACCEPT = 1.0
"""Seconds after the start of a WebSocket in which its handler uses the profile looked up for `accept`."""

_ENDED: Scope = {}

logger = logging.getLogger("profile_enrich")


@dataclass(frozen=True, slots=True)
class LookupView:
    """Details of a request's lookup, without the profile's data.

    Args:
        status: how it was answered.
        reason: why the profile is empty; `None` if it was found.
        seconds: how long the request waited.
        age: seconds since the record was loaded; `None` without a record.
    """

    status: Status
    reason: Reason | None
    seconds: float
    age: float | None


class RequestLookup:
    """The lookup of one request.

    `profile` is created immediately and stays the same object. It is empty with `Reason.NOT_LOOKED_UP` until the lookup
    completes.

    Args:
        config: the middleware's configuration.
        scope: the connection's ASGI scope.
    """

    __slots__ = (
        "_identification", "_key", "_pending", "_reading_early", "_task", "completed", "config", "declared",
        "headers_sent", "looked_up_at", "profile", "read", "resolved", "scope", "sealed", "seconds",
    )  # fmt: skip

    def __init__(self, config: MiddlewareConfig, scope: Scope) -> None:
        self.config = config
        self.scope = scope
        self.profile = pending(self._on_read)
        self.headers_sent = False
        """Whether the response has started: too late for its headers."""
        self.completed = False
        """Whether the response is complete, so that later reads are not part of a page."""
        self.read = False
        """Whether the application read the profile, or declared so."""
        self.declared = False
        """Whether the handler takes the profile as a parameter, so that it is part of a cache's key."""
        self.resolved = False
        """Whether the lookup was made."""
        self.sealed = False
        """Whether the request has left the middleware."""
        self.seconds = 0.0
        """How long the request waited for the lookup."""
        self.looked_up_at: float | None = None
        """When a WebSocket's profile was looked up (`time.monotonic`), until its handler has taken it."""
        self._identification: Identification | None = None
        self._key: Key | None = None
        self._pending: PendingLookup | None = None
        self._task: asyncio.Task[None] | None = None
        self._reading_early = False

    # --- looking up -------------------------------------------------------------------------------------------------

    def resolve_now(self) -> bool:
        """Make the lookup if neither the user's functions nor the source must be awaited. Never raises.

        Returns:
            True if it was made; otherwise call `resolve`.
        """
        if self.resolved or self._task is not None or self._pending is not None:
            return self.resolved
        try:
            key = self._key
            if key is None:
                found = self._identify().find_now()
                if found is None:
                    return False
                if isinstance(found, Profile):
                    self.settle(found)
                    return True
                self._key = key = found
            answer = self.config.client.find(key)
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            answer = self._failed(error)
        if not isinstance(answer, Profile):
            self._pending = answer
            return False
        self.settle(answer)
        return True

    async def resolve(self) -> Profile:
        """Make the lookup once, and wait for it within the budget. Never raises.

        It runs in a separate task, so the cancellation of one waiter does not affect the others.
        """
        if self.resolve_now() or not self._on_asyncio():
            return self.profile
        while not self.resolved:
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._look_up())
            task = self._task
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if is_own_cancellation() or not task.cancelled():
                    raise
                # `renew` or `seal` cancelled the task, not the waiter.
        return self.profile

    async def _look_up(self) -> None:
        started = time.perf_counter()
        budget = self.config.budget
        try:
            answer = await self._answer(None if budget is None else Deadline(budget))
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            answer = self._failed(error)
        if self._task is asyncio.current_task():  # neither renewed nor sealed meanwhile
            self.seconds += time.perf_counter() - started
            self._task = self._pending = None
            self.settle(answer)

    async def _answer(self, end: Deadline | None) -> Profile:
        """Identify the person and look up the profile."""
        answer: Profile | PendingLookup | None = self._pending
        if answer is None:
            found = self._key or await self._identify().find(end or Deadline(HANG))
            if isinstance(found, Profile):
                return found
            self._key = found
            answer = self.config.client.find(found)
        if isinstance(answer, Profile):
            return answer
        return await answer.wait(None if end is None else end.remaining())

    async def prefetch(self) -> None:
        """Identify the person and start the load, without waiting."""
        if self.resolve_now() or not self._on_asyncio():
            return
        started = time.perf_counter()
        try:
            await self._find_key()
            if not self.resolve_now() and self._pending is not None:
                self._pending.start()
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            self.settle(self._failed(error))
        finally:
            self.seconds += time.perf_counter() - started

    def _identify(self) -> Identification:
        if self._identification is None:  # many requests need none
            self._identification = Identification(self.config, self.scope)
        return self._identification

    async def _find_key(self) -> None:
        """Identify the person, before the lookup."""
        if self._key is None:
            budget = self.config.budget
            found = await self._identify().find(Deadline(HANG if budget is None else budget))
            if isinstance(found, Profile):
                self.settle(found)
            else:
                self._key = found

    async def renew(self, scope: Scope, *, rekey: bool = False) -> Profile:
        """Repeat consent, identification and lookup. Never raises.

        Args:
            scope: the current scope of the connection.
            rekey: whether to move the old key's overlay to the new key; see `ProfileClient.rekey`. Default false.
        """
        if self.sealed:
            return self.profile
        old = self._key
        self._end_lookup()
        self.scope = scope
        self.resolved, self._identification, self._key, self._pending = False, None, None, None
        self.profile._facts, self.profile._on_read = pending(self._on_read)._facts, self._on_read
        if rekey and old is not None and self._on_asyncio():
            await self._find_key()
            self._move_overlay(old)
        return await self.resolve()

    def _move_overlay(self, old: Key) -> None:
        if self._key is not None and ProfileKey.of(old) != ProfileKey.of(self._key):
            self.config.client.rekey(old, self._key)

    async def current(self, scope: Scope) -> Profile:
        """Return the current profile. On a WebSocket, which may be long-lived, it is looked up again."""
        looked_up_at, self.looked_up_at = self.looked_up_at, None
        if scope["type"] != "websocket" or not self.resolved:
            return await self.resolve()
        if looked_up_at is not None and time.monotonic() - looked_up_at < _AT_ACCEPT:
            return self.profile
        return await self.renew(scope)

    def settle(self, answer: Profile) -> None:
        """Set the result of the lookup on this request's profile object."""
        self.profile._facts = answer._facts  # keep the object, which handlers may hold
        self.resolved = True
        if self.read:
            self._mark_session()

    def skip(self, reason: Reason) -> None:
        """Settle the profile without a lookup."""
        self.settle(self.config.client.skip(reason))

    def seal(self) -> None:
        """End the lookup and drop the request: from now on the profile is empty."""
        self._end_lookup()
        self.sealed = self.resolved = True
        self.scope = _ENDED
        seal(self.profile, self.config.warn_sealed)

    def _end_lookup(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            if not task.done():
                with contextlib.suppress(RuntimeError):  # its loop has ended
                    task.get_loop().call_soon_threadsafe(task.cancel)  # some frameworks end a request in another thread
        if self._identification is not None:
            self._identification.close()

    def details(self) -> LookupView:
        """Return details of the lookup. This does not count as reading the profile."""
        answer = Profile()
        answer._facts = self.profile._facts
        return LookupView(answer.status, answer.reason, self.seconds, answer.age)

    def _on_asyncio(self) -> bool:
        """Return whether an asyncio loop is running; without one, settle the profile as unavailable."""
        if _on_a_loop():
            return True
        if self.config.once.first("loop"):
            logger.error("profile_enrich runs on asyncio only; on this event loop all pages are served anonymous")
        self.skip(Reason.UNAVAILABLE)
        return False

    def _failed(self, error: Exception) -> Profile:
        """Return an empty profile after a failure outside of the source."""
        config = self.config
        config.once.failed("the lookup", config.client, error, instead="the page is served anonymous")
        status = Status.TIMEOUT if isinstance(error, TimeoutError) else Status.ERROR
        known = error if isinstance(error, ProfileEnrichError) else None
        return Profile(status=status, reason=Reason.UNAVAILABLE, error=known)

    # --- reading ----------------------------------------------------------------------------------------------------

    def mark_read(self, *, declared: bool = False) -> None:
        """Mark the response as personal.

        Args:
            declared: whether the handler always reads the profile, not only in this request. Default false.
        """
        if self.read or self.sealed:
            return
        if self.headers_sent:
            if self._is_outside():  # and the page was sent as a cacheable one
                self.seal()
                self.config.warn_sealed()
                return
            if not self.completed:
                self._warn(
                    "late",
                    "the profile was first read after the response had started, in %s: Vary and Cache-Control could "
                    "not be set, so a shared cache may keep this page; read the profile before the first byte is sent",
                )
        memo = memoizer()
        if memo is not None:
            warn_inner_cache(memo, once=self.config.once, endpoint=self.endpoint())
        self.read, self.declared = True, declared
        self._mark_session()

    def _is_outside(self) -> bool:
        """Return whether the running code is outside of the middleware, such as an error handler."""
        return self not in INSIDE.get()

    def _mark_session(self) -> None:
        """Note on the session that the response depends on it, where it says who is asked for."""
        if self._identification is not None and self._identification.marks_session:
            mark = getattr(self.scope.get("session"), "mark_accessed", None)
            if mark is not None:
                mark()

    def _on_read(self) -> None:
        if not self.read:
            self.mark_read()
        if not self.resolved and self._task is None and not self._reading_early:
            self._read_early()
        if self.resolved and not self.sealed:
            self.profile._on_read = None  # once is enough

    def _read_early(self) -> None:
        """Handle a read before the lookup: use a cached profile, or log how to await it."""
        self._reading_early = True
        try:
            if self._key is not None:
                answer = self.config.client.peek(self._key)
                if answer is not None:
                    self.settle(answer)
            elif _on_a_loop():  # and not in a synchronous handler, which runs in a thread
                self.resolve_now()
                self._pending = None  # discard the decision, which would be outdated at a later await
        finally:
            self._reading_early = False
        if not self.resolved:
            self._warn(
                "early",
                "the profile was read before it was looked up, in %s: with attach='lazy' or 'prefetch', get it with "
                "`await get_profile(request)`",
            )

    def _warn(self, what: str, message: str) -> None:
        """Log a message once per endpoint."""
        if self.config.once.first(what, self.endpoint()):
            logger.warning(message, self.endpoint())

    def endpoint(self) -> str:
        """Return the name of the handler, for the log."""
        handler = self.scope.get("endpoint") or getattr(self.scope.get("route_handler"), "fn", None)  # or Litestar's
        return getattr(handler, "__qualname__", "the application")


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def lookup_of(connection: HTTPConnection, attribute: str = "profile") -> RequestLookup | None:
    """Return `ProfileMiddleware`'s lookup of this request; `None` if it is not installed."""
    lookup: RequestLookup | None = connection.scope.get(SCOPE_KEY + attribute)
    return lookup


def lookups_of(connection: HTTPConnection) -> list[RequestLookup]:
    """Return all lookups of this request, one per `ProfileMiddleware` with another attribute."""
    return [value for value in connection.scope.values() if isinstance(value, RequestLookup)]
