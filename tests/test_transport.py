"""One conformance test for all transports: what is promised holds whichever HTTP client is installed or handed in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import logging
import os
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import trustme

from profile_enrich._deadline import Deadline
from profile_enrich.errors import (
    ConfigurationError,
    MissingExtraError,
    ProfileEnrichError,
    SourceConnectionError,
    SourceResponseError,
    SourceTimeout,
)
from profile_enrich.sources import _transport
from profile_enrich.sources._transport import (
    Headers,
    HttpRequest,
    HttpResponse,
    Transport,
    TransportOptions,
    _environment,
    _failures,
    _select,
    open_transport,
)
from profile_enrich.sources._transport._body import BodyReader
from profile_enrich.testing import Exchange, Fault, VendorServer, faults

OWN = ["aiohttp", "httpx2", "httpx"]
HANDED_IN = ["my-aiohttp", "my-httpx2", "my-httpx"]

Open = Callable[..., Transport]


def request(url: str, **headers: str) -> HttpRequest:
    return HttpRequest("GET", url, {"accept": "application/json", "accept-encoding": "gzip", **headers})


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def server() -> Generator[VendorServer]:
    with VendorServer({"u1": {"tier": "gold"}}, key=None) as running:
        yield running


@pytest.fixture
def vendor(server: VendorServer) -> Generator[VendorServer]:
    server.heal()
    server.reset_calls()
    yield server
    server.heal()
    server.release()


@pytest.fixture(params=OWN + HANDED_IN)
async def transport(request: pytest.FixtureRequest) -> AsyncGenerator[Transport]:
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


@pytest.fixture(params=OWN)
async def own(request: pytest.FixtureRequest) -> AsyncGenerator[Open]:
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
    # An HTTP client's error holds the request: none may hang on ours.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert url not in str(caught.value)
    return caught.value


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb/%2E%2E/c?record_id=%2B%20%26%25",
        "/a%2fb?x=%2b+plus&empty=&%5Bb%5D=1",
        "/%F0%9F%A6%8A/%00/%0A?q=~-._",
        "/x%25%32%46y",
    ],
)
async def test_the_url_reaches_the_wire_byte_for_byte(transport: Transport, vendor: VendorServer, target: str) -> None:
    await transport.send(request(vendor.origin + target), deadline=Deadline(5))
    assert vendor.calls[0].target == target


async def test_headers_and_body_are_sent_and_read(transport: Transport, vendor: VendorServer) -> None:
    vendor.script(faults.Respond(201, b"made", {"X-Thing": "a, b", "ETag": '"1"'}))
    sent = HttpRequest("POST", vendor.origin + "/p", {"authorization": "Bearer t", "user-agent": "me"}, b"a=1")
    answer = await transport.send(sent, deadline=Deadline(5))
    assert (answer.status, answer.body, answer.headers["x-thing"], answer.headers["etag"]) == (
        201,
        b"made",
        "a, b",
        '"1"',
    )
    call = vendor.calls[0]
    assert (call.method, call.body) == ("POST", b"a=1")
    assert (call.headers["authorization"], call.headers["user-agent"]) == ("Bearer t", "me")


async def test_redirects_are_not_followed(transport: Transport, vendor: VendorServer) -> None:
    vendor.script(faults.Redirect())
    answer = await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    assert answer.status == 302
    assert vendor.call_count == 1


async def test_L9_cookies_of_one_answer_never_ride_on_the_next_request(
    transport: Transport, vendor: VendorServer
) -> None:
    vendor.script(faults.Respond(200, b"{}", {"Set-Cookie": "who=alice; Path=/"}))
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    assert [call.headers.get("cookie") for call in vendor.calls] == [None, None]


async def test_connections_are_kept_and_shared(transport: Transport, vendor: VendorServer) -> None:
    for _ in range(3):
        await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    assert len({call.connection for call in vendor.calls}) == 1
    answers = await asyncio.gather(
        *(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)) for _ in range(50))
    )
    assert len(answers) == 50


# --- bodies -----------------------------------------------------------------------------------------------------------


async def test_gzip_is_unpacked(transport: Transport, vendor: VendorServer) -> None:
    vendor.script(faults.Respond(200, gzip.compress(b"x" * 5000), {"Content-Encoding": "gzip"}))
    answer = await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    assert answer.body == b"x" * 5000


@pytest.mark.parametrize("fault", [faults.BigBody(1_000_000), faults.BigBody(1_000_000, declared=False)])
async def test_a_body_that_is_too_large_is_refused(transport: Transport, vendor: VendorServer, fault: Fault) -> None:
    vendor.script(fault)
    error = await failure(transport, vendor.origin + "/x")
    assert isinstance(error, SourceResponseError)
    assert "max_body_bytes" in str(error)
    assert (await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404


async def test_a_gzip_bomb_costs_no_memory(transport: Transport, vendor: VendorServer) -> None:
    bomb = gzip.compress(b"\0" * 30_000_000)
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    vendor.script(faults.Respond(200, bomb, {"Content-Encoding": "gzip"}))
    gc.collect()
    tracemalloc.start()
    try:
        error = await failure(transport, vendor.origin + "/x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, SourceResponseError)
    assert peak < 2_000_000  # the limit is 100,000 bytes; the rest is the client's and the server's own


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({"Content-Encoding": "br"}, b"abc", "only gzip"),
        ({"Content-Encoding": "gzip"}, b"this is not gzip", "is gzip, and is not"),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"y" * 3000)[:-9], "cut short"),
    ],
)
async def test_wrong_compression_is_refused(
    transport: Transport, vendor: VendorServer, headers: dict[str, str], body: bytes, says: str
) -> None:
    vendor.script(faults.Respond(200, body, headers))
    error = await failure(transport, vendor.origin + "/x")
    assert isinstance(error, SourceResponseError)
    assert says in str(error)


def test_an_empty_body_may_say_that_it_is_gzip() -> None:
    assert BodyReader(Headers([(b"content-encoding", b"gzip")]), 10).end() == b""


def test_the_limit_is_exact() -> None:
    packed = zlib.compress(b"z" * 10, wbits=31)
    reader = BodyReader(Headers([(b"Content-Encoding", b"GZIP")]), 10)
    reader.feed(packed[:7])
    reader.feed(packed[7:])
    assert reader.end() == b"z" * 10
    with pytest.raises(SourceResponseError):
        BodyReader(Headers([(b"Content-Encoding", b"gzip")]), 9).feed(packed)
    with pytest.raises(SourceResponseError):
        BodyReader(Headers([(b"Content-Length", b"9" * 5000)]), 9)


# --- failures ---------------------------------------------------------------------------------------------------------


class _Says(Fault):
    def __init__(self, said: bytes) -> None:
        self.said = said

    async def play(self, exchange: Exchange) -> None:
        await exchange.write(self.said)
        exchange.close()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.Reset("before_headers"), SourceConnectionError),
        (faults.Reset("in_headers"), SourceConnectionError),
        (faults.Reset("in_body"), SourceResponseError),
        (faults.Truncated(0.5), SourceResponseError),
        (faults.WrongContentLength(10), SourceResponseError),
        (_Says(b""), SourceConnectionError),
        (_Says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), SourceResponseError),
        (_Says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"), SourceResponseError),
        (_Says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"), SourceResponseError),
    ],
    ids=repr,
)
async def test_broken_answers_become_errors_of_ours(
    transport: Transport, vendor: VendorServer, fault: Fault, kind: type[Exception]
) -> None:
    vendor.always(fault)
    assert isinstance(await failure(transport, vendor.origin + "/x"), kind)
    vendor.heal()
    assert (await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404


async def test_a_refused_connection_says_so(transport: Transport) -> None:
    with VendorServer() as gone:
        url = gone.origin
    error = await failure(transport, url + "/x")
    assert isinstance(error, SourceConnectionError)
    assert "refused" in str(error)


async def test_an_unknown_host_says_so(transport: Transport) -> None:
    error = await failure(transport, "http://no-such-host.invalid/x", 10)
    assert isinstance(error, SourceConnectionError)
    assert "host name" in str(error)


async def test_L2_a_hanging_source_times_out_at_the_deadline(transport: Transport, vendor: VendorServer) -> None:
    vendor.script(faults.Hang())
    began = time.monotonic()
    error = await failure(transport, vendor.origin + "/x", 0.2)
    assert isinstance(error, SourceTimeout)
    assert 0.15 < time.monotonic() - began < 1.5


def test_the_reason_of_a_failure_is_found_wherever_it_hangs() -> None:
    deep: Exception = ConnectionRefusedError("planted")
    for _ in range(3):
        outer = OSError("planted")
        outer.__cause__ = ExceptionGroup("planted", [OSError(), deep])
        deep = outer
    assert "refused" in str(_failures.connection_failed(deep))
    endless = OSError("planted")
    endless.__context__ = RuntimeError("planted")
    endless.__context__.__context__ = endless
    assert "planted" not in str(_failures.not_connected(endless))
    assert "before it answered" in str(_failures.connection_failed(endless))


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_L2_a_dripping_source_times_out_at_the_deadline(
    transport: Transport, vendor: VendorServer, part: Any
) -> None:
    vendor.script(faults.SlowDrip(interval=0.02, part=part))
    began = time.monotonic()
    error = await failure(transport, vendor.origin + "/x", 0.2)
    assert isinstance(error, SourceTimeout)
    assert time.monotonic() - began < 1.5
    assert (await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404


async def test_a_deadline_that_passed_makes_no_call(transport: Transport, vendor: VendorServer) -> None:
    assert isinstance(await failure(transport, vendor.origin + "/x", 0.0), SourceTimeout)
    assert vendor.call_count == 0


async def test_a_url_that_cannot_be_sent_is_an_error_of_ours(transport: Transport, vendor: VendorServer) -> None:
    for url in ("http://127.0.0.1:99999/x", "http:///x", "ftp://127.0.0.1/x"):
        await failure(transport, url)
    if transport.name != "aiohttp":  # which has no limit of its own
        assert isinstance(await failure(transport, vendor.origin + "/" + "x" * 70_000), ConfigurationError)


async def test_L2_cancelled_requests_never_cost_the_pool_a_connection(own: Open, vendor: VendorServer) -> None:
    transport = own(options=TransportOptions(max_connections=1))
    for count in range(1, 6):
        vendor.script(faults.Hang())
        task = asyncio.create_task(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)))
        await vendor.calls_reached(count)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await transport.send(request(vendor.origin + "/x"), deadline=Deadline(2))).status == 404


async def test_L2_others_on_a_retired_client_are_left_alone(own: Open, vendor: VendorServer) -> None:
    transport = own()
    vendor.script(faults.Hang(), faults.Hang())
    first = asyncio.create_task(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)))
    await vendor.calls_reached(1)
    second = asyncio.create_task(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)))
    await vendor.calls_reached(2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    vendor.release()
    assert (await second).status == 404


async def test_no_more_connections_than_allowed(own: Open, vendor: VendorServer) -> None:
    transport = own(options=TransportOptions(max_connections=3))
    vendor.always(faults.Latency(0.01))
    await asyncio.gather(*(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)) for _ in range(20)))
    assert vendor.max_in_flight <= 3


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_tls_certificates_are_verified(own: Open) -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    with VendorServer(tls=serving) as secure:
        error = await failure(own(), secure.origin + "/x")
        assert isinstance(error, SourceConnectionError)
        assert "certificate" in str(error)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        sent = own(options=TransportOptions(tls=trusting)).send(request(secure.origin + "/x"), deadline=Deadline(5))
        assert (await sent).status == 404


async def test_plain_http_behind_https_is_said_clearly(own: Open) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        error = await failure(own(), f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    assert isinstance(error, SourceConnectionError)
    assert "TLS handshake" in str(error)


# --- proxies ----------------------------------------------------------------------------------------------------------


async def test_proxies_come_from_the_environment(
    own: Open, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VendorServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        await own().send(request("http://profiles.invalid/a%2Fb?x=%2B"), deadline=Deadline(5))
        assert [call.target for call in proxy.calls] == ["http://profiles.invalid/a%2Fb?x=%2B"]

        monkeypatch.setenv("NO_PROXY", "127.0.0.1,other.invalid")
        assert (await own().send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404
        assert (proxy.call_count, vendor.call_count) == (1, 1)

        monkeypatch.delenv("NO_PROXY")
        ignoring = own(options=TransportOptions(environment=False))
        await ignoring.send(request(vendor.origin + "/x"), deadline=Deadline(5))
        assert (proxy.call_count, vendor.call_count) == (1, 2)


async def test_a_proxy_that_is_down_is_named(own: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with VendorServer() as proxy:
        url = proxy.origin
    monkeypatch.setenv("http_proxy", url)
    assert isinstance(await failure(own(), "http://profiles.invalid/x"), SourceConnectionError)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    error = await failure(own(), "http://profiles.invalid/x")
    assert isinstance(error, ConfigurationError)
    assert "NO_PROXY" in str(error)


async def test_a_proxy_that_refuses_is_named(own: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with VendorServer() as proxy:
        proxy.always(faults.Respond(403, b"no"))
        monkeypatch.setenv("https_proxy", proxy.origin)
        error = await failure(own(), "https://profiles.invalid/x")
        assert isinstance(error, SourceConnectionError)
        assert "proxy" in str(error)
        assert [call.method for call in proxy.calls] == ["CONNECT"]


def test_the_rules_for_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://secure.example:1")
    monkeypatch.setenv("NO_PROXY", ".internal.example")
    proxies = _environment.Proxies()
    assert proxies.of("http://a.example/x") == "http://proxy.example:3128"
    assert proxies.of("https://a.example") == "http://secure.example:1"
    assert proxies.of("https://db.internal.example/x") is None
    assert proxies.of("https://a.example/y") == "http://secure.example:1"
    assert _environment.Proxies(read=False).of("https://a.example/x") is None


# --- loops, threads, forks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_L9_one_transport_serves_many_loops_one_after_the_other(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    for _ in range(3):
        answer = asyncio.run(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)))
        assert answer.status == 404
    gc.collect()
    assert_closed(vendor)


@pytest.mark.parametrize("name", OWN)
def test_L9_one_transport_serves_several_loops_at_once(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    statuses: list[int] = []

    async def ask() -> None:
        for _ in range(10):
            answer = await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
            statuses.append(answer.status)

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [404] * 40
    assert_closed(vendor)


@pytest.mark.parametrize("name", OWN)
async def test_L14_aclose_reaches_the_clients_of_other_running_loops(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    asked, done = threading.Event(), threading.Event()

    async def ask() -> None:
        await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
        asked.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    await asyncio.to_thread(asked.wait)
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    await transport.aclose()
    await asyncio.to_thread(assert_closed, vendor)
    done.set()
    await asyncio.to_thread(thread.join)
    await transport.aclose()  # nothing is left to close


@pytest.mark.parametrize("name", OWN)
async def test_L14_a_transport_that_is_dropped_closes_its_connections(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    del transport
    gc.collect()
    await asyncio.to_thread(assert_closed, vendor)


def assert_closed(vendor: VendorServer) -> None:
    limit = time.monotonic() + 3
    while vendor.open_connections and time.monotonic() < limit:
        time.sleep(0.005)
    assert vendor.open_connections == 0


async def test_L14_aclose_and_use_again(transport: Transport, vendor: VendorServer) -> None:
    await transport.aclose()
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    await transport.aclose()
    assert (await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404


_FORK = """
import asyncio, os, sys
from profile_enrich._deadline import Deadline
from profile_enrich.sources._transport import HttpRequest, open_transport
name, url = sys.argv[1:]
transport = open_transport(name)
async def ask():
    return (await transport.send(HttpRequest("GET", url, {}), deadline=Deadline(5))).status
