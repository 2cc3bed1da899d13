"""Each fault as a client sees it on the wire."""

from __future__ import annotations

import gzip
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass

import httpx
import pytest

from profile_enrich.testing import Exchange, VendorServer, faults

pytest_plugins = ["profile_enrich.testing.pytest_plugin"]

CENSUS = {"authorization": "Bearer secret"}


@pytest.fixture
def vendor(vendor_server: VendorServer) -> VendorServer:
    vendor_server.profiles["u1"] = {"name": "Ada" * 50}
    return vendor_server


def ask(vendor: VendorServer, key: str = "u1", timeout: float = 30.0) -> httpx.Response:
    url = f"{vendor.base_url}/entities/1/record?record_id={key}"
    return httpx.get(url, headers=CENSUS, timeout=timeout, trust_env=False, verify=False)


def raw(vendor: VendorServer) -> tuple[bytes, type[Exception] | None]:
    """Return all bytes of one response, and how the connection ended."""
    with socket.create_connection(("127.0.0.1", vendor.port), timeout=30) as sock:
        request = "GET /api/v1/entities/1/record?record_id=u1 HTTP/1.1\r\nauthorization: Bearer secret\r\n"
        sock.sendall(f"{request}connection: close\r\n\r\n".encode())
        got = b""
        try:
            while piece := sock.recv(1 << 20):
                got += piece
        except ConnectionResetError as error:
            return got, type(error)
        return got, None


def test_a_script_is_played_one_fault_a_request_then_all_is_well(vendor: VendorServer) -> None:
    vendor.script(faults.ServerError(), faults.Healthy(), faults.Unavailable())
    assert [ask(vendor).status_code for _ in range(5)] == [500, 200, 503, 200, 200]
    vendor.script(faults.Unauthorized(), then=faults.RateLimited())
    assert [ask(vendor).status_code for _ in range(3)] == [401, 429, 429]
    vendor.heal()
    assert ask(vendor).status_code == 200


def test_scripts_come_before_what_is_always_so_and_the_latest_always_counts(vendor: VendorServer) -> None:
    vendor.always(faults.ServerError())
    vendor.always(faults.Unavailable())
    vendor.script(faults.Unauthorized())
    vendor.script(faults.RateLimited())
    assert [ask(vendor).status_code for _ in range(3)] == [401, 429, 503]


def test_faults_can_be_for_some_requests_only(vendor: VendorServer) -> None:
    vendor.script(faults.ServerError(), match="/record")
    vendor.script(faults.Unavailable(), key="u2")
    vendor.always(faults.Respond(418), match=lambda call: call.headers.get("x-tea") == "1")
    listing = httpx.get(f"{vendor.base_url}/entities", headers=CENSUS)
    tea = httpx.get(f"{vendor.base_url}/entities", headers={**CENSUS, "x-tea": "1"})
    codes = [ask(vendor).status_code, ask(vendor).status_code, ask(vendor, "u2").status_code]
    assert (listing.status_code, tea.status_code, codes) == (200, 418, [500, 200, 503])


def test_latency_fixed_drawn_and_followed_by_a_fault(vendor: VendorServer) -> None:
    vendor.script(faults.Latency(0.05), faults.Latency(lambda rng: rng.uniform(0.05, 0.06), then=faults.ServerError()))
    began = time.monotonic()
    assert [ask(vendor).status_code, ask(vendor).status_code] == [200, 500]
    assert time.monotonic() - began >= 0.1


def test_the_same_seed_draws_the_same_latencies() -> None:
    def drawn(seed: int) -> list[float]:
        values: list[float] = []

        def draw(rng: random.Random) -> float:
            values.append(rng.random())
            return 0.0

        with VendorServer(seed=seed) as vendor:
            vendor.always(faults.Latency(draw))
            for _ in range(3):
                ask(vendor)
        return values

    assert drawn(7) == drawn(7) != drawn(8)


def test_hung_requests_are_answered_when_released(vendor: VendorServer) -> None:
    vendor.script(faults.Hang(), faults.Hang())
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(vendor).status_code)) for _ in range(2)]
    for thread in threads:
        thread.start()
    vendor.wait_for_calls(2, timeout=30)
    assert (vendor.in_flight, answers) == (2, [])
    vendor.release()
    for thread in threads:
        thread.join(30)
    assert answers == [200, 200]
    vendor.script(faults.Hang())
    with pytest.raises(httpx.ReadTimeout):
        ask(vendor, timeout=0.05)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (faults.Reset(), lambda got: got == b""),
        (faults.Reset("in_headers"), lambda got: got.startswith(b"HTTP/1.1 200") and b"\r\n\r\n" not in got),
        (faults.Reset("in_body"), lambda got: 0 < len(got.partition(b"\r\n\r\n")[2]) < 150),
    ],
)
def test_resets(vendor: VendorServer, fault: faults.Fault, seen: Callable[[bytes], bool]) -> None:
    vendor.always(fault)
    got, ended = raw(vendor)
    assert ended is ConnectionResetError
    assert seen(got)
    with pytest.raises(httpx.TransportError):
        ask(vendor)


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_a_truncated_body_ends_before_its_length(vendor: VendorServer, keep: float) -> None:
    vendor.always(faults.Truncated(keep))
    got, ended = raw(vendor)
    head, _, body = got.partition(b"\r\n\r\n")
    declared = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert ended is None
    assert len(body) == min(int(declared * keep), declared - 1)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(vendor)


