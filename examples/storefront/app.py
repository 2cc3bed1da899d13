"""The application of the shop. Serve it with `uvicorn --factory examples.storefront.app:create_app`."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from profile_enrich import (
    Breaker,
    CachePolicy,
    CensusSource,
    ProfileClient,
    ProfileMiddleware,
    ProfileSource,
    SourcePolicy,
    from_session,
)

from .catalogue import Catalogue
from .pages import Pages
from .security import SecurityMiddleware
from .sessions import HOUSEHOLD, consent_in_session
from .settings import Settings

HERE = Path(__file__).resolve().parent


def create_app(settings: Settings | None = None, source: ProfileSource | None = None) -> Starlette:
    """Make the application.

    Args:
        settings: the settings. Default: from the environment.
        source: the source of profiles. Default: the Profile API of the settings.
    """
    settings = settings or Settings.from_environment()
    profiles = ProfileClient(
        source
        or CensusSource(
            api_key=settings.api_key, entity="Households", id_column="household_id", base_url=settings.api_url
        ),
        ttl=settings.ttl,
        stale_ttl=settings.stale_ttl,
        negative_ttl=settings.negative_ttl,
        cache_policy=CachePolicy(throttle=min(5.0, max(settings.ttl, 0.1))),
        source_policy=SourcePolicy(breaker=Breaker(open_for=1.0, max_open=1.0)),  # the demo's visitors restart the API
        follow_changes=settings.follow_changes,
    )
    pages = Pages(profiles, Catalogue.load(), Jinja2Templates(HERE / "templates"), settings.control)
    return Starlette(
        routes=[*pages.routes(), Mount("/static", StaticFiles(directory=HERE / "static"), name="static")],
        lifespan=profiles.lifespan,
        exception_handlers={404: pages.not_found},
        middleware=[
            Middleware(SecurityMiddleware),
            Middleware(SessionMiddleware, secret_key=settings.secret, same_site="lax"),
            Middleware(
                ProfileMiddleware,
                client=profiles,
                identify=from_session(HOUSEHOLD),
                consent=consent_in_session,
                budget=settings.budget,
                exclude=["/static", "/ready"],
            ),
        ],
    )