loop = asyncio.new_event_loop()
assert loop.run_until_complete(ask()) == 404
child = os.fork()
if child == 0:
    status = asyncio.run(ask())
    asyncio.run(transport.aclose())
    os._exit(0 if status == 404 else 1)
assert os.waitpid(child, 0)[1] == 0
assert loop.run_until_complete(ask()) == 404   # on the connection from before the fork
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""

_DIRTY = """
import asyncio, sys
from profile_enrich._deadline import Deadline
from profile_enrich.sources._transport import HttpRequest, open_transport
name, url = sys.argv[1:]
async def ask():
    for _ in range(2):
        transport = open_transport(name)
        await transport.send(HttpRequest("GET", url, {}), deadline=Deadline(5))
asyncio.run(ask())
"""


@pytest.mark.parametrize("name", OWN)
def test_A9_nothing_survives_a_fork(name: str, vendor: VendorServer) -> None:
    done = run(_FORK, name, vendor)
    assert (done.returncode, done.stderr) == (0, "")
    parents = [call.connection for call in vendor.calls]
    assert parents[0] == parents[2] != parents[1]


async def test_A9_a_forked_child_neither_uses_nor_closes_its_parents_clients(
    own: Open, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = own()
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    await transport.aclose()
    assert vendor.open_connections == 1
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    assert [call.connection for call in vendor.calls] == [vendor.calls[0].connection, vendor.calls[0].connection + 1]


async def test_L14_the_end_of_a_closed_loop_leaves_nothing_to_do(vendor: VendorServer) -> None:
    transport = open_transport("httpx")

    async def ask() -> None:
        await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))

    await asyncio.to_thread(asyncio.run, ask())
    await ask()  # forgets the client of the loop that ended
    await asyncio.to_thread(asyncio.run, ask())
    await transport.aclose()
    await asyncio.to_thread(assert_closed, vendor)


