"""Transports of every kind, and a vendor to send to: fixtures of the transport tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import ProfileEnrichError
from profile_enrich.sources.http import HttpRequest, Transport, open_transport
from profile_enrich.testing import VendorServer

OWN = ["aiohttp", "httpx2", "httpx"]
HANDED_IN = ["my-aiohttp", "my-httpx2", "my-httpx"]

Open = Callable[..., Transport]


def request(url: str, **headers: str) -> HttpRequest:
    return HttpRequest("GET", url, {"accept": "application/json", "accept-encoding": "gzip", **headers})


@pytest.fixture(name="no_proxies")
def make_no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(name="server", scope="module")
def make_server() -> Generator[VendorServer]:
    with VendorServer({"u1": {"tier": "gold"}}, key=None) as running:
        yield running


@pytest.fixture(name="vendor")
def make_vendor(server: VendorServer) -> Generator[VendorServer]:
    server.heal()
    server.reset_calls()
    yield server
    server.heal()
    server.release()


@pytest.fixture(name="transport", params=OWN + HANDED_IN)
async def make_transport(request: pytest.FixtureRequest) -> AsyncGenerator[Transport]:
    name: str = request.param
    async with contextlib.AsyncExitStack() as stack:
        choice: Any = name
        if name == "my-aiohttp":
            choice = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        elif name == "my-httpx2":
            choice = await stack.enter_async_context(httpx2.AsyncClient())
        elif name == "my-httpx":
            choice = await stack.enter_async_context(httpx.AsyncClient())
        opened = open_transport(choice, max_body_bytes=100_000)
        assert opened.name == name.removeprefix("my-")
        assert isinstance(opened, Transport)
        yield opened
        await opened.aclose()


@pytest.fixture(name="own", params=OWN)
async def make_own(request: pytest.FixtureRequest) -> AsyncGenerator[Open]:
    """Opens transports of one kind, and closes them."""
    opened: list[Transport] = []

    def start(**options: Any) -> Transport:
        opened.append(open_transport(request.param, **options))
        return opened[-1]

    yield start
    for each in opened:
        await each.aclose()


async def failure(transport: Transport, url: str, seconds: float = 5.0) -> ProfileEnrichError:
    with pytest.raises(ProfileEnrichError) as caught:
        await transport.send(request(url), deadline=Deadline(seconds))
    # An HTTP client's error refers to the request, so ours must not refer to it.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert url not in str(caught.value)
    return caught.value
