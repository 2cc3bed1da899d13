"""Lookup of one Django request, in threads and on event loops."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async  # pyright: ignore[reportDeprecated]  # see `is_async`
from django.conf import settings
from django.http import HttpRequest
from starlette.types import Scope

from ..errors import BudgetExceeded
from ..profile import Profile
from ..web.blocking_lookup import GRACE, BlockingLookup
from ..web.native_request import NATIVE_REQUEST, is_ready_made, requirements_of, scope_of_environ
from ..web.request_values import SESSION_COOKIE
from ..web.user_callbacks import HANG, await_within, is_own_cancellation
from .page_cache import keep_out_of_page_cache
from .settings import DjangoConfig

__all__ = ["DjangoLookup", "is_async", "lookup_of", "refresh_profile", "renew_after_sign_in"]

T = TypeVar("T")

_ATTRIBUTE = "_profile_enrich"

logger = logging.getLogger("profile_enrich")


class DjangoLookup(BlockingLookup):
    """The lookup of one request.

    Args:
        config: the configuration.
        request: the request; its user and session are read when the profile is first read.
    """

    def __init__(self, config: DjangoConfig, request: HttpRequest) -> None:
        super().__init__(config, self._load)
        self.attribute = config.attribute
        self._request = request
        self._task: asyncio.Task[None] | None = None
        setattr(request, _ATTRIBUTE, self)
        setattr(request, config.attribute, self.profile)
        setattr(request, f"a{config.attribute}", self.aprofile)

    async def aprofile(self) -> Profile:
        """Return the profile, looked up now if necessary. Never raises."""
        self.mark_read()
        while not self.resolved:
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._look_up())
            # In a separate task, so the cancellation of one waiter does not affect the others.
            await asyncio.shield(self._task)
        return self.profile

    def mark_read(self) -> None:
        """Mark the response as personal, and keep it out of Django's page cache."""
        if not self.read:
            keep_out_of_page_cache(self._request)
        super().mark_read()

    def renew(self) -> None:
        """Reset the lookup after a change of identity within the request; the next read repeats it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        super().renew()

    def end(self) -> None:
        """Seal the profile at the end of the request: from now on it is empty."""
        if self._task is not None:
            self._task.cancel()
        super().end()

    async def _look_up(self) -> None:
        started = time.perf_counter()
        self._begin()
        try:
            answer = await self._lookup_async()
        except TimeoutError:
            error = BudgetExceeded("the profile was not there within the budget")
            answer = self.failed("the lookup", self.config.profiles, error)
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            answer = self.failed("the lookup", self.config.profiles, error)
        self.settle(answer)
        self.seconds += time.perf_counter() - started

    async def _lookup_async(self) -> Profile:
        config = self.config
        if config.consent is not None:
            consent = await self._answer(config.consent)
            denied = self.decide(consent)
            if denied is not None:
                return denied
        key = self.identify(await self._answer(config.identify))
        if isinstance(key, Profile):
            return key
        fresh = config.client.fresh(key)
        if fresh is not None:
            return fresh
        # On the client's loop, because under WSGI, Django ends the view's loop with the request.
        work = config.client.submit(config.profiles.lookup(key, budget=self.remaining()))
        return await self._within(asyncio.wrap_future(work))

    async def _answer(self, function: Callable[[Any], Any]) -> Callable[[], object]:
        """Call an identity or consent function, and return a function that returns its result or raises its error."""
        try:
            rest = self.remaining()
            answer = await await_within(self._ask_async(function), HANG if rest is None else rest + GRACE)
        except (Exception, asyncio.CancelledError) as error:  # raised where it is known what it means
            if isinstance(error, asyncio.CancelledError) and is_own_cancellation():
                raise
            return functools.partial(_raise, error)
        return lambda: answer

    async def _ask_async(self, function: Callable[[Any], Any]) -> Any:
        if is_async(function) or _looks_at_headers_only(function):
            answer = self.ask(function)
        else:
            # Sessions and users are read from the database, which Django allows only in synchronous code.
            answer = await sync_to_async(self.ask, thread_sensitive=True)(function)
        return await answer if inspect.isawaitable(answer) else answer

    async def _within(self, answer: Awaitable[T]) -> T:
        rest = self.remaining()
        async with asyncio.timeout(None if rest is None else rest + GRACE):
            return await answer

    def read_early(self) -> None:
        """Wait for the lookup in a thread; in an asynchronous view, log how to await it."""
        if not _in_a_task():
            self.wait()
        elif self.config.once.first("early", self.endpoint()):
            logger.warning(
                "an asynchronous view read request.%s before it was looked up, so it is empty, in %s: get it with "
                "`await request.a%s()`",
                self.attribute,
                self.endpoint(),
                self.attribute,
            )

    def endpoint(self) -> str:
        """Return the name of the view, for the log."""
        match = getattr(self._request, "resolver_match", None)
        return "the application" if match is None else cast(str, match._func_path)

    def _load(self) -> Scope:
        request = self._request
        scope: Scope = dict(getattr(request, "scope", ())) or scope_of_environ(request.META)
        scope[NATIVE_REQUEST] = request
        scope[SESSION_COOKIE] = settings.SESSION_COOKIE_NAME
        for name, middleware in _PROVIDERS.items():
            value = getattr(request, name, None)
            if value is not None:
                scope[name] = value
            elif name in self.config.requires() and self.config.once.first("required", name):
                logger.warning(
                    "there is no request.%s where the profile is read: put %s before DjangoProfileMiddleware in "
                    "MIDDLEWARE, and read the profile after it; until then pages are served anonymous",
                    name,
                    middleware,
                )
        return scope


_PROVIDERS = {"session": "SessionMiddleware", "user": "AuthenticationMiddleware"}


def lookup_of(request: HttpRequest) -> DjangoLookup | None:
    """Return the middleware's lookup of this request; `None` if it is not installed."""
    return cast("DjangoLookup | None", getattr(request, _ATTRIBUTE, None))


def renew_after_sign_in(*, request: HttpRequest | None, **_: Any) -> None:
    """Handle Django's `user_logged_in` and `user_logged_out`: reset the request's lookup."""
    lookup = None if request is None else lookup_of(request)
    if lookup is not None:
        lookup.renew()


def refresh_profile(request: HttpRequest) -> None:
    """Look up anew who is in session, where the profile is read next: `request.profile` or `await request.aprofile()`.

    Call it after a view has switched users by the session alone. After `login()` and `logout()` it is not needed.

    Args:
        request: the request.
    """
    renew_after_sign_in(request=request)


def is_async(function: object) -> bool:
    """Return whether a function is asynchronous or marked as such, which `inspect` detects only from Python 3.12 on."""
    return iscoroutinefunction(cast(Any, function))  # pyright: ignore[reportDeprecated]  # works before 3.12, too


def _in_a_task() -> bool:
    """Return whether a task is running here. A running loop is not enough: gevent runs all greenlets in one thread."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _looks_at_headers_only(function: object) -> bool:
    """Return whether a ready-made function requires neither session nor user."""
    return is_ready_made(function) and not requirements_of(function)


def _raise(error: BaseException) -> object:
    raise error