@pytest.mark.parametrize("name", OWN)
def test_L14_nothing_warns_when_nobody_closes(name: str, vendor: VendorServer) -> None:
    done = run(_DIRTY, name, vendor)
    assert (done.returncode, done.stderr) == (0, "")


def run(script: str, name: str, vendor: VendorServer) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script, name, vendor.origin + "/x"]
    # Measured for coverage, anyio's `except asyncio.InvalidStateError` lets one through in such a short-lived process.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)


# --- logs -------------------------------------------------------------------------------------------------------------


async def test_A18_the_http_clients_own_logging_is_quiet(
    transport: Transport, vendor: VendorServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "httpcore.http11", "httpcore2.http11", "aiohttp.client"):
        caplog.set_level(logging.DEBUG, logger=name)
    vendor.script(faults.Respond(200, b"{}", {"X-Echo": "planted-value"}), then=faults.Reset())
    await transport.send(request(vendor.origin + "/planted-id", authorization="planted-key"), deadline=Deadline(5))
    await failure(transport, vendor.origin + "/planted-id")
    assert "planted" not in caplog.text
    assert "/planted" not in "".join(str(record.args) + repr(record.__dict__) for record in caplog.records)


async def test_A18_the_users_own_requests_are_logged_as_before(
    vendor: VendorServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    open_transport("httpx")
    async with httpx.AsyncClient() as client:
        await client.get(vendor.origin + "/theirs")
        await open_transport(client).send(request(vendor.origin + "/ours"), deadline=Deadline(5))
    assert "/theirs" in caplog.text
    assert "/ours" not in caplog.text


def test_A18_reprs_show_no_values() -> None:
    sent = HttpRequest("GET", "https://h.example/planted", {"authorization": "planted"}, b"planted")
    got = HttpResponse(200, Headers([(b"x", b"planted")]), b"planted")
    assert "planted" not in repr(sent) + repr(got) + repr(got.headers)


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
        {"options": TransportOptions(max_connections=0)},
        {"options": TransportOptions(keepalive_seconds=-1)},
        {"options": TransportOptions(keepalive_seconds=float("nan"))},
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
