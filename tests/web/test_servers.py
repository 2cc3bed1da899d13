"""One application gives the same results in all real servers and on their event loops."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples import demo
from profile_enrich import from_cookie
from profile_enrich.testing import VendorServer
from tests.apps import starlette_app
from tests.apps.serving import HOST, Served, command_of, free_port
from tests.apps.stage import Stage, http_scope
from tests.examples.shop import Visitor
from tests.helpers import ScriptedSource, client_of

SERVERS = ["uvicorn", "granian", "hypercorn"]
TIERS = {"u1": "gold", "u2": "silver", None: None}
TEXT = "text/plain; charset=utf-8"
SOURCE = (Path(__file__).parent.parent / "apps" / "served.py").read_text()
"""What `/file` sends."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody. It saves each client from reading the list of authorities, which no test here needs."""


def needs(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed: pip install {module}")


@contextlib.contextmanager
def serving(
    server: str, environment: dict[str, str], target: str = "tests.apps.served:app", **options: Any
) -> Generator[Served]:
    """Starts a server; the caller waits for it, so that several can start at the same time."""
    needs(server, *({"uvloop", "trio"} & {options.get("loop", "")}))
    port = free_port()
    with Served(command_of(server, target, port, **options), port, environment) as served:
        yield served


@pytest.fixture
def vendor() -> Generator[VendorServer]:
    profiles = {user: {"tier": tier} for user, tier in TIERS.items() if user is not None}
    with VendorServer(profiles, key="secret") as vendor:
        yield vendor


@contextlib.contextmanager
def visitor(url: str, user: str | None) -> Generator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10, verify=NO_TLS) as client:
        if user is not None:
            assert client.get(f"/sign-in/{user}").text == "signed in"
        yield client


# --- whole pages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """The parts of a response that must not depend on the server."""

    status: int
    body: str
    content_type: str
    cache_control: str
    vary: str

    @classmethod
    def of(cls, response: httpx.Response) -> Answer:
        headers = (response.headers.get(name, "") for name in ("content-type", "cache-control", "vary"))
        return cls(response.status_code, response.text, *headers)


def home_of(tier: str | None, reason: str | None = None) -> Answer:
    body = json.dumps({"tier": tier, "found": tier is not None, "reason": reason}, separators=(",", ":"))
    return Answer(200, body, "application/json", "private", "Cookie")


def expected_of(tier: str | None) -> dict[str, Answer]:
    """Pages that read the profile are private; the others are unchanged."""
    return {
        "GET /": home_of(tier, None if tier else "anonymous"),
        "GET /plain": Answer(200, "the same for all", TEXT, "public, max-age=60", ""),
        "HEAD /plain": Answer(200, "", TEXT, "public, max-age=60", ""),
        "GET /file": Answer(200, SOURCE, TEXT, "", ""),
        "GET /file?private=1": Answer(200, SOURCE, TEXT, "private", "Cookie"),
        "GET /304": Answer(304, "", "", "private", "Cookie"),
        "GET /nowhere": Answer(404, "Not Found", TEXT, "", ""),
    }


def check_pages(url: str, user: str | None) -> None:
    expected = expected_of(TIERS[user])
    with visitor(url, user) as client:
        answers = {line: Answer.of(client.request(*line.split(" "))) for line in expected}
    assert answers == expected


def check_untouched(url: str) -> None:
    """Compare a page that does not read the profile with the same page without the middleware."""
    with visitor(url, "u1") as client:
        headers = [
            [(name, value) for name, value in client.get(path).headers.raw if name.lower() != b"date"]
            for path in ("/plain", "/bare/plain")
        ]
    assert headers[0] == headers[1]


# --- streams --------------------------------------------------------------------------------------------------------


