"""One worker of the chaos test: a page with the profile, and a route that invalidates."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from profile_enrich import (
    CensusSource,
    ProfileClient,
    ProfileMiddleware,
    SharedCache,
    SharedCacheUnavailable,
    from_header,
    get_profile,
)
from profile_enrich.cache.shared import event_delivery

LEASE = 0.5

# No fault lasts longer, so that a run also has times in which the server knows all processes.
event_delivery.FORGET_MS = 5_000

shared = SharedCache(
    os.environ["CACHE_URL"],
    secrets=["a secret of more than thirty-two characters"],
    lease=LEASE,
    timeout=float(os.environ.get("CACHE_TIMEOUT", "0.02")),
)
profiles = ProfileClient(
    CensusSource(api_key="secret", entity="Users", base_url=os.environ["VENDOR_URL"]),
    ttl=float(os.environ.get("PROFILE_TTL", "60")),
    shared=shared,
)


async def page(request: Request) -> Response:
    profile = await get_profile(request)
    return JSONResponse({"id": profile.get("user"), "version": profile.get("version"), "status": profile.status.value})


async def invalidate(request: Request) -> Response:
    profiles.invalidate(request.path_params["user"])
    try:
        await profiles.acknowledged(timeout=4 * LEASE)
    except SharedCacheUnavailable:
        return Response(status_code=503)
    return Response(status_code=204)


async def stats(request: Request) -> Response:
    counted = profiles.stats()
    assert counted.shared is not None
    return JSONResponse({"calls": counted.source_calls, "available": counted.shared.available})


app = Starlette(
    routes=[
        Route("/", page),
        Route("/invalidate/{user}", invalidate, methods=["POST"]),
        Route("/stats", stats),
    ],
    middleware=[
        Middleware(
            ProfileMiddleware,
            client=profiles,
            identify=from_header("x-user", trusted=True),
            budget=0.3,
            exclude=["/invalidate", "/stats"],
        )
    ],
    lifespan=profiles.lifespan,
)
