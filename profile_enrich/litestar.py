"""Litestar plugin that provides the dependency `profile`.

```python
@get("/")
async def home(profile: CurrentProfile) -> str:
    return f"Hello {profile.get('first_name', 'there')}"

app = Litestar([home], plugins=[ProfilePlugin(client=profiles, identify=from_cookie("visitor"))])
```
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from starlette.requests import HTTPConnection

from ._utils.optional_import import needs_extra
from .client.client import ProfileClient
from .errors import ConfigurationError, ProfileRequired
from .profile import Profile
from .web.config import Attach
from .web.consent_functions import Consent
from .web.identity_functions import Identify
from .web.middleware import ProfileMiddleware
from .web.profile_dependencies import ProfileDependency, get_profile, refusal
from .web.request_lookup import lookups_of

with needs_extra("litestar", "profile_enrich.litestar", "litestar"):
    from litestar.config.app import AppConfig
    from litestar.config.response_cache import ResponseCacheConfig
    from litestar.connection import ASGIConnection
    from litestar.di import NamedDependency, Provide
    from litestar.enums import ScopeType
    from litestar.exceptions import HTTPException, WebSocketException
    from litestar.handlers import BaseRouteHandler
    from litestar.params import SkipValidation
    from litestar.plugins import InitPlugin
    from litestar.types import Scope

__all__ = ["CurrentProfile", "ProfilePlugin", "profile_required"]

CurrentProfile = NamedDependency[SkipValidation[Profile]]
"""The type of a handler's `profile` parameter: the signed-in person's profile, empty if there is none."""


class ProfilePlugin(InitPlugin):
    """Attach the signed-in person's profile to each request, as the dependency `profile`.

    The plugin installs `ProfileMiddleware` inside of the application's own middleware, where sessions and users are
    available. It closes the client at shutdown and keeps personal responses out of Litestar's response cache. A profile
    that a handler returns is encoded as its attributes.

    Args:
        client, identify, budget, attach, consent, exclude, server_timing, vary_on: as for `ProfileMiddleware`.
        attribute: the name of the dependency, and on `request.state`. Default `"profile"`.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """

    def __init__(
        self,
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
        self._client = client
        self._attribute = attribute
        self._middleware = ProfileMiddleware(
            _nowhere,
            client=client,
            identify=identify,
            budget=budget,
            attach=attach,
            consent=consent,
            exclude=exclude,
            attribute=attribute,
            server_timing=server_timing,
            vary_on=vary_on,
        )

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Install the plugin; called by Litestar."""
        if self._attribute in app_config.dependencies:
            raise ConfigurationError(f"attribute {self._attribute!r} is taken: the application has such a dependency")
        app_config.middleware.append(cast("Any", self._around))
        app_config.dependencies[self._attribute] = Provide(_Provider(self._attribute))
        app_config.type_encoders = {**(app_config.type_encoders or {}), Profile: Profile.as_dict}
        app_config.lifespan.append(cast("Any", self._client.lifespan))
        cache = app_config.response_cache_config or ResponseCacheConfig()
        app_config.response_cache_config = dataclasses.replace(
            cache, cache_response_filter=_impersonal(cache.cache_response_filter)
        )
        return app_config

    def _around(self, app: Any) -> ProfileMiddleware:
        """Make the middleware of one route. All of them share one configuration."""
        middleware = copy.copy(self._middleware)
        middleware.app = app
        return middleware


async def profile_required(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Guard that rejects requests without a profile: `guards=[profile_required]`.

    Args:
        connection: the request or the WebSocket.
        handler: the route handler.

    Raises:
        HTTPException: 401 if nobody is signed in, 403 without consent or for an excluded profile, 404 without a
            profile, 503 if the source is unavailable.
        WebSocketException: the same for a WebSocket, with close code 4401, 4403, 4404 or 4503.
    """
    profile = await get_profile(HTTPConnection(cast("dict[str, Any]", connection.scope)))
    if not profile:
        error: ProfileRequired = refusal(profile)
        if connection.scope["type"] == ScopeType.WEBSOCKET:
            raise WebSocketException(detail=error.detail, code=4000 + error.status_code)
        raise HTTPException(detail=error.detail, status_code=error.status_code)


class _Provider:
    """Provider of the profile. Its use makes a response personal."""

    def __init__(self, attribute: str) -> None:
        self._get = ProfileDependency(attribute)

    async def __call__(self, scope: Scope) -> Profile:
        return await self._get(HTTPConnection(cast("dict[str, Any]", scope)))


def _impersonal(keep: Callable[[Any, int], bool]) -> Callable[[Any, int], bool]:
    """Apply the application's cache filter to responses that did not read a profile."""

    def filter_(scope: Mapping[str, Any], status_code: int) -> bool:
        lookups = lookups_of(HTTPConnection(cast("dict[str, Any]", scope)))
        if any(lookup.read for lookup in lookups) or not keep(scope, status_code):
            return False
        for lookup in lookups:
            lookup.seal()  # the stored response is not complete yet, and must not become personal
        return True

    return filter_


async def _nowhere(scope: Any, receive: Any, send: Any) -> None:
    """Placeholder for the application until the route's application is known."""
