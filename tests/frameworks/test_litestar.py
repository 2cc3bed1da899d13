"""The Litestar plugin, with Litestar's response cache."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

pytest.importorskip("litestar", reason="Litestar is not installed: pip install litestar")

from litestar import Litestar, Request, WebSocket, get, websocket
from litestar.config.response_cache import ResponseCacheConfig
from litestar.di import NamedDependency, Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.params import FromPath
from litestar.response import Stream
from litestar.testing import TestClient

from profile_enrich import ConfigurationError, NotFound, ProfileClient, from_cookie, from_session, honour_gpc
from profile_enrich.litestar import CurrentProfile, ProfilePlugin, profile_required
from tests.helpers import ScriptedSource, client_of, found, own_records

AnyRequest = Request[Any, Any, Any]

ran: list[str] = []
"""The paths whose handler ran: the response cache did not answer them."""

VISITORS = ["u1", "u2", None, "u2", "u1", None]


@get("/read", sync_to_thread=False)
def read(profile: CurrentProfile) -> str:
    return f"Hello {profile.get('id', 'nobody')}"


@get("/profile")
async def whole(profile: CurrentProfile) -> CurrentProfile:
    return profile


@get("/in-a-dict")
async def in_a_dict(profile: CurrentProfile) -> dict[str, Any]:
    return {"profile": profile}


@get("/state")
async def from_state(request: AnyRequest) -> str:
    return f"Hello {request.state.profile.get('id', 'nobody')}"


@get("/plain")
async def plain() -> str:
    return "the same for all"


@get("/cached/read", cache=60)
async def cached_read(profile: CurrentProfile) -> str:
    return f"Hello {profile.get('id', 'nobody')}"


@get("/cached/unread", cache=60)
async def cached_unread(profile: CurrentProfile) -> str:
    """A handler that has the profile as a dependency, but reads it only for some requests."""
    ran.append("/cached/unread")
    return "the same for all"


@get("/cached/state", cache=60)
async def cached_state(request: AnyRequest) -> str:
    return f"Hello {request.state.profile.get('id', 'nobody')}"


async def derived(profile: CurrentProfile) -> str:
    return f"Hello {profile.get('id', 'nobody')}"


@get("/cached/derived", cache=60, dependencies={"greeting": Provide(derived)})
async def cached_derived(greeting: NamedDependency[str]) -> str:
    return greeting


@get("/cached/members", cache=60, guards=[profile_required])
async def cached_members(request: AnyRequest) -> str:
    return f"Hello {request.state.profile['id']}"


@get("/cached/plain", cache=60)
async def cached_plain() -> str:
    ran.append("/cached/plain")
    return "the same for all"


@get("/cached/stream", cache=60)
async def cached_stream(request: AnyRequest) -> Stream:
    async def parts() -> AsyncIterator[str]:
        yield "Hello "
        yield request.state.profile.get("id", "nobody")

    return Stream(parts())


@get("/members", guards=[profile_required])
async def members() -> str:
    return "members"


@get("/sign-in/{user:str}")
async def sign_in(request: AnyRequest, user: FromPath[str]) -> str:
    request.set_session({"user_id": user})
    return "signed in"


@websocket("/ws")
async def talk(socket: WebSocket[Any, Any, Any], profile: CurrentProfile) -> None:
    await socket.accept()
    await socket.send_text(profile.get("id", "nobody"))
    await socket.close()


@websocket("/members-ws", guards=[profile_required])
async def members_talk(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


HANDLERS: list[Any] = [
    read, whole, in_a_dict, from_state, plain, cached_read, cached_unread, cached_state, cached_members, cached_plain,
    cached_derived, cached_stream, members, sign_in, talk, members_talk,
]  # fmt: skip


def app_of(client: ProfileClient, *, litestar: dict[str, Any] | None = None, **options: Any) -> Litestar:
    plugin = ProfilePlugin(client=client, **{"identify": from_cookie("who"), "budget": 5.0, **options})
    return Litestar(HANDLERS, plugins=[plugin], openapi_config=None, **(litestar or {}))


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource(lambda key: NotFound() if key.value == "u9" else found(id=key.value, visits=3))


@pytest.fixture
def browser(source: ScriptedSource) -> Iterator[TestClient[Litestar]]:
    with TestClient(app_of(client_of(source), consent=honour_gpc())) as browser:
        yield browser


def visit(browser: TestClient[Litestar], path: str, user: str | None = None, **headers: str) -> Any:
    cookie = {} if user is None else {"Cookie": f"who={user}"}
    return browser.get(path, headers={**cookie, **headers})


@pytest.mark.parametrize("path", ["/read", "/state"])
def test_A20_the_profile_of_whoever_is_in_session(browser: TestClient[Litestar], path: str) -> None:
    """A20, A13: as a dependency, and on the state; a personal response says so."""
    for user in VISITORS:
        response = visit(browser, path, user)
        assert response.text == f"Hello {user or 'nobody'}"
        assert response.headers["cache-control"] == "private"
        assert "Cookie" in response.headers["vary"]
    assert "cache-control" not in visit(browser, "/plain", "u1").headers


@pytest.mark.parametrize("path", ["read", "state", "members", "derived", "unread"])
def test_A22_the_response_cache_never_serves_one_persons_page_to_another(
    browser: TestClient[Litestar], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A22: `cache=60`, with the profile as a dependency, itself or of another one, on the state, and behind a guard."""
    for user in ["u1", "u2", "u2", "u1"]:
        response = visit(browser, f"/cached/{path}", user)
        assert response.text == ("the same for all" if path == "unread" else f"Hello {user}")
        assert response.headers["cache-control"] == "private"
    if path == "members":
        assert visit(browser, "/cached/members").status_code == 401
    assert own_records(caplog) == []


