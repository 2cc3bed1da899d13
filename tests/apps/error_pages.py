"""Pages for a handler that fails: `inside` has the middleware within the application, `outside` around it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, from_cookie, get_profile

client = ProfileClient(MemorySource({"u1": {"first_name": "Ann"}, "u2": {"first_name": "Bo"}}))


async def fails(request: Request) -> Response:
    profile = await get_profile(request)
    raise RuntimeError(f"{len(profile)} attributes")


async def sorry(request: Request, error: Exception) -> Response:
    name = (await get_profile(request)).get("first_name", "there")
    return PlainTextResponse(f"Sorry {name}", status_code=500, headers={"Cache-Control": "public, max-age=60"})


def shop() -> Starlette:
    return Starlette(routes=[Route("/", fails)], exception_handlers={Exception: sorry})


inside = shop()
inside.add_middleware(ProfileMiddleware, client=client, identify=from_cookie("user"))

outside = ProfileMiddleware(shop(), client=client, identify=from_cookie("user"))
