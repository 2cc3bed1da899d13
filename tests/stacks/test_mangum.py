"""AWS Lambda through Mangum: the ASGI middleware, and the integrations inside an application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stacks import needs

needs("mangum", "litestar")

from litestar import Litestar, get  # noqa: E402  # after the skip
from mangum import Mangum  # noqa: E402  # after the skip
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, from_cookie  # noqa: E402
from profile_enrich.litestar import CurrentProfile, ProfilePlugin  # noqa: E402

VISITORS = ["u1", "u2", None, "u2", "u1"]


def event(path: str, user: str | None) -> dict[str, Any]:
    """A request of API Gateway, payload format 2.0 (AWS: Working with AWS Lambda proxy integrations)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "cookies": [] if user is None else [f"who={user}"],
        "headers": {"host": "shop.test"},
        "requestContext": {
            "http": {
                "method": "GET",
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "test",
            },
            "stage": "$default",
        },
        "isBase64Encoded": False,
    }


@pytest.fixture(autouse=True)
def loop_of_the_function() -> Iterator[None]:
    """Mangum runs each invocation on the thread's event loop, which Lambda keeps between invocations."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"Hello {request.state.profile.get('id', 'nobody')}")


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the same for all")


def starlette(client: ProfileClient) -> Any:
    app = Starlette(routes=[Route("/", home), Route("/plain", plain)])
    return ProfileMiddleware(app, client=client, identify=from_cookie("who"), budget=5.0)


def litestar(client: ProfileClient) -> Any:
    @get("/")
    async def home(profile: CurrentProfile) -> str:
        return f"Hello {profile.get('id', 'nobody')}"

    @get("/plain")
    async def plain() -> str:
        return "the same for all"

    plugin = ProfilePlugin(client=client, identify=from_cookie("who"), budget=5.0)
    return Litestar([home, plain], plugins=[plugin], openapi_config=None)


@pytest.mark.parametrize("lifespan", ["auto", "off"])
@pytest.mark.parametrize("create", [starlette, litestar])
def test_A20_each_invocation_sees_its_own_person(create: Any, lifespan: Any) -> None:
    """A20, A8: with Mangum's lifespan, which starts and ends the application in each invocation, and without."""

    async def answer(key: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"id": key.value}

    source = MemorySource(answer)
    handler: Any = Mangum(create(ProfileClient(source)), lifespan=lifespan)
    for user in VISITORS:
        response = handler(event("/", user), {})
        assert response["body"] == f"Hello {user or 'nobody'}"
        assert response["headers"]["cache-control"] == "private"
        assert "cookie" in response["headers"]["vary"].lower()
    assert source.calls == 2, "the cache outlives an invocation"
    assert "cache-control" not in handler(event("/plain", "u1"), {})["headers"]
