"""Memoizing libraries: no two people share a result."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from tests.stacks import needs

needs("aiocache", "async_lru", "beaker", "cachetools_async", "cashews", "diskcache", "dogpile.cache", "joblib")

import aiocache  # noqa: E402
import async_lru  # noqa: E402
import cachetools  # noqa: E402
import cachetools_async  # noqa: E402
import cashews  # noqa: E402
import diskcache  # noqa: E402
import dogpile.cache  # noqa: E402
import joblib  # noqa: E402
from beaker.cache import CacheManager  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from flask import Flask  # noqa: E402

from profile_enrich import Profile, ProfileClient, ProfileMiddleware, Record, from_header  # noqa: E402
from profile_enrich.fastapi import CurrentProfile  # noqa: E402
from profile_enrich.flask import ProfileEnrich, current_profile  # noqa: E402
from profile_enrich.web.config import Attach  # noqa: E402
from tests.helpers import own_records  # noqa: E402

WHO = from_header("x-user", trusted=True)
NAMES = {"u1": "Ann-Planted", "u2": "Bo-Planted", "": "there"}
ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]

Decorator = Callable[[Any], Any]


def key_of(function: Any, *args: Any) -> str:
    """A key function for the libraries that give it the function, too."""
    return repr(args[-1].key)


def cashews_memory() -> cashews.Cache:
    cache = cashews.Cache()
    cache.setup("mem://")
    return cache


def beaker_memory() -> Decorator:
    cache = CacheManager(type="memory")
    return lambda function: cache.cache("greeting", expire=60)(function)


def dogpile_memory(**options: Any) -> Decorator:
    decorator: Decorator = dogpile.cache.make_region().configure("dogpile.cache.memory").cache_on_arguments(**options)
    return decorator


SYNC: dict[str, Callable[[Path], Decorator]] = {
    "cachetools": lambda _: cachetools.cached(cachetools.LRUCache(100), key=lambda profile: profile.key),
    "joblib": lambda folder: joblib.Memory(folder, verbose=0).cache,
    "diskcache": lambda folder: diskcache.Cache(str(folder)).memoize(),
    "beaker": lambda _: beaker_memory(),
    "dogpile": lambda _: dogpile_memory(),
    "dogpile-key": lambda _: dogpile_memory(
        function_key_generator=lambda namespace, function, **_: lambda profile: repr(profile.key)
    ),
}
ASYNC: dict[str, Callable[[], Decorator]] = {
    "aiocache": lambda: aiocache.cached(cache=aiocache.SimpleMemoryCache, ttl=60),
    "aiocache-key": lambda: aiocache.cached(cache=aiocache.SimpleMemoryCache, ttl=60, key_builder=key_of),
    "cashews": lambda: cashews_memory()(ttl="1m"),
    "cashews-template": lambda: cashews_memory()(ttl="1m", key="greeting:{profile}"),
    "cashews-field": lambda: cashews_memory()(ttl="1m", key="greeting:{profile.key.value}"),
    "cachetools-async": lambda: cachetools_async.cached(cachetools.LRUCache(100), key=lambda profile: profile.key),
}
REFUSED: dict[str, Callable[[], Decorator]] = {
    "lru_cache": lambda: functools.lru_cache,
    "cachetools": lambda: cachetools.cached(cachetools.LRUCache(100)),
    "cachetools-async": lambda: cachetools_async.cached(cachetools.LRUCache(100)),
    "async-lru": lambda: async_lru.alru_cache,
}


def asked(app: FastAPI, path: str, made: list[str]) -> None:
    """Ask as each of two customers and a visitor: everybody gets their own, which is kept.

    It is made twice at most: the status of the first lookup is another one than that of the next.
    """
    kept = 0
    with TestClient(app) as browser:
        for turn in range(4):
            kept = len(made) if turn == 2 else kept
            for user, name in NAMES.items():
                answer = browser.get(path, headers={"x-user": user} if user else {})
                assert answer.json() == {"hello": name}
                assert "private" in answer.headers["cache-control"]
    assert len(made) == kept


@pytest.mark.parametrize("attach", ATTACH)
@pytest.mark.parametrize("library", SYNC)
def test_A22_A24_a_profile_is_a_key_of_its_own(
    library: str, attach: Attach, client: ProfileClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []

    @SYNC[library](tmp_path)
    def greeting(profile: Profile) -> str:
        made.append(profile.get("first_name", "there"))
        return made[-1]

    app = FastAPI()

    @app.get("/parameter")
    def parameter(profile: CurrentProfile) -> dict[str, str]:
        return {"hello": greeting(profile)}

    @app.get("/state")
    def state(request: Request) -> dict[str, str]:
        return {"hello": greeting(request.state.profile)}

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO, budget=5.0, attach=attach)
    asked(app, "/state" if attach == "eager" else "/parameter", made)
    assert own_records(caplog) == []


@pytest.mark.parametrize("attach", ATTACH)
@pytest.mark.parametrize("library", ASYNC)
def test_A22_A24_an_asynchronous_function_too(
    library: str, attach: Attach, client: ProfileClient, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []

    @ASYNC[library]()
    async def greeting(profile: Profile) -> str:
        made.append(profile.get("first_name", "there"))
        return made[-1]

    app = FastAPI()

    @app.get("/parameter")
    async def parameter(profile: CurrentProfile) -> dict[str, str]:
        return {"hello": await greeting(profile)}

    @app.get("/state")
    async def state(request: Request) -> dict[str, str]:
        return {"hello": await greeting(request.state.profile)}

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO, budget=5.0, attach=attach)
    asked(app, "/state" if attach == "eager" else "/parameter", made)
    assert own_records(caplog) == []


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("library", SYNC)
def test_A22_A24_the_proxy_of_flask_is_the_key_of_its_person(
    library: str, before: bool, client: ProfileClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of an unread profile is unique, so the cache never matches; the log has the remedy."""
    made: list[str] = []

    @SYNC[library](tmp_path)
    def greeting(profile: Profile) -> str:
        made.append(profile.get("first_name", "there"))
        return made[-1]

    def page() -> str:
        if before:
            assert current_profile.found in (True, False)
        return str(greeting(current_profile))

    app = Flask(__name__)
    ProfileEnrich(app, client=client, identify=WHO, budget=5.0)
    app.add_url_rule("/", "home", page)
    browser = app.test_client()
    for _ in range(4):
        for user, name in NAMES.items():
            assert browser.get("/", headers={"x-user": user} if user else {}).text == name
    by_text = library in ("beaker", "dogpile") and not before
    assert (len(made) == 12) if by_text else (len(made) <= 6)
    logged = [record.getMessage() for record in own_records(caplog)]
    assert ["Read the profile before" in text for text in logged] == [True] * by_text


