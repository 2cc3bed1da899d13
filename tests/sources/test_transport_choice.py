"""The choice of the HTTP client, and clients that the user passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import ConfigurationError, MissingExtraError
from profile_enrich.sources import http as _transport
from profile_enrich.sources.http import Headers, HttpRequest, HttpResponse, TransportOptions, open_transport
from profile_enrich.sources.http import select_transport as _select
from profile_enrich.testing import VendorServer

from .transport_fixtures import failure, make_no_proxies, make_own, make_server, make_transport, make_vendor, request

pytestmark = pytest.mark.usefixtures("no_proxies")
# pytest finds them under their names here
fixtures = (make_no_proxies, make_own, make_server, make_transport, make_vendor)


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_auto_takes_the_best_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*names: str) -> Callable[[str], bool]:
        return lambda name: name in names

    assert open_transport().name == "aiohttp"
    monkeypatch.setattr(_select, "_installed", only("httpx2", "httpx"))
    assert open_transport("auto").name == "httpx2"
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[aiohttp\]"):
        open_transport("aiohttp")
    monkeypatch.setattr(_select, "_installed", only("httpx"))
    assert open_transport("auto").name == "httpx"


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("requests", "must be 'auto'"),
        (object(), "not object"),
        (None, "not NoneType"),
        (httpx.Client(), "httpx.AsyncClient"),
        (httpx2.Client(), "httpx2.AsyncClient"),
    ],
)
def test_a_wrong_choice_is_refused(choice: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match="transport") as caught:
        open_transport(choice)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_body_bytes": 0},
        {"max_body_bytes": True},
        {"max_body_bytes": 1.5},
        {"options": {"max_connections": 1}},
    ],
)
def test_wrong_limits_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        open_transport("httpx", **arguments)


async def test_options_do_not_go_with_a_client_handed_in() -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(ConfigurationError, match="options"):
            open_transport(client, options=TransportOptions())


async def test_a_transport_of_the_users_own_is_taken_as_it_is() -> None:
    class Mine:
        name = "mine"

        async def send(self, request: HttpRequest, *, deadline: Deadline) -> HttpResponse:
            return HttpResponse(200, Headers(), b"{}")

        async def aclose(self) -> None: ...

    mine = Mine()
    assert open_transport(mine) is mine


async def test_an_httpx_mock_transport_works() -> None:
    def answer(sent: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"path": sent.url.path, "mine": sent.headers["x-mine"]})

    client = httpx.AsyncClient(
        transport=httpx.MockTransport(answer), headers={"x-mine": "1"}, cookies={"a": "b"}, params={"add": "ed"}
    )
    async with client:
        got = await open_transport(client).send(request("https://h.example/p"), deadline=Deadline(5))
    assert got.body == b'{"path":"/p","mine":"1"}'


async def test_an_aiohttp_session_that_keeps_cookies_is_refused() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match="DummyCookieJar"):
            open_transport(session)


async def test_a_closed_client_is_said_clearly(vendor: VendorServer) -> None:
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
    client = httpx.AsyncClient()
    await session.close()
    await client.aclose()
    for closed in (session, client):
        error = await failure(open_transport(closed), vendor.origin + "/x")
        assert isinstance(error, ConfigurationError)
        assert "handed in" in str(error)


async def test_clients_handed_in_stay_open(vendor: VendorServer) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session, httpx.AsyncClient() as client:
        for mine in (session, client):
            transport = open_transport(mine)
            await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
            await transport.aclose()
        assert not session.closed
        assert not client.is_closed


def test_headers_are_one_mapping() -> None:
    headers = Headers([(b"Vary", b"a"), (b"X", b"1"), (b"vary", b"b"), (b"VARY", b"c")])
    assert headers["vARY"] == "a, b, c"
    assert headers.get_all("Vary") == ["a", "b", "c"]
    assert headers.get_all("x") == ["1"]
    assert headers.get_all("none") == []
    assert (list(headers), len(headers), headers.get("none")) == (["vary", "x"], 2, None)
    assert Headers([(b"a", b"1"), (b"A", b"1")])["a"] == "1, 1"


def test_the_package_says_what_it_offers() -> None:
    assert all(hasattr(_transport, name) for name in _transport.__all__)
