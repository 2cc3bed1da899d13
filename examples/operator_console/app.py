"""The application of the console. `python -m examples.operator_console demo` starts it with sample data."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from profile_enrich import ProfileSource

from .auth import Auth
from .console import Console
from .pages import Pages
from .panel import Panel
from .rendering import Renderer
from .security import SecurityMiddleware
from .settings import HERE, Settings
from .tickets import Tickets


def create_app(settings: Settings | None = None, source: ProfileSource | None = None) -> Starlette:
    """Make the application. Run one process: it keeps the results of sessions and failed sign-ins in memory.

    Args:
        settings: the settings. Default: from the environment.
        source: the source of profiles. Default: the Profile API of the settings.

    Raises:
        ValueError: a setting or the file of roles makes no sense.
    """
    settings = settings or Settings.from_environment()
    console = Console(settings, source)
    templates = Jinja2Templates(HERE / "templates")
    renderer = Renderer(console, templates)
    pages = Pages(console, renderer)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        console.audit_log.prune(settings.keep_days)
        try:
            yield
        finally:
            await console.aclose()

    return Starlette(
        routes=[
            *pages.routes(),
            *Auth(console, renderer).routes(),
            *Panel(console).routes(),
            *(Tickets(templates).routes() if settings.tickets else []),
            Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
        ],
        lifespan=lifespan,
        exception_handlers={403: pages.http_error, 404: pages.http_error, 405: pages.http_error},
        middleware=[Middleware(SecurityMiddleware)],
    )
