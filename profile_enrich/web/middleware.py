"""ASGI middleware: attach the signed-in person's profile to every request."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._utils.log_once import LogOnce
from ..client.client import ProfileClient
from ..errors import ConfigurationError
from ..profile import Reason
from .argument_checks import check_arguments, check_attribute, is_excluded
from .config import Attach, MiddlewareConfig
from .consent_functions import Consent
from .encoding_hint import explain_encoding
from .identity_functions import Identify
from .request_lookup import INSIDE, SCOPE_KEY, RequestLookup
from .response import marking

__all__ = ["Attach", "ProfileMiddleware"]


class ProfileMiddleware:
    """Look up the signed-in person's profile and attach it to the request, as `request.state.profile`.

    If the lookup fails, the page is served with a stale profile or an empty one. A page that reads the profile gets
    `Vary` and `Cache-Control: private`; other pages are not changed.

    Args:
        app: the ASGI application.
        client: the client.
        identify: the identity function, such as `from_session(...)`, or any callable, async or not, that takes the
            connection and returns a key or `None`.
        budget: the longest that a page waits for a profile, in seconds; `None` waits for the client's `deadline`.
            Default 0.05.
        attach: `"eager"` (default) waits before the application is called. `"prefetch"` starts the lookup then, and
            `await get_profile(request)` waits for it. `"lazy"` starts it at that call.
        consent: the consent function: `honour_gpc()`, or any callable, async or not, that takes the connection and
            returns a bool. Without consent there is no lookup, not even in the cache, and the profile is empty with
            `Reason.NO_CONSENT`.
        exclude: path prefixes without lookups, e.g. `["/static", "/healthz"]`, compared by whole segments. They are
            relative to the wrapped application: without `root_path` and the prefix of a `Mount`.
        attribute: the name on `request.state`. Default `"profile"`.
        server_timing: whether to add a `Server-Timing` header with the lookup's status and duration, which visitors can
            read. Default false.
        vary_on: the request headers that determine the identity; by default those of `identify`, or `Cookie` for
            your own function.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        client: ProfileClient,
        identify: Identify,
        budget: float | None = 0.05,
        attach: Attach = "eager",
        consent: Consent | None = None,
        exclude: Iterable[str] = (),
        attribute: str = "profile",
        server_timing: bool = False,
        vary_on: Iterable[str] | None = None,
    ) -> None:
        if _is_wsgi(app):
            raise ConfigurationError(
                f"the application ({type(app).__name__}) is a WSGI one, which takes environ and start_response: use "
                "profile_enrich.flask, profile_enrich.django or profile_enrich.wsgi.WSGIProfileMiddleware"
            )
        prefixes, headers = check_arguments(
            client=client,
            identify=identify,
            budget=budget,
            consent=consent,
            exclude=exclude,
            vary_on=vary_on,
            server_timing=server_timing,
        )
        if attach not in ("eager", "prefetch", "lazy"):
            raise ConfigurationError(f"attach must be 'eager', 'prefetch' or 'lazy', not {attach!r}")
        self.app = app
        self._shared_state: object = None
        self._attribute = check_attribute(attribute)
        self._scope_key = SCOPE_KEY + attribute
        self._config = MiddlewareConfig(
            client=client,
            identify=identify,
            budget=budget,
            vary_on=headers,
            once=LogOnce(),
            consent=consent,
            server_timing=server_timing,
            attach=attach,
            exclude=prefixes,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            if kind == "lifespan":
                self._shared_state = scope.get("state")
                send = _Lifespan(self._config.client, send)
            await self.app(scope, receive, send)
            return
        outer: RequestLookup | None = scope.get(self._scope_key)
        if outer is not None and not outer.sealed and outer.config == self._config:
            await self.app(scope, receive, send)  # if installed twice, the outer one makes the lookup
            return
        lookup = scope[self._scope_key] = RequestLookup(self._config, scope)
        enclosing = INSIDE.get()
        self._attach(scope, lookup, enclosing)
        token = INSIDE.set((*enclosing, lookup))
        try:
            if self._config.exclude and self._is_excluded(scope):
                lookup.skip(Reason.NOT_LOOKED_UP)
                await self.app(scope, receive, send)
                return
            if self._config.attach != "lazy" and not lookup.resolve_now():  # most requests need not wait
                await (lookup.resolve() if self._config.attach == "eager" else lookup.prefetch())
            if kind == "http":
                await self.app(scope, receive, marking(lookup, send, enclosing))
            else:
                lookup.looked_up_at = time.monotonic()
                await self.app(scope, receive, send)
        except Exception as error:
            explain_encoding(error)
            raise
        finally:
            INSIDE.reset(token)
            lookup.seal()
            if outer is not None:
                scope[self._scope_key] = outer
                scope["state"][self._attribute] = outer.profile

    def _attach(self, scope: Scope, lookup: RequestLookup, enclosing: tuple[RequestLookup, ...]) -> None:
        """Attach the profile to the request's state in place, so that outer middleware sees what handlers set there.

        Some servers share one dictionary between requests (hypercorn#274): it is the lifespan's, or has another
        request's values. Such a dictionary is copied.
        """
        state: object = scope.get("state")
        if not isinstance(state, dict):
            state = scope["state"] = dict(cast("Mapping[str, object]", state)) if isinstance(state, Mapping) else {}
        else:
            before = cast("dict[str, object]", state).get(self._attribute)
            others = before is not None and all(before is not outer.profile for outer in enclosing)
            if others or state is self._shared_state:
                state = scope["state"] = cast("dict[str, object]", state).copy()
        cast("dict[str, object]", state)[self._attribute] = lookup.profile

    def _is_excluded(self, scope: Scope) -> bool:
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
            path = path[len(root) :]
        return is_excluded(path, self._config.exclude)


class _Lifespan:
    """Tracks the lifespan: a running application is one of the client's owners."""

    __slots__ = ("_client", "_entered", "_send")

    def __init__(self, client: ProfileClient, send: Send) -> None:
        self._client = client
        self._entered = False
        self._send = send

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            await self._client.__aenter__()
            self._entered = True
            await self._client.warm_up()
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed") and self._entered:
            self._entered = False
            await self._client.__aexit__()
        elif kind == "lifespan.startup.failed":  # release after a failed startup, too
            async with self._client:
                pass
        await self._send(message)


def _is_wsgi(app: object) -> bool:
    """Return whether an application is WSGI: it takes two arguments, while ASGI takes three."""
    try:
        parameters = inspect.signature(cast(Any, app)).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = [parameter.kind for parameter in parameters if parameter.default is parameter.empty]
    return len(kinds) == 2 and all(
        kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
    )
