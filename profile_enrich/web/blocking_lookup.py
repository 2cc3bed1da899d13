"""The lookup of a request outside of ASGI: the calling thread waits, the client works on an event loop of its own."""

from __future__ import annotations

import concurrent.futures
import inspect
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from starlette.requests import HTTPConnection
from starlette.types import Message, Scope

from .._utils.deadline import Deadline
from .._utils.log_once import LogOnce
from .._utils.validation import check_number
from ..client.client import ProfileClient
from ..errors import BudgetExceeded, ConfigurationError
from ..profile import Profile, Reason
from .cache_headers import Headers
from .dependencies import refusal
from .identity import vary_of
from .native_request import ask
from .request_lookup import Key, MiddlewareConfig, RequestLookup

__all__ = ["GRACE", "BlockingConfig", "BlockingLookup"]

logger = logging.getLogger("profile_enrich")

GRACE = 0.02
"""Seconds beyond the budget that a thread waits for the client's loop to answer that the budget is over."""


class BlockingConfig:
    """What an integration was configured with, shared by all its requests.

    Args:
        client: makes the lookups, on one event loop in a thread of its own, however many threads ask.
        identify: says who is in session: a ready-made function such as `from_session()`, or one that takes the
            framework's request.
        budget: seconds that a page waits for a profile at most; `None` waits for the client's `deadline`.
        consent: says whether the lookup is allowed; `None` allows it.
        exclude: path prefixes without a lookup.
        vary_on: request headers that the identity comes from; `None` takes what `identify` and `consent` know.
        server_timing: whether a response gets a `Server-Timing` header.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """

    def __init__(
        self,
        *,
        client: ProfileClient,
        identify: Callable[[Any], Any],
        budget: float | None = 0.05,
        consent: Callable[[Any], Any] | None = None,
        exclude: Iterable[str] = (),
        vary_on: Iterable[str] | None = None,
        server_timing: bool = False,
    ) -> None:
        if not isinstance(client, ProfileClient):
            raise ConfigurationError(f"client must be a ProfileClient, not {type(client).__name__}")
        if not callable(identify):
            raise ConfigurationError("identify must be callable, e.g. from_session('user_id')")
        if consent is not None and not callable(consent):
            raise ConfigurationError("consent must be callable, e.g. honour_gpc()")
        if budget is not None:
            check_number("budget", budget)
        if isinstance(exclude, str):
            raise ConfigurationError("exclude must be a list of path prefixes, e.g. ['/static']")
        prefixes = tuple(exclude)
        if not all(isinstance(prefix, str) and prefix.startswith("/") for prefix in prefixes):
            raise ConfigurationError("exclude: each path prefix must start with '/', e.g. '/static'")
        if isinstance(vary_on, str):
            raise ConfigurationError("vary_on must be a list of header names, e.g. ['Cookie']")
        if vary_on is not None:
            headers = tuple(vary_on)
        else:
            headers = vary_of(identify) if consent is None else (*vary_of(consent), *vary_of(identify))
        self.exclude = tuple(prefix.rstrip("/") for prefix in prefixes)
        self.once = LogOnce()
        self.client = client.blocking()
        self.request = MiddlewareConfig(
            client=client,
            identify=identify,
            budget=budget,
            vary_on=headers,
            once=self.once,
            consent=consent,
            server_timing=bool(server_timing),
        )

    def excludes(self, path: str) -> bool:
        """Whether no lookup is made for a path: whole segments are compared."""
        return any(path == prefix or path.startswith(prefix + "/") for prefix in self.exclude)