def check_events(url: str) -> None:
    """The second event is sent only after the client received the first and requests it."""
    with visitor(url, "u1") as client, client.stream("GET", "/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "private"
        events = (line for line in response.iter_lines() if line)
        assert next(events) == "data: gold"
        assert httpx.get(f"{url}/release", verify=NO_TLS).text == "released"
        assert list(events) == ["data: last"]


def check_websocket(url: str, user: str | None, says: str) -> None:
    needs("websockets")
    from websockets.sync.client import connect

    with visitor(url, user) as client:
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    with connect(url.replace("http:", "ws:") + "/ws", additional_headers={"cookie": cookies}) as socket:
        assert socket.recv(10) == says
        socket.send("and back")
        assert socket.recv(10) == "and back"


def check_clean(served: Served) -> None:
    """Check that it exited by itself, closed the client, and left nothing open."""
    assert served.stop() in (0, -15), served.errors
    told = [line for line in served.errors.splitlines() if line.startswith("shut down:")]
    assert len(told) == 1, served.errors
    assert ", closed>" in told[0]
    assert told[0].endswith("its tasks: []")
    assert not served.unclean()


@pytest.mark.long
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=pytest.mark.long)])
@pytest.mark.parametrize("server", SERVERS)
def test_A21_A8_the_same_results_on(server: str, loop: str, vendor: VendorServer) -> None:
    """A21, A8: pages, files, streams, WebSockets; one call for each user; a clean end."""
    with serving(server, {"VENDOR_URL": vendor.base_url}, loop=loop) as served:
        url = served.wait().url
        assert httpx.get(f"{url}/about", verify=NO_TLS).json()["loop"].startswith(loop)
        for user, tier in TIERS.items():
            check_pages(url, user)
            check_websocket(url, user, tier or "nobody")
        check_untouched(url)
        check_events(url)
        assert sorted(call.key for call in vendor.calls if call.key is not None) == ["u1", "u2"]  # beside the warm-up
        check_clean(served)


@pytest.mark.long
@pytest.mark.parametrize("server", SERVERS)
def test_A21_A6_A10_a_page_that_fails_and_a_vendor_that_fails(server: str, vendor: VendorServer) -> None:
    """A21, A6, A10: the application's exception still gives 500; if the vendor is down, pages are anonymous."""
    with serving(server, {"VENDOR_URL": vendor.base_url}) as served:
        url = served.wait().url
        with visitor(url, "u1") as client:
            # Servers may close a connection on which an application has failed.
            assert client.get("/boom", headers={"connection": "close"}).status_code == 500
            assert Answer.of(client.get("/")) == home_of("gold")
        vendor.close()
        with visitor(url, "u2") as client:
            assert Answer.of(client.get("/")) == home_of(None, "unavailable")
        with visitor(url, "u1") as client:
            assert Answer.of(client.get("/")) == home_of("gold")
        served.stop()
        assert served.errors.count("RuntimeError: boom for gold") >= 1
        assert "Unclosed" not in served.errors


@pytest.mark.long
@pytest.mark.parametrize(("server", "loop"), [("uvicorn", "uvloop"), ("granian", "asyncio"), ("hypercorn", "asyncio")])
def test_A21_A8_without_a_lifespan(server: str, loop: str, vendor: VendorServer) -> None:
    """A21, A8: without a lifespan, the client opens on first use, and closes with its event loop."""
    target = "tests.apps.served:without_lifespan"
    with serving(server, {"VENDOR_URL": vendor.base_url}, target, loop=loop) as served:
        url = served.wait().url
        check_pages(url, "u1")
        served.stop()
        assert not [line for line in served.unclean() if "Traceback" not in line], served.errors


@pytest.mark.long
def test_A10_on_trio_it_says_so_and_serves_pages_anonymous(vendor: VendorServer) -> None:
    """A10: asyncio is the supported loop; on another one pages are anonymous, never broken."""
    with serving("hypercorn", {"VENDOR_URL": vendor.base_url}, loop="trio") as served:
        url = served.wait().url
        for user in ("u1", "u2"):
            with visitor(url, user) as client:
                assert Answer.of(client.get("/")) == home_of(None, "unavailable")
        check_untouched(url)
        with visitor(url, "u1") as client, client.stream("GET", "/events") as response:
            events = (line for line in response.iter_lines() if line)
            assert next(events) == "data: None"
            assert httpx.get(f"{url}/release", verify=NO_TLS).text == "released"
            assert list(events) == ["data: last"]
        check_clean(served)
        assert served.errors.count("profile_enrich runs on asyncio only") == 1
    assert vendor.call_count == 0