@pytest.mark.parametrize(("part", "cut"), [("headers", 0), ("body", 100), ("both", 0)])
def test_a_slow_drip_never_stops_for_long_and_takes_long_in_all(vendor: VendorServer, part: str, cut: int) -> None:
    vendor.always(faults.SlowDrip(interval=0.002, size=20, part=part))  # type: ignore[arg-type]  # from the list above
    began = time.monotonic()
    assert ask(vendor).json()["data"]["id"] == "u1"
    assert time.monotonic() - began > 0.01
    vendor.always(faults.SlowDrip(interval=5, size=20, part=part))  # type: ignore[arg-type]  # from the list above
    with socket.create_connection(("127.0.0.1", vendor.port), timeout=30) as sock:
        sock.sendall(b"GET /api/v1/entities HTTP/1.1\r\nauthorization: Bearer secret\r\n\r\n")
        time.sleep(0.05)
        assert len(sock.recv(65536)) > cut


def test_garbage_and_wrong_types(vendor: VendorServer) -> None:
    vendor.script(faults.Garbage(), faults.Garbage(b"<html>", "text/html"), faults.WrongType(), faults.WrongType(None))
    broken = ask(vendor)
    assert broken.status_code == 200
    with pytest.raises(ValueError):
        broken.json()
    html = ask(vendor)
    assert (html.text, html.headers["content-type"]) == ("<html>", "text/html")
    assert ask(vendor).json() == ["not", "an", "object"]
    assert ask(vendor).json() is None


@pytest.mark.parametrize("declared", [True, False])
def test_a_big_body_is_as_big_as_it_says(vendor: VendorServer, declared: bool) -> None:
    vendor.always(faults.BigBody(1_000_000, declared=declared))
    answer = ask(vendor)
    assert len(answer.content) == 1_000_000
    assert len(answer.json()["data"]["id"]) > 900_000
    assert ("content-length" in answer.headers) is declared
    vendor.always(faults.BigBody(10))
    assert ask(vendor).json() == {"data": {"id": ""}}


def test_a_client_may_leave_in_the_middle_of_a_big_body(vendor: VendorServer) -> None:
    vendor.always(faults.BigBody())
    with httpx.stream("GET", f"{vendor.base_url}/entities", headers=CENSUS) as answer:
        assert int(answer.headers["content-length"]) == 50_000_000
        next(answer.iter_raw())
    vendor.wait_until_idle()


def test_a_gzip_bomb_unpacks_to_a_thousand_times_its_size(vendor: VendorServer) -> None:
    vendor.always(faults.GzipBomb(8 << 20))
    got, _ = raw(vendor)
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert len(body) * 500 < 8 << 20
    assert gzip.decompress(body) == b" " * (8 << 20)  # one member, whose checksum and length are right
    assert zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, 10) == b" " * 10


def test_redirects(vendor: VendorServer) -> None:
    vendor.script(faults.Redirect("http://127.0.0.1:1/away", 307), faults.Redirect())
    away = ask(vendor)
    assert (away.status_code, away.headers["location"]) == (307, "http://127.0.0.1:1/away")
    assert ask(vendor).headers["location"].startswith("/api/v1/entities/1/record?record_id=u1")


def test_retry_after(vendor: VendorServer) -> None:
    later = "Wed, 21 Oct 2037 07:28:00 GMT"
    vendor.script(faults.RateLimited(), faults.RateLimited(1.5), faults.RateLimited(later))
    assert [ask(vendor).headers.get("retry-after") for _ in range(3)] == [None, "1.5", later]
    vendor.script(faults.Unavailable(), faults.Unavailable(retry_after=2))
    assert [ask(vendor).headers.get("retry-after") for _ in range(2)] == [None, "2"]


@pytest.mark.parametrize("by", [10, -5, "-1", "12, 13"])
def test_wrong_content_lengths(vendor: VendorServer, by: int | str) -> None:
    vendor.always(faults.WrongContentLength(by))
    got, _ = raw(vendor)
    head, _, body = got.partition(b"\r\n\r\n")
    declared = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    assert declared.decode() == (by if isinstance(by, str) else str(len(body) + by))


def test_any_answer(vendor: VendorServer) -> None:
    vendor.script(
        faults.Respond(299, b"\x00", {"x-a": "1", "date": "never"}),
        faults.Respond(404, "nein"),
        faults.Respond(200, {"data": None}),
        faults.Respond(204),
        faults.Respond(799),
    )
    first, second, third, fourth = (ask(vendor) for _ in range(4))
    assert (first.status_code, first.content, first.headers["x-a"], first.headers["date"]) == (299, b"\0", "1", "never")
    assert (second.status_code, second.text) == (404, "nein")
    assert (third.json(), third.headers["content-type"]) == ({"data": None}, "application/json")
    assert (fourth.status_code, "content-length" in fourth.headers) == (204, False)
    assert raw(vendor)[0].startswith(b"HTTP/1.1 799 Unknown")


def test_a_fault_of_ones_own(vendor: VendorServer) -> None:
    @dataclass(frozen=True)
    class Teapot(faults.Fault):
        async def play(self, exchange: Exchange) -> None:
            exchange.close()
            await exchange.write(b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n")

    vendor.script(Teapot())
    assert ask(vendor).status_code == 418
    with pytest.raises(FrozenInstanceError):
        faults.RateLimited(1).retry_after = 2  # type: ignore[misc]  # that it is refused is the point


async def test_the_base_of_faults_is_not_a_fault() -> None:
    with pytest.raises(NotImplementedError, match="write `play`"):
        await faults.Fault().play(None)  # type: ignore[arg-type]  # it does not look at it
