"""`VendorServer` without faults, its recorder, and its shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.testing import ManualClock, VendorServer, faults

pytest_plugins = ["profile_enrich.testing.pytest_plugin"]

CENSUS = {"authorization": "Bearer secret"}
AMPERITY = {**CENSUS, "amperity-tenant": "acme", "api-version": "2025-07-31"}


def get(url: str, headers: dict[str, str] = CENSUS, **options: Any) -> httpx.Response:
    return httpx.get(url, headers=headers, trust_env=False, verify=False, **options)


# --- Census -----------------------------------------------------------------------------------------------------------


def test_census_lists_entities_and_answers_records(vendor_server: VendorServer) -> None:
    vendor_server.profiles["u1"] = {"tier": "gold", "visits": 3, "tags": ["a"]}
    extra = vendor_server.add_collection("Accounts", {"a1": {"plan": "pro"}})
    base = vendor_server.base_url
    listed = get(f"{base}/entities/").json()["data"]
    assert [(entry["id"], entry["name"]) for entry in listed] == [(1, "Users"), (extra.number, "Accounts")]
    assert vendor_server.entity_id == 1
    found = get(f"{base}/entities/1/record?record_id=u1")
    assert found.json() == {"data": {"id": "u1", "tier": "gold", "visits": 3, "tags": ["a"]}}
    assert get(f"{base}/entities/2/record?record_id=a1").json()["data"]["plan"] == "pro"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/entities/1/record?record_id=nobody", 404, "not_found"),
        ("/entities/9/record?record_id=u1", 404, "not_found"),
        ("/entities/1/record", 400, "bad_request"),
        ("/entities/1/record?record_id=", 400, "bad_request"),
        ("/entities/1/record?record_id=a&record_id=b", 400, "bad_request"),
        ("/nothing", 404, "not_found"),
    ],
)
def test_census_errors(vendor_server: VendorServer, path: str, status: int, code: str) -> None:
    answer = get(vendor_server.base_url + path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_census_takes_both_spellings_of_the_key_header_and_refuses_the_rest(vendor_server: VendorServer) -> None:
    url = f"{vendor_server.base_url}/entities"
    assert get(url, {"Authentication": "bearer secret"}).status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        assert get(url, headers).status_code == 401
    assert httpx.post(url, headers=CENSUS).status_code == 405
    with VendorServer(key=None) as open_to_all:
        assert get(f"{open_to_all.base_url}/entities", {}).status_code == 200
        assert get(f"{open_to_all.amperity_url}/indexes", {**AMPERITY, "authorization": ""}).status_code == 200


# --- Amperity ---------------------------------------------------------------------------------------------------------


def test_amperity_indexes_profiles_filters_and_pages() -> None:
    people: dict[str, dict[str, object]] = {
        f"p{n}": {"tier": "gold" if n % 2 else "silver", "n": n, "none": None} for n in range(60)
    }
    with VendorServer(people, entity="loyalty") as vendor:
        indexes = get(f"{vendor.amperity_url}/indexes?with_total=true", AMPERITY).json()
        assert (indexes["total"], indexes["data"][0]["name"]) == (1, "loyalty")
        index = f"{vendor.amperity_url}/indexes/{vendor.index_id}"
        assert get(index, AMPERITY).json()["id"] == vendor.index_id
        one = get(f"{index}/profiles/p3", AMPERITY).json()
        assert one == {"id": "p3", "index_id": vendor.index_id, "attributes": {"tier": "gold", "n": "3"}}
        seen: list[str] = []
        params: dict[str, str] = {"filter[tier]": "gold", "limit": "7", "with_total": "true"}
        while True:
            page = get(f"{index}/profiles", AMPERITY, params=params).json()
            assert page["total"] == 30
            seen += [row["id"] for row in page["data"]]
            if "next_token" not in page:
                break
            params["next_token"] = page["next_token"]
        assert seen == [f"p{n}" for n in range(1, 60, 2)]
        both = get(f"{index}/profiles", AMPERITY, params={"filter[tier]": "gold", "filter[n]": "5"}).json()
        assert [row["id"] for row in both["data"]] == ["p5"]
        assert len(get(f"{index}/profiles", AMPERITY).json()["data"]) == 25


def test_amperity_refuses_what_it_documents_as_errors() -> None:
    with VendorServer({"p": {"tier": "gold"}}) as vendor:
        limited = vendor.add_collection("few", {"q": {"tier": "gold"}}, filterable=["email"])
        index = f"{vendor.amperity_url}/indexes/{vendor.index_id}"
        token = get(f"{vendor.amperity_url}/indexes?limit=1", AMPERITY).json()["next_token"]
        for path, status in {
            f"{index}/profiles/nobody": 404,
            f"{index}/elsewhere": 404,
            f"{vendor.amperity_url}/indexes/idx-none": 404,
            f"{vendor.amperity_url}/none": 404,
            f"{vendor.origin}/elsewhere": 404,
            f"{vendor.origin}/%ff": 400,
            f"{index}/profiles?limit=0": 400,
            f"{index}/profiles?limit=x": 400,
            f"{index}/profiles?with_total=maybe": 400,
            f"{index}/profiles?next_token={token}": 400,
            f"{index}/profiles?next_token=*": 400,
            f"{index}/profiles?filter[nothing]=x": 400,
            f"{vendor.amperity_url}/indexes/{limited.index_id}/profiles?filter[tier]=gold": 400,
        }.items():
            answer = get(path, AMPERITY)
            assert answer.status_code == status, path
            assert answer.json()["status"] == status
            assert answer.json()["request_id"]
        url = f"{vendor.amperity_url}/indexes"
        assert get(url, {**AMPERITY, "authorization": "Bearer no"}).status_code == 401
        assert get(url, {**AMPERITY, "amperity-tenant": "other"}).status_code == 403
        assert get(url, {**AMPERITY, "api-version": "1999-01-01"}).status_code == 400
        assert get(f"{url}?api_version=2025-07-31", {**CENSUS, "amperity-tenant": "acme"}).status_code == 200
        assert httpx.delete(url, headers=AMPERITY).status_code == 405


def test_amperity_tokens_are_issued_expire_and_can_be_revoked(profile_clock: ManualClock) -> None:
    with VendorServer(clock=profile_clock, token_ttl=60, token_field="jwt") as vendor:
        tenant = {"x-amperity-tenant": "acme"}
        form = {"grant_type": "client_credentials", "client_id": "client", "client_secret": "client-secret"}
        answer = httpx.post(vendor.token_url, data=form, headers=tenant)
        assert answer.json()["expires_in"] == 60
        token = answer.json()["access_token"]
        assert token.count(".") == 2
        url = f"{vendor.amperity_url}/indexes"
        assert get(url, {**AMPERITY, "authorization": f"Bearer {token}"}).status_code == 200
        profile_clock.advance(61)
        assert get(url, {**AMPERITY, "authorization": f"Bearer {token}"}).status_code == 401

        keys = f"{vendor.origin}/api/v0/admin/api-keys/key-1/tokens"
        issuer = {**tenant, "authorization": "Bearer issuer"}
        later = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        issued = httpx.post(keys, headers=issuer, json={"expires-at": later}).json()
        assert datetime.fromisoformat(issued["expires-at"]) > datetime.now(UTC)
        bearer = {**AMPERITY, "authorization": f"Bearer {issued['jwt']}"}
        assert get(url, bearer).status_code == 200
        assert vendor.tokens_issued == 2
        vendor.expire_tokens()
        assert get(url, bearer).status_code == 401

        assert httpx.post(vendor.token_url, data={**form, "client_secret": "x"}, headers=tenant).status_code == 401
        assert httpx.post(vendor.token_url, data={"grant_type": "password"}, headers=tenant).status_code == 400
        assert httpx.post(vendor.token_url, data=form).status_code == 403
        assert get(vendor.token_url, tenant).status_code == 405
        assert httpx.post(f"{vendor.origin}/api/v0/elsewhere", headers=tenant).status_code == 404
        assert httpx.post(keys, headers=tenant, json={"expires-at": later}).status_code == 401
        for bad in ({}, {"expires-at": "soon"}, {"expires-at": "2020-06-16T00:24:16Z"}, {"expires-at": "2099-01-01"}):
            assert httpx.post(keys, headers=issuer, json=bad).status_code == 400


# --- the wire ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=30))
def test_any_text_is_an_id_when_it_is_percent_encoded(id: str) -> None:
    vendor = _shared()
    vendor.profiles[id] = {"found": True}
    try:
        answer = get(f"{vendor.base_url}/entities/1/record", params={"record_id": id})
        assert answer.json()["data"] == {"id": id, "found": True}
        assert vendor.calls[-1].key == id
    finally:
        del vendor.profiles[id]


_running: list[VendorServer] = []


def _shared() -> VendorServer:
    return _running[0]


@pytest.fixture(autouse=True, scope="module")
def _one_server_for_all_examples() -> Any:
    with VendorServer() as vendor:
        _running.append(vendor)
        yield
    _running.clear()


def test_calls_are_recorded_as_they_came(vendor_server: VendorServer) -> None:
    with httpx.Client(trust_env=False) as client:
        client.get(f"{vendor_server.base_url}/entities/1/record?record_id=a%2Fb&x=&x=2", headers=CENSUS)
        client.post(f"{vendor_server.base_url}/entities/%C3%A9", content=b"body", headers=[("x-a", "1"), ("x-a", "2")])
        client.post(f"{vendor_server.base_url}/entities", content=iter([b"chu", b"nks"]))
        client.get(f"{vendor_server.amperity_url}/indexes/i/profiles/c%2Fl")
        client.get(f"{vendor_server.amperity_url}/indexes/i/profiles?filter%5Bemail%5D=x%2By")
    first, second, third, fourth, fifth = vendor_server.calls
    assert first.target == "/api/v1/entities/1/record?record_id=a%2Fb&x=&x=2"
    assert first.query == [("record_id", "a/b"), ("x", ""), ("x", "2")]
    assert (first.key, first.method, first.raw_path) == ("a/b", "GET", "/api/v1/entities/1/record")
    assert first.headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(first)
    assert (second.path, second.body, second.headers["x-a"]) == ("/api/v1/entities/é", b"body", "1, 2")
    assert second.key is None
    assert third.body == b"chunks"
    assert (fourth.key, fifth.key) == ("c/l", "x+y")
    assert {call.connection for call in vendor_server.calls} == {1}
    assert vendor_server.connections == 1  # kept alive
    assert first.at <= fifth.at <= time.monotonic()
    vendor_server.reset_calls()
    assert (vendor_server.call_count, vendor_server.calls) == (0, [])


def test_head_close_and_http_1_0(vendor_server: VendorServer) -> None:
    url = f"{vendor_server.base_url}/entities"
    head = httpx.head(url, headers=CENSUS)
    assert head.content == b""
    assert int(head.headers["content-length"]) == len(get(url).content)
    assert get(url, {**CENSUS, "connection": "close"}).headers["connection"] == "close"
    assert _raw(vendor_server, b"GET /api/v1/entities HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 401 Unauthorized")


def _raw(vendor: VendorServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", vendor.port), timeout=5) as sock:
        sock.sendall(data)
        got = b""
        while piece := sock.recv(65536):
            got += piece
        return got


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"G-T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nspace : x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_request_that_cannot_be_read_is_refused(vendor_server: VendorServer, data: bytes) -> None:
    assert _raw(vendor_server, data).startswith(b"HTTP/1.1 400")
    assert vendor_server.call_count == 0


def test_a_chunked_request_may_have_trailers(vendor_server: VendorServer) -> None:
    data = (
        b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3;ext\r\nabc\r\n0\r\nx: y\r\n\r\n"
    )
    assert b"404" in _raw(vendor_server, data)
    assert vendor_server.calls[0].body == b"abc"


def test_etags_extra_headers_and_the_clock_skew() -> None:
    with VendorServer({"u": {"a": 1}}, etags=True, clock_skew=3600) as vendor:
        vendor.headers["Cache-Control"] = "max-age=7"
        url = f"{vendor.base_url}/entities/1/record?record_id=u"
        first = get(url)
        assert first.headers["cache-control"] == "max-age=7"
        ahead = parsedate_to_datetime(first.headers["date"]).timestamp() - time.time()
        assert 3590 < ahead < 3610
        again = get(url, {**CENSUS, "if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        vendor.profiles["u"] = {"a": 2}
        assert get(url, {**CENSUS, "if-none-match": first.headers["etag"]}).status_code == 200


def test_https(tmp_path: Any) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with VendorServer(tls=context) as vendor:
        assert vendor.base_url.startswith("https://127.0.0.1:")
        with httpx.Client(verify=trusting, trust_env=False) as client:
            assert client.get(f"{vendor.base_url}/entities", headers=CENSUS).status_code == 200
            vendor.script(faults.Reset())
            with pytest.raises(httpx.TransportError):
                client.get(f"{vendor.base_url}/entities", headers=CENSUS)


# --- life -------------------------------------------------------------------------------------------------------------


async def test_it_is_an_asynchronous_context_manager_too() -> None:
    async with VendorServer({"u": {"a": 1}}) as vendor, httpx.AsyncClient(trust_env=False) as client:
        url = f"{vendor.base_url}/entities/1/record?record_id=u"
        vendor.always(faults.Latency(0.05))
        answers = await asyncio.gather(*(client.get(url, headers=CENSUS) for _ in range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        assert vendor.max_in_flight == 8
        await vendor.calls_reached(8)
        with pytest.raises(TimeoutError, match="8 of 9"):
            await vendor.calls_reached(9, within=0.01)


def test_it_starts_and_stops_again_and_says_when_it_does_not_run() -> None:
    vendor = VendorServer()
    with pytest.raises(RuntimeError, match="not running"):
        _ = vendor.base_url
    vendor.release()  # nothing is running, so nothing hangs
    vendor.close()
    with vendor:
        with pytest.raises(RuntimeError, match="runs already"):
            vendor.start()
        assert "127.0.0.1" in repr(vendor)
        first = vendor.port
    assert "stopped" in repr(vendor)
    with vendor:
        assert get(f"{vendor.base_url}/entities").status_code == 200
        assert vendor.port == first  # a restarted vendor has the same address
    vendor.close()


def test_an_address_that_cannot_be_listened_on_is_an_error_of_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> int:
        raise OSError("no sockets today")

    monkeypatch.setattr("profile_enrich.testing.vendor.serve_connection", refuse)
    vendor = VendorServer()
    with pytest.raises(OSError, match="no sockets today"):
        vendor.start()
    assert "stopped" in repr(vendor)


@pytest.mark.long
def test_L14_closing_while_connections_come_in_leaves_no_socket() -> None:
    """L14: a connection that was accepted at the very moment of the end is closed, too."""
    over = threading.Event()
    with VendorServer() as vendor:
        port = vendor.port

        def knock() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2) as visitor:
                    visitor.sendall(b"GET /api/v1/entities HTTP/1.1\r\n\r\n")

        knockers = [threading.Thread(target=knock) for _ in range(4)]
        for knocker in knockers:
            knocker.start()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(10):
                    vendor.close()
                    gc.collect()
                    restart(vendor)
        finally:
            over.set()
            for knocker in knockers:
                knocker.join()
    assert [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)] == []


def restart(vendor: VendorServer) -> None:
    """A connection attempt may hold the port for a moment."""
    for _ in range(500):
        with contextlib.suppress(OSError):
            vendor.start()
            return
        time.sleep(0.01)
    pytest.fail("the port was not free again")


@pytest.mark.long
def test_L14_closing_with_hung_requests_leaves_no_thread_socket_or_task() -> None:
    """L14: also with requests that hang, idle kept-alive connections and half-read requests."""
    threads = threading.active_count()
    files = _open_files()
    with VendorServer() as vendor:
        vendor.always(faults.Hang(), match="hang")
        socks = [socket.create_connection(("127.0.0.1", vendor.port)) for _ in range(20)]
        for n, sock in enumerate(socks):
            sock.sendall([b"GET /hang HTTP/1.1\r\n\r\n", b"GET /ok HTTP/1.1\r\n\r\n", b"GET /half HT"][n % 3])
        vendor.wait_for_calls(14, timeout=30)
        assert vendor.in_flight >= 7
        began = time.monotonic()
    assert time.monotonic() - began < 20
    for sock in socks:
        sock.settimeout(5)
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
        sock.close()
    assert vendor.in_flight == 0
    assert vendor.open_connections == 0
    assert threading.active_count() == threads
    gc.collect()  # a leaked transport or socket warns here, and a warning is an error
    assert _open_files() <= files


def _open_files() -> int:
    directory = Path("/proc/self/fd")
    return len(list(directory.iterdir())) if directory.is_dir() else 0


def test_a_client_that_gives_up_ends_its_request(vendor_server: VendorServer) -> None:
    vendor_server.always(faults.Hang())
    with pytest.raises(httpx.ReadTimeout):
        get(f"{vendor_server.base_url}/entities", timeout=0.05)
    vendor_server.wait_until_idle()
    assert vendor_server.call_count == 1


def test_waiting_ends(vendor_server: VendorServer) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 calls"):
        vendor_server.wait_for_calls(1, timeout=0.01)
    vendor_server.always(faults.Hang())
    with socket.create_connection(("127.0.0.1", vendor_server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        vendor_server.wait_for_calls(1, timeout=30)
        with pytest.raises(TimeoutError, match="1 calls are still in flight"):
            vendor_server.wait_until_idle(timeout=0.01)
