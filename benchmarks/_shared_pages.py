"""A shop under uvicorn with four workers, without and with the second cache level: says its port, and ends when its
input does. `GET /?user=u7` is the page of that customer."""

from __future__ import annotations

import os
import sys

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from profile_enrich import CensusSource, ProfileClient, ProfileMiddleware, SharedCache

from ._vendor import KEY
from ._workers import serve_workers

__all__ = ["WORKERS"]

WORKERS = 4
ARGUMENTS = "BENCHMARK_SHARED_PAGES"


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.state.profile.get('first_name', 'there')}")


def user_of(connection: HTTPConnection) -> str | None:
    return connection.query_params.get("user")


def app() -> Starlette:
    """The application of one worker."""
    base_url, entity, cache = os.environ[ARGUMENTS].split()
    secrets = ["a secret of more than thirty-two characters"]
    client = ProfileClient(
        CensusSource(KEY, entity=int(entity), base_url=base_url),
        ttl=600,
        shared=None if cache == "none" else SharedCache(cache, secrets=secrets),
    )
    enrich = Middleware(ProfileMiddleware, client=client, identify=user_of, budget=1.0)
    return Starlette(routes=[Route("/", page)], middleware=[enrich], lifespan=client.lifespan)


if __name__ == "__main__":
    os.environ[ARGUMENTS] = " ".join(sys.argv[1:])  # its worker processes make the application themselves
    serve_workers("benchmarks._shared_pages:app", WORKERS, settle=3.0)