class BlockingLookup(RequestLookup):
    """The lookup of one request, for synchronous code. The profile is looked up where it is first read.

    Args:
        config: the configuration.
        load_scope: makes the ASGI scope that identity and consent functions look at; called when they are asked.
    """

    def __init__(self, config: BlockingConfig, load_scope: Callable[[], Scope]) -> None:
        super().__init__(config.request, {}, _send_nothing)
        self._blocking = config.client
        self._load_scope: Callable[[], Scope] | None = load_scope
        self._end: Deadline | None = None

    def wait(self) -> Profile:
        """Make the lookup, once however often it is called, and wait for it within the budget. Never raises."""
        if self.resolved:
            return self.profile
        started = time.perf_counter()
        budget = self._plan.budget
        self._end = None if budget is None else Deadline(budget)
        try:
            self._lookup_here()
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            self._failed("the lookup", self._plan.client, error)
        finally:
            self.resolved = True
            self.seconds += time.perf_counter() - started
        return self.profile

    def require(self) -> Profile:
        """The profile, found.

        Raises:
            ProfileRequired: there is none; it has the status code for the reason.
        """
        self.mark_read()
        profile = self.wait()
        if not profile:
            raise refusal(profile)
        return profile

    def _lookup_here(self) -> None:
        step = self.identify(None)
        try:
            step.send(None)
        except StopIteration as done:
            key: Key | None = done.value
        else:  # pragma: no cover  # `_ask` waits for what is awaitable, so that nothing suspends
            step.close()
            raise RuntimeError("the identity function was not waited for")
        if key is not None:
            self._settle(self.client_lookup(key))

    def client_lookup(self, key: Key) -> Profile:
        """The client's answer, from this thread where it is a fresh hit."""
        client, budget = self._plan.client, None if self._end is None else self._end.remaining()
        return self._blocking.fresh(key) or cast(Profile, self._run(client.lookup(key, budget=budget)))

    def _run(self, work: Any) -> Any:
        """Wait for a coroutine on the client's loop, within the budget even if that loop stands still."""
        future = self._blocking.submit(work)
        try:
            return future.result(None if self._end is None else self._end.remaining() + GRACE)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            raise BudgetExceeded("the profile was not there within the budget") from None
        finally:
            future.cancel()

    def _ask(self, function: Callable[[HTTPConnection], Any]) -> Any:
        self._fill_scope()
        answer = self._ask_directly(function)
        return self._run(_awaited(answer)) if inspect.isawaitable(answer) else answer

    def _ask_directly(self, function: Callable[[HTTPConnection], Any]) -> Any:
        return super()._ask(_Question(function))

    def _fill_scope(self) -> None:
        if self._load_scope is not None:
            load, self._load_scope = self._load_scope, None
            self._scope.update(load())

    def _read_too_early(self) -> None:
        self.wait()

    def end(self) -> None:
        """The request has left the integration: from now on its profile is empty for everybody who still holds it."""
        super().end()
        self.resolved = True
        self.profile._facts = Profile(reason=Reason.NOT_LOOKED_UP)._facts
        self.profile._on_read = self._on_late_read

    def _on_late_read(self) -> None:
        self.profile._on_read = None
        if self._plan.once.first("sealed"):
            logger.warning(
                "the profile was read after the request had left profile_enrich, so it is empty there: read it in a "
                "view, a template or a middleware that is inside"
            )

    # --- the response -----------------------------------------------------------------------------------------------

    def personal_headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]] | None:
        """Note that the response starts, and make its headers those of a personal one.

        Returns:
            All headers anew; `None` where they stay as they are.
        """
        self.headers_sent = True
        if not (self.read or self._plan.server_timing):
            return None
        raw: Headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        message: Message = self._start({"type": "http.response.start", "status": 200, "headers": raw})
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]


class _Question:
    """A user's function, called with the request that it takes."""

    __slots__ = ("function", "needs_session")

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.needs_session = bool(getattr(function, "needs_session", False))

    def __call__(self, connection: HTTPConnection) -> Any:
        return ask(self.function, connection)


async def _awaited(answer: Any) -> Any:
    return await answer


async def _send_nothing(message: Message) -> None:
    """No ASGI message is sent for this request."""
