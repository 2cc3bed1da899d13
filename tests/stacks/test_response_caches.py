"""Caches inside an application: no response made for one person is sent to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.stacks import needs

needs("fastapi_cache", "aiocache", "litestar", "django")

from aiocache import SimpleMemoryCache, cached  # noqa: E402
from cachetools import TTLCache  # noqa: E402
from cachetools import cached as memoized  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from fastapi_cache import FastAPICache  # noqa: E402
from fastapi_cache.backends.inmemory import InMemoryBackend  # noqa: E402
from fastapi_cache.decorator import cache  # noqa: E402
from litestar import Litestar, get  # noqa: E402
from litestar import Request as LitestarRequest  # noqa: E402

from profile_enrich import Profile, ProfileClient, ProfileMiddleware, Record, from_header, get_profile  # noqa: E402
from profile_enrich.fastapi import CurrentProfile, RequiredProfile  # noqa: E402
from profile_enrich.web.config import Attach  # noqa: E402
from tests.helpers import own_records  # noqa: E402

WHO = from_header("x-user", trusted=True)
ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    FastAPICache.init(InMemoryBackend(), prefix="test")
    yield
    await FastAPICache.clear()
    FastAPICache.reset()


def answers(client: TestClient, path: str, times: int = 2) -> list[tuple[str, str, str, str]]:
    """Return the responses to two customers and a visitor, repeatedly."""
    found: list[tuple[str, str, str, str]] = []
    for _ in range(times):
        for user in ("u1", "u2", ""):
            answer = client.get(path, headers={"x-user": user} if user else {})
            control = answer.headers.get("cache-control", "")
            found.append((user, answer.json()["hello"], control, answer.headers.get("vary", "")))
    return found


NAMES = {"u1": "Ann-Planted", "u2": "Bo-Planted", "": "there"}


@pytest.mark.parametrize("attach", ATTACH)
@pytest.mark.parametrize("path", ["/parameter", "/parameter-sync", "/helper", "/helper-state"])
def test_A22_A24_fastapi_cache_and_aiocache_key_on_the_person(
    attach: Attach, path: str, client: ProfileClient, caplog: pytest.LogCaptureFixture
) -> None:
    if path == "/helper-state" and attach != "eager":
        pytest.skip("only attach='eager' has the profile on the state without get_profile")
    app = FastAPI(lifespan=lifespan)

    @app.get("/parameter")
    @cache(expire=60)
    async def parameter(profile: CurrentProfile) -> dict[str, str]:
        return {"hello": profile.get("first_name", "there")}

    @app.get("/parameter-sync")
    @cache(expire=60)
    def parameter_sync(profile: CurrentProfile) -> dict[str, str]:
        return {"hello": profile.get("first_name", "there")}

    @cached(cache=SimpleMemoryCache, ttl=60, namespace=f"{path}{attach}")
    async def greeting(profile: Any) -> str:
        return str(profile.get("first_name", "there"))

    @app.get("/helper")
    async def helper(profile: CurrentProfile) -> dict[str, str]:
        return {"hello": await greeting(profile)}

    @app.get("/helper-state")
    async def helper_state(request: Request) -> dict[str, str]:
        return {"hello": await greeting(request.state.profile)}

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO, budget=5.0, attach=attach)
    with TestClient(app) as client_:
        for user, hello, control, vary in answers(client_, path):
            assert hello == NAMES[user]
            assert "private" in control
            assert "x-user" in vary
    assert own_records(caplog) == []


def test_A24_a_value_of_the_profile_is_part_of_the_key_too() -> None:
    """A24: aiocache and fastapi-cache make their keys from `repr`."""

    @cached(cache=SimpleMemoryCache, ttl=60, namespace="values")
    async def delivery(address: Any) -> str:
        return str(address["city"])

    async def ask() -> list[str]:
        people = [Profile(Record({"address": {"city": city}, "tags": [city]})) for city in ("Lyon", "Oslo")]
        return [await delivery(profile["address"]) for profile in people]

    assert asyncio.run(ask()) == ["Lyon", "Oslo"]


@pytest.mark.parametrize("path", ["/parameter", "/awaited"])
def test_A22_cachetools_keys_on_the_key_that_its_function_makes(
    path: str, client: ProfileClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is that of docs/web-developers.md: a profile is not hashable."""
    calls: list[str] = []

    @memoized(TTLCache(maxsize=100, ttl=60), key=lambda profile: (profile.key, profile.id))
    def greeting(profile: Profile) -> str:
        calls.append(profile.get("first_name", "there"))
        return calls[-1]

    app = FastAPI()

    @app.get("/parameter")
    async def parameter(profile: CurrentProfile) -> dict[str, str]:
        return {"hello": greeting(profile)}

    @app.get("/awaited")
    async def awaited(request: Request) -> dict[str, str]:
        return {"hello": greeting(await get_profile(request))}

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO, budget=5.0)
    with TestClient(app) as client_:
        for user, hello, control, _ in answers(client_, path):
            assert hello == NAMES[user]
            assert "private" in control
    assert calls == list(NAMES.values())
    assert own_records(caplog) == []


