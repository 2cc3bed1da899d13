"""Lookup of a synchronous request: the calling thread waits for the client's event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from .._utils.deadline import Deadline
from .._utils.log_once import LogOnce
from ..client.client import ProfileClient
from ..errors import BudgetExceeded, ProfileEnrichError
from ..profile import Profile, Reason, Status
from ..profile.profile import pending
from .argument_checks import check_arguments, is_excluded
from .cache_headers import Headers, personalise
from .framework_caches import memoizer, warn_inner_cache
from .identity_and_consent import Key, key_of
from .native_request import ask, requirements_of
from .profile_dependencies import refusal
from .user_callbacks import HANG, call

__all__ = ["GRACE", "BlockingConfig", "BlockingLookup"]

logger = logging.getLogger("profile_enrich")

GRACE = 0.02
"""Seconds after the budget that a thread waits for the client's loop to report the end of the budget."""


class BlockingConfig:
    """Configuration of a synchronous integration, shared by all its requests.

    Args:
        client: the client, which all threads share; it runs on one event loop in a separate thread.
        identify: the identity function: a ready-made one such as `from_session()`, or one that takes the framework's
            request.
        budget: the longest that a page waits for a profile, in seconds; `None` waits for the client's `deadline`.
        consent: the consent function; `None` allows all lookups.
        exclude: path prefixes without lookups.
        vary_on: the request headers that determine the identity; `None` for those of `identify` and `consent`.
        server_timing: whether to add a `Server-Timing` header.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
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
        self.exclude, self.vary_on = check_arguments(
            client=client,
            identify=identify,
            budget=budget,
            consent=consent,
            exclude=exclude,
            vary_on=vary_on,
            server_timing=server_timing,
        )
        self.once = LogOnce()
        self.profiles = client
        self.client = client.blocking()
        self.identify = identify
        self.consent = consent
        self.budget = budget
        self.server_timing = bool(server_timing)

    def requires(self) -> tuple[str, ...]:
        """What the identity function requires: `"session"`, `"user"`, or neither."""
        return requirements_of(self.identify)

    def excludes(self, path: str) -> bool:
        """Return whether a path is excluded, compared by whole segments."""
        return is_excluded(path, self.exclude)


class BlockingLookup:
    """The lookup of one synchronous request, which runs when the profile is first read.

    `profile` is created immediately and stays the same object. It is empty until the lookup completes.

    Args:
        config: the configuration.
        load_scope: makes the ASGI scope for identity and consent functions when they are called.
    """

    read: bool = False
    """Whether the application read the profile, or declared so."""
    resolved: bool = False
    """Whether the lookup was made."""
    headers_sent: bool = False
    """Whether the response has started: too late for its headers."""
    sealed: bool = False
    """Whether the request has left the integration."""
    seconds: float = 0.0
    """How long the request waited for the lookup."""

    def __init__(self, config: BlockingConfig, load_scope: Callable[[], Scope]) -> None:
        self.config = config
        self.profile = pending(self._on_read)
        self._load_scope = load_scope
        self._connection: HTTPConnection | None = None
        self._end: Deadline | None = None

    # --- the lookup -------------------------------------------------------------------------------------------------

    def wait(self) -> Profile:
        """Make the lookup once, and wait for it within the budget. Never raises."""
        if not self.resolved:
            started = time.perf_counter()
            self._begin()
            self.settle(self._guarded(self._lookup))
            self.seconds += time.perf_counter() - started
        return self.profile

    def require(self) -> Profile:
        """Return the profile, which must be found.

        Raises:
            ProfileRequired: there is no profile; the status code depends on the reason.
        """
        self.mark_read()
        profile = self.wait()
        if not profile:
            raise refusal(profile)
        return profile

    def _begin(self) -> None:
        budget = self.config.budget
        self._end = None if budget is None else Deadline(budget)

    def _guarded(self, step: Callable[[], Profile]) -> Profile:
        try:
            return step()
        except Exception as error:  # noqa: BLE001  # whatever breaks, the page is served
            return self.failed("the lookup", self.config.profiles, error)

    def _lookup(self) -> Profile:
        config = self.config
        if config.consent is not None:
            denied = self.decide(lambda: self._awaited(self.ask(config.consent)))
            if denied is not None:
                return denied
        key = self.identify(lambda: self._awaited(self.ask(config.identify)))
        if isinstance(key, Profile):
            return key
        fresh = config.client.fresh(key)
        if fresh is not None:
            return fresh
        answer: Profile = self._run(config.profiles.lookup(key, budget=self.remaining()))
        return answer

    def decide(self, ask_consent: Callable[[], object]) -> Profile | None:
        """Return an empty profile without consent, otherwise `None`. Only `True` is consent."""
        try:
            if ask_consent() is True:
                return None
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a user's function must not break the page
            self.config.once.failed("the consent function", self.config.consent, error, instead=_ANONYMOUS)
        return self.config.profiles.skip(Reason.NO_CONSENT)

    def identify(self, ask_identity: Callable[[], object]) -> Key | Profile:
        """Return the signed-in person's key, or an empty profile with the reason why there is none."""
        try:
            identity = ask_identity()
            if identity is None or identity == "":
                return self.config.profiles.skip(Reason.ANONYMOUS)
            return key_of(identity)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as above
            return self.failed("the identity function", self.config.identify, error)

    def ask(self, function: Any) -> Any:
        """Call an identity or consent function, without marking the session as accessed."""
        if self._connection is None:
            self._connection = HTTPConnection(self._load_scope())
        session = self._connection.scope.get("session")
        role = "consent" if function is self.config.consent else "identity"
        watched = partial(call, role, partial(ask, function), self._connection, self.config.once)
        if session is None or getattr(session, "accessed", None) is not False:
            return watched()
        try:
            return watched()
        finally:
            if session.accessed and not getattr(session, "modified", False):
                session.accessed = False

    def remaining(self) -> float | None:
        """Seconds of the budget that are left; `None` without a budget."""
        return None if self._end is None else self._end.remaining()

    def _awaited(self, answer: Any) -> Any:
        """Wait for what an asynchronous function of the user's returned; without a budget, for `HANG` seconds."""
        return self._run(_awaiting(answer), HANG) if inspect.isawaitable(answer) else answer

    def _run(self, work: Coroutine[Any, Any, Any], otherwise: float | None = None) -> Any:
        """Wait for a coroutine on the client's loop, within the budget even if the loop is blocked."""
        future = self.config.client.submit(work)
        rest = otherwise if self._end is None else self.remaining()
        try:
            return future.result(None if rest is None else rest + GRACE)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            raise BudgetExceeded("the profile was not there within the budget") from None
        finally:
            future.cancel()

    def failed(self, role: str, function: object, error: BaseException) -> Profile:
        """Return an empty profile after a failure outside of the source, and log it once."""
        self.config.once.failed(role, function, error, instead=_ANONYMOUS)
        status = Status.TIMEOUT if isinstance(error, TimeoutError) else Status.ERROR
        known = error if isinstance(error, ProfileEnrichError) else None
        return Profile(status=status, reason=Reason.UNAVAILABLE, error=known)

    def skip(self, reason: Reason) -> None:
        """Settle the profile without a lookup."""
        self.settle(self.config.profiles.skip(reason))

    def settle(self, answer: Profile) -> None:
        """Set the result of the lookup on this request's profile object."""
        if not self.sealed:
            self.profile._facts = answer._facts
        self.resolved = True

    def renew(self) -> None:
        """Reset the lookup after a change of identity within the request; the next read repeats it."""
        if not self.sealed:
            self.resolved, self._connection = False, None
            self.profile._facts = Profile(reason=Reason.NOT_LOOKED_UP)._facts

    def refresh(self) -> Profile:
        """Look up anew who is in session now, under their consent, and wait for it within the budget. Never raises."""
        self.renew()
        self.mark_read()
        return self.wait()

    def end(self) -> None:
        """Seal the profile at the end of the request: from now on it is empty."""
        self.sealed = self.resolved = True
        self.profile._facts = _SEALED._facts
        self.profile._on_read = self._on_sealed_read
        self._connection = None

    # --- reading ----------------------------------------------------------------------------------------------------

    def mark_read(self) -> None:
        """Mark the response as personal."""
        if self.read or self.sealed:
            return
        self.read = True
        memo = memoizer()
        if memo is not None:
            warn_inner_cache(memo, once=self.config.once, endpoint=self.endpoint())
        if self.headers_sent and self.config.once.first("late", self.endpoint()):
            logger.warning(
                "the profile was first read after the response had started, in %s: Vary and Cache-Control could not "
                "be set, so a shared cache may keep this page; read the profile before the first byte is sent",
                self.endpoint(),
            )

    def _on_read(self) -> None:
        self.mark_read()
        if not self.resolved:
            self.read_early()

    def read_early(self) -> None:
        """Make the lookup at the first read of the profile."""
        self.wait()

    def _on_sealed_read(self) -> None:
        self.profile._on_read = None
        if self.config.once.first("sealed"):
            logger.warning(
                "a profile was read after its request had ended, by code outside of the integration or in the "
                "background: it is empty there; read it in a view, a template or a middleware that is inside"
            )

    def endpoint(self) -> str:
        """Return the name of the view, for the log."""
        return "the application"

    # --- the response -----------------------------------------------------------------------------------------------

    def personal_headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]] | None:
        """Mark the response as started, and return its headers, made personal if the profile was read.

        Returns:
            The new headers; `None` if they do not change.
        """
        self.headers_sent = True
        config = self.config
        if not (self.read or config.server_timing):
            return None
        raw: Headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if self.read:
            raw, invited = personalise(raw, config.vary_on)
            if invited and config.once.first("shared", self.endpoint()):
                logger.warning(
                    "%s read the profile and allowed shared caches to keep the page; it was made private. Do not set "
                    "public, s-maxage or a CDN's own cache header on a page that reads the profile",
                    self.endpoint(),
                )
        if config.server_timing:
            status = self.profile._facts.status.value
            raw.append((b"Server-Timing", f'profile;desc="{status}";dur={1000 * self.seconds:.2f}'.encode()))
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]


_SEALED = Profile(reason=Reason.SEALED)

_ANONYMOUS = "the page is served anonymous"


async def _awaiting(answer: Any) -> Any:
    return await answer
