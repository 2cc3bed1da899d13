"""The lookup of one Django request, in threads and on event loops."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async  # pyright: ignore[reportDeprecated]
from django.http import HttpRequest
from starlette.requests import HTTPConnection
from starlette.types import Scope

from .._utils.deadline import Deadline
from ..errors import BudgetExceeded
from ..profile import Profile
from ..web.blocking_lookup import GRACE, BlockingLookup
from ..web.native_request import NATIVE_REQUEST, scope_of_environ
from .page_cache import keep_out_of_page_cache
from .settings import DjangoConfig

__all__ = ["DjangoLookup", "is_async", "lookup_of"]

_ATTRIBUTE = "_profile_enrich"

logger = logging.getLogger("profile_enrich")


class DjangoLookup(BlockingLookup):
    """The lookup of one request.

    Args:
        config: the configuration.
        request: the request; its user and session are looked at when the profile is first read.
    """

    def __init__(self, config: DjangoConfig, request: HttpRequest) -> None:
        super().__init__(config, self._load)
        self.attribute = config.attribute
        self._request = request
        setattr(request, _ATTRIBUTE, self)
        setattr(request, config.attribute, self.profile)
        setattr(request, f"a{config.attribute}", self.aprofile)

    async def aprofile(self) -> Profile:
        """The profile, looked up now if it was not yet. Never raises."""
        profile = await self.resolve()
        self.mark_read()
        return profile

    def mark_read(self) -> None:
        """The response is made for this person: neither Django's page cache nor another one may give it to others."""
        if not self.read:
            keep_out_of_page_cache(self._request)
        super().mark_read()

    async def _resolve(self) -> None:
        # On the client's own loop here, too: under WSGI, Django ends the view's loop with the request.
        budget = self._plan.budget
        end = self._end = None if budget is None else Deadline(budget)
        key = self._key or await self.identify(end)
        if key is None:
            return
        client = self._plan.client
        try:
            answer = self._blocking.fresh(key)
            if answer is None:
                rest = None if end is None else end.remaining()
                work = self._blocking.submit(client.lookup(key, budget=rest))
                async with asyncio.timeout(None if rest is None else rest + GRACE):
                    answer = await asyncio.wrap_future(work)
        except TimeoutError:
            error = BudgetExceeded("the profile was not there within the budget")
            self._failed("the lookup", client, error)
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            self._failed("the lookup", client, error)
        else:
            self._settle(answer)

    def _ask(self, function: Callable[[HTTPConnection], Any]) -> Any:
        if not _on_a_loop():
            return super()._ask(function)
        if is_async(function) or _looks_at_headers_only(function):
            self._fill_scope()
            return self._ask_directly(function)
        return self._ask_in_thread(function)

    async def _ask_in_thread(self, function: Callable[[HTTPConnection], Any]) -> Any:
        # Sessions and users come from the database, which Django lets synchronous code alone use.
        self._fill_scope()
        answer = await sync_to_async(self._ask_directly, thread_sensitive=True)(function)
        return await answer if inspect.isawaitable(answer) else answer

    def _read_too_early(self) -> None:
        if not _on_a_loop():
            self.wait()
            return
        answer = None if self._key is None else self._blocking.fresh(self._key)
        if answer is not None:
            self._settle(answer)
        elif self._plan.once.first("early", self._endpoint()):
            logger.warning(
                "an asynchronous view read request.%s before it was looked up, so it is empty, in %s: get it with "
                "`await request.a%s()`",
                self.attribute,
                self._endpoint(),
                self.attribute,
            )

    def _endpoint(self) -> str:
        match = getattr(self._request, "resolver_match", None)
        return "the application" if match is None else cast(str, match._func_path)

    def _load(self) -> Scope:
        request = self._request
        scope: Scope = dict(getattr(request, "scope", ())) or scope_of_environ(request.META)
        scope[NATIVE_REQUEST] = request
        session, user = getattr(request, "session", None), getattr(request, "user", None)
        if session is not None:
            scope["session"] = session
        if user is not None:
            scope["user"] = user
        for needs, there, what, middleware in (
            ("needs_session", session, "session", "SessionMiddleware"),
            ("needs_user", user, "user", "AuthenticationMiddleware"),
        ):
            if there is None and getattr(self._plan.identify, needs, False) and self._plan.once.first(needs):
                logger.warning(
                    "there is no request.%s where the profile is read: put %s before DjangoProfileMiddleware in "
                    "MIDDLEWARE, and read the profile after it; until then pages are served anonymous",
                    what,
                    middleware,
                )
        return scope


def lookup_of(request: HttpRequest) -> DjangoLookup | None:
    """The lookup that the middleware made for this request; `None` where it is not installed."""
    return cast("DjangoLookup | None", getattr(request, _ATTRIBUTE, None))


def is_async(function: object) -> bool:
    """Whether a function is asynchronous, or marked as such: `inspect` sees the mark from Python 3.12 on only."""
    return iscoroutinefunction(cast(Any, function))  # pyright: ignore[reportDeprecated]


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _looks_at_headers_only(function: object) -> bool:
    """Whether a ready-made function needs neither the session nor the user."""
    return type(function).__module__.startswith("profile_enrich.") and not (
        getattr(function, "needs_session", False) or getattr(function, "needs_user", False)
    )