@pytest.mark.parametrize("library", REFUSED)
def test_A24_a_library_that_hashes_its_arguments_refuses_a_profile_and_what_is_in_it(library: str) -> None:
    @REFUSED[library]()
    async def greeting(value: Any) -> None:
        pass

    async def ask(value: Any) -> None:
        with pytest.raises(TypeError, match="unhashable") as raised:
            await greeting(value)
        assert "planted" not in str(raised.value)

    async def ask_all() -> None:
        profile = Profile(Record({"address": {"city": "planted"}, "tags": ["planted"]}))
        for value in (profile, profile.attributes, profile["address"], profile["tags"]):
            await ask(value)

    asyncio.run(ask_all())


@pytest.mark.parametrize("library", [*SYNC, *ASYNC])
def test_A22_a_function_that_gets_the_profile_for_itself_is_logged_once(
    library: str, client: ProfileClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if library == "cachetools-async":
        pytest.skip("it calls the function in a task of its own, where nothing leads back to it")
    here: ContextVar[Request] = ContextVar("here")
    app = FastAPI()

    if library in SYNC:

        @SYNC[library](tmp_path)
        def greeting(profile: Profile) -> str:
            return str(here.get().state.profile.get("first_name", "there"))

        @app.get("/")
        def page(request: Request) -> str:
            here.set(request)
            return str(greeting(NOBODY))
    else:

        @ASYNC[library]()
        async def agreeting(profile: Profile) -> str:
            return str(here.get().state.profile.get("first_name", "there"))

        @app.get("/")
        async def apage(request: Request) -> str:
            here.set(request)
            return str(await agreeting(NOBODY))

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO, budget=5.0)
    with TestClient(app) as browser:
        for user in NAMES:
            browser.get("/", headers={"x-user": user} if user else {})
    logged = [record.getMessage() for record in own_records(caplog)]
    assert len(logged) == 1
    assert f"it is {library.split('-')[0]}" in logged[0].lower()


NOBODY = Profile(key=None)
"""What a cached function is given that looks elsewhere."""