def test_A10_A3_a_websocket_on_trio_is_anonymous() -> None:
    """A10, A3: without a server, because Hypercorn's trio worker can break when a WebSocket is closed."""
    needs("trio")
    import trio

    source = ScriptedSource()
    settings = {"client": client_of(source), "identify": from_cookie("user")}
    app = starlette_app.create(Stage(), settings)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    trio.run(app, {**http_scope("/ws", "u1"), "type": "websocket", "scheme": "ws", "subprotocols": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "nobody"
    assert source.calls == []


def test_A10_a_lifespan_on_another_kind_of_loop_ends_well() -> None:
    """A10: without lookups there is nothing to close."""
    source = ScriptedSource()
    client = client_of(source)

    async def live() -> None:
        async with client.lifespan():
            assert "closed" not in repr(client)

    with pytest.raises(StopIteration):  # driven by hand: there is no asyncio loop
        live().send(None)
    assert "closed" in repr(client)


# --- the storefront -------------------------------------------------------------------------------------------------

HOUSEHOLDS = ["2280", "1740", None]
SHOP_PATHS = ["/", "/account", "/static/shop.css", "/department/nowhere"]


def shop_of(url: str) -> dict[tuple[str | None, str], tuple[int, str, str, str]]:
    """Every page of the shop that is tried, as each household sees it, without the strip that counts and measures."""
    seen = {}
    for household in HOUSEHOLDS:
        with httpx.Client(base_url=url, follow_redirects=True, timeout=10, verify=NO_TLS) as client:
            someone = Visitor(client, url)
            if household is not None:
                assert someone.sign_in(household).status_code == 200
            for path in SHOP_PATHS:
                response = someone.get(path).response
                headers = response.headers
                page = re.sub(r'<aside class="strip.*?</aside>', "", response.text, flags=re.DOTALL)
                seen[household, path] = (
                    response.status_code, page, headers.get("cache-control", ""), headers.get("vary", ""),
                )  # fmt: skip
    return seen


@pytest.mark.long
def test_A21_the_storefront_is_the_same_on_all_three() -> None:
    """A21: uvicorn, Granian and Hypercorn each serve the storefront with the same results."""
    needs(*SERVERS)
    key, port = secrets.token_urlsafe(16), free_port()
    api = demo.profile_api(port, key)
    environment = {
        "STOREFRONT_API_URL": f"http://{HOST}:{port}/api/v1",
        "PROFILE_ENRICH_API_KEY": key,
        "STOREFRONT_SECRET": "secret",
        "STOREFRONT_BUDGET": "5",
    }
    api.start()
    try:
        with contextlib.ExitStack() as stack:
            target = "examples.storefront.app:create_app"
            shops = {
                server: stack.enter_context(serving(server, environment, target, factory=True)) for server in SERVERS
            }
            api.wait_until_ready()
            seen = {server: shop_of(served.wait().url) for server, served in shops.items()}
            for server, served in shops.items():
                served.stop()
                assert not served.unclean(), server
    finally:
        api.stop()
    for household in ("2280", "1740"):
        other = "1740" if household == "2280" else "2280"
        status, page, cache_control, vary = seen["uvicorn"][household, "/"]
        assert status == 200
        assert f"Household {household}" in page
        assert other not in page
        assert (cache_control, vary) == ("private", "Cookie")
        assert seen["uvicorn"][household, "/account"][0] == 200
    for server in SERVERS[1:]:
        assert seen[server] == seen["uvicorn"], server