def test_A22_what_is_for_all_is_still_cached(browser: TestClient[Litestar]) -> None:
    """A22: the handler runs once."""
    ran.clear()
    assert {visit(browser, "/cached/plain", user).text for user in VISITORS} == {"the same for all"}
    assert ran == ["/cached/plain"]


def test_A22_a_stream_that_is_cached_cannot_become_personal(
    browser: TestClient[Litestar], caplog: pytest.LogCaptureFixture
) -> None:
    """A22: the cache decides when the response starts; a profile first read later is empty, and the log says so."""
    with caplog.at_level(logging.WARNING):
        assert [visit(browser, "/cached/stream", user).text for user in ("u1", "u2")] == ["Hello nobody"] * 2
    assert len(own_records(caplog)) == 1


def test_A22_the_applications_own_cache_settings_stay(source: ScriptedSource) -> None:
    """A22: the application's filter and key function are called, too."""
    asked: list[int] = []

    def never(scope: Any, status: int) -> bool:
        asked.append(status)
        return False

    config = ResponseCacheConfig(cache_response_filter=never, default_expiration=7)
    app = app_of(client_of(source), litestar={"response_cache_config": config})
    assert app.response_cache_config.default_expiration == 7
    ran.clear()
    with TestClient(app) as browser:
        for _ in range(2):
            visit(browser, "/cached/plain")
    assert ran == ["/cached/plain"] * 2
    assert asked == [200, 200]


def test_A22_without_the_plugin_the_cache_does_serve_it() -> None:
    """The tests above can fail."""

    @get("/", cache=60)
    async def home(request: AnyRequest) -> str:
        return f"Hello {request.cookies['who']}"

    with TestClient(Litestar([home], openapi_config=None)) as browser:
        assert visit(browser, "/", "u1").text == visit(browser, "/", "u2").text == "Hello u1"


def test_A10_guards_refuse_with_the_reason(browser: TestClient[Litestar]) -> None:
    """A10: 401 if not signed in, 403 without consent, 404 without a profile; a WebSocket is closed."""
    assert [visit(browser, "/members", user).status_code for user in ("u1", None, "u9")] == [200, 401, 404]
    assert visit(browser, "/members", "u1", **{"Sec-GPC": "1"}).status_code == 403
    with pytest.raises(WebSocketDisconnect) as caught, browser.websocket_connect("/members-ws"):
        pass
    assert caught.value.code == 4401


def test_A3_a_websocket_has_its_profile_before_accept(browser: TestClient[Litestar]) -> None:
    """A3: as a dependency."""
    for user in ("u1", None):
        cookie = {} if user is None else {"Cookie": f"who={user}"}
        with browser.websocket_connect("/ws", headers=cookie) as socket:
            assert socket.receive_text() == (user or "nobody")


def test_a_profile_is_encoded_as_its_attributes(browser: TestClient[Litestar]) -> None:
    assert visit(browser, "/profile", "u1").json() == {"id": "u1", "visits": 3}
    assert visit(browser, "/in-a-dict", "u1").json() == {"profile": {"id": "u1", "visits": 3}}
    assert visit(browser, "/profile").json() == {}


def test_A12_sessions_are_known_where_the_plugin_looks(source: ScriptedSource) -> None:
    """A12: it is inside of the application's own middleware."""
    session = CookieBackendConfig(secret=b"0123456789abcdef").middleware
    app = app_of(client_of(source), identify=from_session(), litestar={"middleware": [session]})
    with TestClient(app) as browser:
        assert browser.get("/read").text == "Hello nobody"
        browser.get("/sign-in/u2")
        assert browser.get("/read").text == "Hello u2"


def test_A8_the_client_closes_with_the_application(source: ScriptedSource) -> None:
    """A8: and opens again with it."""
    client = client_of(source)
    for _ in range(2):
        with TestClient(app_of(client)) as browser:
            assert visit(browser, "/read", "u1").text == "Hello u1"
        assert client.health().closed


def test_A25_wrong_arguments_are_refused(source: ScriptedSource) -> None:
    """A25: when the plugin is made, with the argument's name; so is a dependency of the same name."""
    with pytest.raises(ConfigurationError, match="budget"):
        ProfilePlugin(client=client_of(source), identify=from_cookie("who"), budget="50ms")  # type: ignore[arg-type]

    async def mine() -> str:
        return "mine"

    with pytest.raises(ConfigurationError, match="attribute 'profile' is taken"):
        app_of(client_of(source), litestar={"dependencies": {"profile": Provide(mine)}})
