"""A conformance suite for all transports: the same guarantees with every HTTP client."""

from __future__ import annotations

import asyncio
import gc
import gzip
import ssl
import time
import tracemalloc
import zlib
from typing import Any

import pytest
import trustme

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import ConfigurationError, SourceConnectionError, SourceResponseError, SourceTimeout
from profile_enrich.sources.http import Headers, HttpRequest, Transport, TransportOptions
from profile_enrich.sources.http import failures as _failures
from profile_enrich.sources.http import proxies as _environment
from profile_enrich.sources.http.body_reader import BodyReader
from profile_enrich.testing import Exchange, Fault, VendorServer, faults

from .transport_fixtures import (
    Open,
    failure,
    make_no_proxies,
    make_own,
    make_server,
    make_transport,
    make_vendor,
    request,
)

pytestmark = pytest.mark.usefixtures("no_proxies")
# pytest finds them under their names here
fixtures = (make_no_proxies, make_own, make_server, make_transport, make_vendor)


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
    vendor.script(faults.Respond(200, gzip.compress(b"x" * 5000, mtime=0), {"Content-Encoding": "gzip"}))
    answer = await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    assert answer.body == b"x" * 5000


@pytest.mark.parametrize("fault", [faults.BigBody(1_000_000), faults.BigBody(1_000_000, declared=False)])
async def test_a_body_that_is_too_large_is_refused(transport: Transport, vendor: VendorServer, fault: Fault) -> None:
    vendor.script(fault)
    error = await failure(transport, vendor.origin + "/x")
    assert isinstance(error, SourceResponseError)
    assert "max_body_bytes" in str(error)
    assert (await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404


@pytest.mark.long
async def test_a_gzip_bomb_costs_no_memory(transport: Transport, vendor: VendorServer) -> None:
    bomb = gzip.compress(b"\0" * 30_000_000, mtime=0)
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
        ({"Content-Encoding": "gzip"}, b"this is not gzip", "is not one gzip stream"),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"y" * 3000, mtime=0)[:-9], "cut short"),
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
    assert 0.15 < time.monotonic() - began < 10


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
    assert time.monotonic() - began < 10
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


def test_bytes_after_the_end_of_a_gzip_stream_are_refused_before_they_are_kept() -> None:
    packed = gzip.compress(b"{}")
    headers = Headers([(b"content-encoding", b"gzip")])
    for chunks in ([packed + b"x"], [packed, b"x"], [packed, packed]):
        body = BodyReader(headers, 1_000)
        for chunk in chunks[:-1]:
            body.feed(chunk)
        with pytest.raises(SourceResponseError, match="not one gzip stream"):
            body.feed(chunks[-1])
    body = BodyReader(headers, 1_000)
    body.feed(packed)
    body.feed(b"")
    assert body.end() == b"{}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "shop.localhost"])
def test_no_proxy_stands_between_this_machine_and_itself(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert _environment.Proxies().of(f"http://{host}:8000/x") is None
    assert _environment.Proxies().of("http://127.0.0.1.example/x") == "http://proxy.example:3128"


# --- proxies ----------------------------------------------------------------------------------------------------------


async def test_proxies_come_from_the_environment(
    own: Open, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VendorServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        await own().send(request("http://profiles.invalid/a%2Fb?x=%2B"), deadline=Deadline(5))
        assert [call.target for call in proxy.calls] == ["http://profiles.invalid/a%2Fb?x=%2B"]

        # A source on this machine is asked directly, without NO_PROXY, too.
        assert (await own().send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404
        assert (proxy.call_count, vendor.call_count) == (1, 1)

        ignoring = own(options=TransportOptions(environment=False))
        with pytest.raises(SourceConnectionError):
            await ignoring.send(request("http://profiles.invalid/x"), deadline=Deadline(5))
        assert (proxy.call_count, vendor.call_count) == (1, 1)


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
