"""The profile dependencies of Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.websockets import WebSocketDisconnect

from profile_enrich import (
    Excluded,
    Profile,
    ProfileDependency,
    ProfileMiddleware,
    Reason,
    Record,
    SourceConnectionError,
    Status,
    from_cookie,
    get_profile,
    personalised,
    require_profile,
)
from profile_enrich.fastapi import REQUIRED_PROFILE_RESPONSES, CurrentProfile, RequiredProfile
from profile_enrich.web.middleware import Attach
from tests.helpers import Answer, ScriptedSource, Switch, client_of, nobody, own_records

CASES: list[tuple[Answer, str | None, int]] = [
    (lambda key: Switch()(key), "u1", 200),
    (lambda key: Switch()(key), None, 401),
    (lambda _: Excluded(), "u1", 403),
    (nobody, "u1", 404),
    (Switch(SourceConnectionError("down")), "u1", 503),
]


def fastapi_app(answer: Answer = Switch(), **settings: Any) -> FastAPI:  # noqa: B008  # never changed
    app = FastAPI()

    @app.get("/offers")
    async def offers(profile: CurrentProfile) -> dict[str, str]:
        return {"id": profile.get("id", "nobody")}

    @app.get("/account")
    def account(profile: RequiredProfile) -> dict[str, str]:
        return {"id": profile["id"]}

    @app.websocket("/chat")
    async def chat(websocket: WebSocket, profile: RequiredProfile) -> None:
        await websocket.accept()
        await websocket.send_text(profile["id"])
        await websocket.close()

    app.add_middleware(
        ProfileMiddleware, client=client_of(ScriptedSource(answer)), identify=from_cookie("user"), **settings
    )
    return app


def cookie(user: str | None) -> dict[str, str]:
    return {} if user is None else {"cookie": f"user={user}"}


@pytest.mark.parametrize("attach", ["eager", "prefetch", "lazy"])
def test_A20_fastapi_gets_the_profile_as_a_parameter(attach: str) -> None:
    """A20: dependencies work in FastAPI, in async and sync handlers and in WebSockets."""
    browser = TestClient(fastapi_app(attach=attach))
    response = browser.get("/offers", headers=cookie("u1"))
    assert response.json() == {"id": "u1"}
    assert response.headers["vary"] == "Cookie"
    assert browser.get("/offers").json() == {"id": "nobody"}
    assert browser.get("/account", headers=cookie("u2")).json() == {"id": "u2"}
    with browser.websocket_connect("/chat", headers=cookie("u3")) as websocket:
        assert websocket.receive_text() == "u3"


@pytest.mark.parametrize(("answer", "user", "status"), CASES)
def test_A10_only_dependencies_that_require_raise(answer: Answer, user: str | None, status: int) -> None:
    """A10: 401 not signed in, 403 excluded, 404 unknown, 503 unavailable."""
    browser = TestClient(fastapi_app(answer))
    assert browser.get("/offers", headers=cookie(user)).status_code == 200
    response = browser.get("/account", headers=cookie(user))
    assert response.status_code == status
    assert response.headers["cache-control"] == "private"
    if status != 200:
        assert set(response.json()) == {"detail"}
        with (
            pytest.raises(WebSocketDisconnect) as raised,
            browser.websocket_connect("/chat", headers=cookie(user)),
        ):
            raise AssertionError("unreachable")
        assert raised.value.code == 1008


@pytest.mark.parametrize(("answer", "user", "status"), CASES)
def test_A20_starlette_answers_with_the_same_statuses(answer: Answer, user: str | None, status: int) -> None:
    """A20: Starlette."""

    async def page(request: Request) -> Response:
        return JSONResponse((await require_profile(request)).as_dict())

    app = Starlette(
        routes=[Route("/", page)],
        middleware=[
            Middleware(ProfileMiddleware, client=client_of(ScriptedSource(answer)), identify=from_cookie("user"))
        ],
    )
    assert TestClient(app).get("/", headers=cookie(user)).status_code == status


def test_on_an_excluded_path_a_required_profile_is_a_mistake_in_the_application() -> None:
    browser = TestClient(fastapi_app(exclude=["/account"]))
    assert browser.get("/account", headers=cookie("u1")).status_code == 500


def test_A20_fastapi_overrides_work() -> None:
    """A20: stable module-level callables, so FastAPI overrides work."""
    app = fastapi_app()
    app.dependency_overrides[get_profile] = lambda: Profile(Record({"id": "fake"}), status=Status.HIT)
    app.dependency_overrides[require_profile] = lambda: Profile(Record({"id": "fake"}), status=Status.HIT)
    browser = TestClient(app)
    assert browser.get("/offers").json() == {"id": "fake"}
    assert browser.get("/account").json() == {"id": "fake"}


def test_A20_overriding_get_profile_is_enough() -> None:
    app = fastapi_app()
    app.dependency_overrides[get_profile] = lambda: Profile(Record({"id": "fake"}), status=Status.HIT)
    assert TestClient(app).get("/account").json() == {"id": "fake"}
    app.dependency_overrides[get_profile] = lambda: Profile(reason=Reason.NOT_FOUND)
    assert TestClient(app).get("/account").status_code == 404


def test_A20_require_profile_shows_frameworks_one_parameter_of_their_own() -> None:
    schema = fastapi_app().openapi()
    for path in ("/offers", "/account"):
        assert not {"parameters", "requestBody"} & set(schema["paths"][path]["get"])


def test_openapi_says_what_a_required_profile_answers() -> None:
    app = FastAPI()

    @app.get("/", responses=REQUIRED_PROFILE_RESPONSES)
    def page(profile: RequiredProfile) -> Profile:
        return profile

    assert set(app.openapi()["paths"]["/"]["get"]["responses"]) == {"200", "401", "403", "404", "503"}


def test_A20_dependencies_with_arguments_are_equal_when_their_arguments_are() -> None:
    """A20: … or equal-comparing instances."""
    assert ProfileDependency("account") == ProfileDependency("account")
    assert hash(ProfileDependency("account")) == hash(ProfileDependency("account"))
    assert ProfileDependency("account") != ProfileDependency("account", required=True)
    app = FastAPI()

    @app.get("/")
    async def page(account: Profile = Depends(ProfileDependency("account"))) -> dict[str, str]:  # noqa: B008
        return {"id": account["id"]}

    app.add_middleware(
        ProfileMiddleware, client=client_of(ScriptedSource()), identify=from_cookie("user"), attribute="account"
    )
    assert TestClient(app).get("/", headers=cookie("a1")).json() == {"id": "a1"}
    app.dependency_overrides[ProfileDependency("account")] = lambda: Profile(Record({"id": "fake"}))
    assert TestClient(app).get("/").json() == {"id": "fake"}


def test_A20_openapi_is_left_unchanged() -> None:
    """A20: leave OpenAPI unchanged."""
    app = FastAPI()

    @app.get("/offers")
    async def offers() -> dict[str, str]:
        return {}

    with_profile = fastapi_app().openapi()["paths"]["/offers"]
    assert with_profile == app.openapi()["paths"]["/offers"]


def test_without_the_middleware_the_profile_is_empty_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def page(request: Request) -> Response:
        profile = await ProfileDependency("elsewhere")(request)
        return JSONResponse([profile.found, profile.reason])

    app = Starlette(routes=[Route("/", page)])
    for _ in range(2):
        assert TestClient(app).get("/").json() == [False, "not_looked_up"]
    assert len(own_records(caplog)) == 1
    assert "add ProfileMiddleware" in caplog.text


def test_the_fastapi_module_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    import profile_enrich.fastapi
    from profile_enrich import MissingExtraError

    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[fastapi\]"):
        importlib.reload(profile_enrich.fastapi)


@pytest.mark.parametrize("attach", ["eager", "prefetch", "lazy"])
def test_A13_a_page_that_streams_first_can_say_beforehand_that_it_is_personal(
    attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    """A13, A16: it gets the headers of a page that read the profile, and nothing is logged."""

    async def page(request: Request) -> StreamingResponse:
        personalised(request)

        async def body() -> AsyncIterator[str]:
            yield "hello "
            yield (await get_profile(request)).get("id", "nobody")

        return StreamingResponse(body())

    app = Starlette(
        routes=[Route("/", page)],
        middleware=[
            Middleware(
                ProfileMiddleware,
                client=client_of(ScriptedSource(Switch())),
                identify=from_cookie("user"),
                attach=attach,
            )
        ],
    )
    response = TestClient(app).get("/", headers=cookie("u1"))
    assert response.text == "hello u1"
    assert (response.headers["vary"], response.headers["cache-control"]) == ("Cookie", "private")
    assert own_records(caplog) == []


def test_A13_in_fastapi_it_is_a_dependency() -> None:
    """A13: for a route, or for all of a router's."""
    app = fastapi_app()
    app.add_api_route("/stream", lambda: "x", dependencies=[Depends(personalised)])
    response = TestClient(app).get("/stream", headers=cookie("u1"))
    assert (response.headers["vary"], response.headers["cache-control"]) == ("Cookie", "private")


def test_without_the_middleware_saying_it_changes_nothing() -> None:
    async def page(request: Request) -> Response:
        personalised(request)
        return Response("x")

    response = TestClient(Starlette(routes=[Route("/", page)])).get("/")
    assert "vary" not in response.headers
