"""Limits of connections without a key: memory, descriptors, time (P8)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from profile_enrich.server import ProfileAPI
from profile_enrich.server.process import connection_limits
from profile_enrich.server.process.connection_limits import ConnectionLimits, limited_protocol
from profile_enrich.server.process.sockets import bind, listen

from .helpers import api, bearer, build

LIMITS = ConnectionLimits(connections=6, health_connections=1, receive_timeout=1.0, write_timeout=1.0, idle_timeout=1)
RECORD = "/api/v1/entities/1/record?record_id=u1"


class Server:
    def __init__(self, app: ProfileAPI, limits: ConnectionLimits) -> None:
        self.listener = bind("127.0.0.1", 0)
        listen(self.listener)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.url = "http://{}:{}".format(*self.address)
        config = uvicorn.Config(
            app, http=limited_protocol(limits), log_level="critical", ws="none", lifespan="on", backlog=4,
            timeout_keep_alive=limits.idle_timeout, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[self.listener])))
        self.thread.start()

    def connect(self, data: bytes = b"") -> socket.socket:
        made = socket.create_connection(self.address, 20)
        made.settimeout(20)
        made.sendall(data)
        return made

    def get(self, path: str = "/healthz", **options: Any) -> int:
        with httpx.Client(trust_env=False, timeout=20) as client:
            return client.get(self.url + path, **options).status_code


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    app = api(build(tmp_path))
    running = Server(app, LIMITS)
    try:
        yield running
    finally:
        app.end_streams()
        running.server.should_exit = True
        running.thread.join(30)
        running.listener.close()


@pytest.mark.long
@pytest.mark.parametrize("earlier", [0, 1])
def test_P9_a_server_that_stops_answers_a_request_that_is_on_its_way(
    server: Server, monkeypatch: pytest.MonkeyPatch, earlier: int
) -> None:
    """P9: the first request of a new connection, and a later one of a connection that is kept alive."""
    monkeypatch.setattr(connection_limits, "_LAST_REQUEST", 3.0)
    server.server.config.timeout_graceful_shutdown = 30
    asking, idle = server.connect(), server.connect()
    until(lambda: len(server.server.server_state.connections) == 2)
    for connection in (asking, idle) * earlier:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        response = HTTPResponse(connection)
        response.begin()
        assert response.read()
        assert response.getheader("connection") != "close"
    protocols: list[Any] = list(server.server.server_state.connections)
    server.server.should_exit = True
    until(lambda: all(each._stopping for each in protocols))
    asking.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    with asking.makefile("rb") as answer:
        said = answer.read()  # to the end of the connection
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in said
    assert closed(idle)
    asking.close()
    idle.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def closed(connection: socket.socket, within: float = 20.0) -> bool:
    connection.settimeout(within)
    with contextlib.suppress(ConnectionError):
        while True:
            try:
                if not connection.recv(65536):
                    return True
            except TimeoutError:
                return False
    return True


def answer(server: Server, data: bytes, more: bytes = b"", times: int = 0) -> bytes:
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        for _ in range(times):
            connection.sendall(more)
        return connection.recv(200)
    return b"closed"


def test_P8_the_head_of_a_request_is_bounded(server: Server) -> None:
    head = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
    line = b"x-a: " + b"b" * 1000 + b"\r\n"
    for data, more, times in (
        (head, line, 60_000),  # 60 MB of header lines
        (b"GET /", b"a" * 65536, 3000),  # a URL of 200 MB
        (head + b"x-a: ", b"a" * 65536, 1000),  # one value
        (head + b"transfer-encoding: chunked\r\n\r\n0\r\n", line, 60_000),  # trailers
        (head + b"transfer-encoding: chunked\r\n\r\n", b"1;" + b"e" * 5000 + b"\r\na\r\n", 10_000),  # extensions
        (head + b"a:b\r\n" * 101 + b"\r\n", b"", 0),
        (head + b"x-a: " + b"b" * 33_000 + b"\r\n\r\n", b"", 0),  # in one piece
    ):
        began = time.monotonic()
        assert answer(server, data, more, times)[:13] in (b"HTTP/1.1 431 ", b"HTTP/1.1 200 ", b"closed")
        assert time.monotonic() - began < 20
    assert answer(server, head + b"x-a: " + b"b" * 33_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")
    assert answer(server, head + b"a:b\r\n" * 90 + b"\r\n").startswith(b"HTTP/1.1 200 ")
    assert answer(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert answer(server, head + b"Host: y\r\n\r\n").startswith(b"HTTP/1.1 400 ")  # ambiguous owner of the request
    assert server.get() == 200


@pytest.mark.long
def test_P8_a_request_must_arrive_in_time(server: Server) -> None:
    record = f"GET {RECORD} HTTP/1.1\r\nhost: x\r\n".encode()
    for data in (b"", b"GET / HT", record, b"POST /api/x/entities/1/records HTTP/1.1\r\ncontent-length: 99\r\n\r\n{"):
        with server.connect(data) as connection:
            assert closed(connection)
    with server.connect(record) as dripping:  # sending a byte occasionally does not extend the limit
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 30:
                dripping.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 20
    with server.connect(record + b"\r\n") as second:  # also a later request of a connection
        assert second.recv(200).startswith(b"HTTP/1.1 401")
        second.sendall(b"GET /")
        assert closed(second)


def test_P8_a_client_that_does_not_read_is_let_go(tmp_path: Path, server: Server) -> None:
    asked = f"GET /openapi.json HTTP/1.1\r\nhost: x\r\nauthorization: {bearer()['Authorization']}\r\n\r\n".encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(server.address)
    with connection:
        connection.sendall(asked * 400)
        deadline = time.monotonic() + 30
        while server.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.server.server_state.connections


def test_P8_idle_connections_lock_nobody_out(server: Server) -> None:
    idle = [server.connect() for _ in range(30)]
    partial = [server.connect(b"GET / HT") for _ in range(30)]
    assert server.get() == 200
    assert server.get(RECORD, headers=bearer()) == 200
    for connection in (*idle, *partial):
        connection.close()


@pytest.mark.long
def test_P8_health_checks_keep_a_place(server: Server) -> None:
    stream = f"GET /api/v1/entities/1/changes HTTP/1.1\r\nhost: x\r\nauthorization: {bearer()['Authorization']}\r\n\r\n"
    busy = [server.connect(stream.encode()) for _ in range(LIMITS.connections)]
    assert all(connection.recv(9) == b"HTTP/1.1 " for connection in busy)
    assert server.get() == 200
    with httpx.Client(trust_env=False) as client:
        full = client.get(server.url + RECORD, headers=bearer())
    assert (full.status_code, json.loads(full.content)["error"]["code"]) == (503, "unavailable")
    assert full.headers["retry-after"] == "5"
    health = [server.connect() for _ in range(3)]  # one free slot, not two
    assert sum(closed(connection, 0.9) for connection in health) >= 2
    for connection in (*busy, *health):
        connection.close()


def test_P8_limits_follow_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limits, wanted = [64, 64], []
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: wanted.append(new))
    assert connection_limits.ConnectionLimits.for_this_process().connections == 32
    assert not wanted
    limits[:] = [1024, 524_288]
    assert ConnectionLimits.for_this_process().connections == 2000
    assert wanted == [(4000, 524_288)]
    limits[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    assert ConnectionLimits.for_this_process().connections == 2000