def test_A22_A24_a_required_profile_is_part_of_the_key_too(client: ProfileClient) -> None:
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    @cache(expire=60)
    async def page(profile: RequiredProfile) -> dict[str, str]:
        return {"hello": profile["first_name"]}

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO, budget=5.0)
    with TestClient(app) as client_:
        for _ in range(2):
            assert client_.get("/", headers={"x-user": "u1"}).json()["hello"] == "Ann-Planted"
            assert client_.get("/", headers={"x-user": "u2"}).json()["hello"] == "Bo-Planted"
            assert client_.get("/").status_code == 401


@pytest.mark.parametrize("path", ["/awaited", "/state", "/state-sync", "/aiocache"])
def test_A22_a_profile_that_a_cached_function_gets_for_itself_is_logged_once(
    path: str, client: ProfileClient, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI(lifespan=lifespan)

    @app.get("/awaited")
    @cache(expire=60)
    async def awaited(request: Request) -> dict[str, str]:
        return {"hello": (await get_profile(request)).get("first_name", "there")}

    @app.get("/state")
    @cache(expire=60)
    async def state(request: Request) -> dict[str, str]:
        return {"hello": request.state.profile.get("first_name", "there")}

    @app.get("/state-sync")
    @cache(expire=60)
    def state_sync(request: Request) -> dict[str, str]:
        return {"hello": request.state.profile.get("first_name", "there")}

    @app.get("/aiocache")
    async def outer(request: Request) -> dict[str, str]:
        @cached(cache=SimpleMemoryCache, ttl=60, key="everybody", namespace="logged")
        async def greeting() -> str:
            return str(request.state.profile.get("first_name", "there"))

        return {"hello": await greeting()}

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO, budget=5.0)
    with TestClient(app) as client_:
        answers(client_, path)
    logged = [record.getMessage() for record in own_records(caplog)]
    assert len(logged) == 1
    assert "inside a cache" in logged[0]
    assert ("aiocache" if path == "/aiocache" else "fastapi-cache") in logged[0]


def test_A22_litestars_response_cache_is_logged_once(client: ProfileClient, caplog: pytest.LogCaptureFixture) -> None:
    @get("/", cache=60)
    async def page(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
        return {"hello": request.scope["state"]["profile"].get("first_name", "there")}

    @get("/plain")
    async def plain(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
        return {"hello": request.scope["state"]["profile"].get("first_name", "there")}

    app = ProfileMiddleware(Litestar([page, plain], logging_config=None), client=client, identify=WHO)  # type: ignore[arg-type]
    with TestClient(app) as client_:
        client_.get("/plain", headers={"x-user": "u1"})
        assert own_records(caplog) == []
        answers(client_, "/")
    logged = [record.getMessage() for record in own_records(caplog)]
    assert len(logged) == 1
    assert "Litestar's response cache" in logged[0]


@pytest.mark.parametrize("how", ["cache_page", "per-site"])
def test_A22_djangos_page_cache_is_logged_once(
    how: str, client: ProfileClient, caplog: pytest.LogCaptureFixture
) -> None:
    import subprocess
    import sys

    # In a process of its own: Django is configured once in a process, and its middleware with it.
    code = f"""
import asyncio, logging
from django.conf import settings
per_site = {how == "per-site"}
edges = ["django.middleware.cache.UpdateCacheMiddleware", "django.middleware.cache.FetchFromCacheMiddleware"]
settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], MIDDLEWARE=edges if per_site else [], SECRET_KEY="x")
import django
django.setup()
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.cache import cache_page
from django.core.asgi import get_asgi_application
from starlette.testclient import TestClient
from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, from_header

def page(request):
    return HttpResponse(request.scope["state"]["profile"].get("first_name", "there"))

urlpatterns = [path("", page if per_site else cache_page(60)(page)), path("plain", page)]
logging.basicConfig(format="LOG %(message)s")
client = ProfileClient(MemorySource({{"u1": {{"first_name": "Ann"}}}}))
app = ProfileMiddleware(get_asgi_application(), client=client, identify=from_header("x-user", trusted=True))
browser = TestClient(app)
if not per_site:
    browser.get("/plain", headers={{"x-user": "u1"}})
    print("after the plain page", flush=True)
for _ in range(3):
    print(browser.get("/", headers={{"x-user": "u1"}}).text, flush=True)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    logged = [line for line in ran.stderr.splitlines() if line.startswith("LOG ") and "profile" in line]
    assert len(logged) == 1, ran.stderr
    assert "Django's response cache" in logged[0]
