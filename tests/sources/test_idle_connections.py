"""A connection that the server closes while it is idle is not a failure of the source."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import NoReturn

import pytest

from profile_enrich import CensusSource, ProfileClient, RetryPolicy, SourceConnectionError, SourcePolicy
from profile_enrich._utils.deadline import Deadline
from profile_enrich.sources.http import HttpRequest, Transport, TransportOptions, aiohttp_transport, open_transport
from tests.sources.transport_fixtures import Open, make_own, make_transport, request

__all__ = ["make_own", "make_transport"]  # fixtures

BODY = b'{"data": {"id": "u1"}}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class ClosingServer:
    """Answers the first requests of a connection and closes it, unanswered, when one more arrives.

    That is what a keep-alive timeout looks like that runs out while a request is under way.
    """

    def __init__(self, answered: int) -> None:
        self.answered = answered
        self.connections = 0
        self.requests = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            for served in range(self.answered + 1):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0"
                )
                await reader.readexactly(int(length.partition(b":")[2]))
                self.requests += 1
                if served == self.answered:
                    break
                writer.write(ANSWER)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def closing_server(answered: int) -> AsyncGenerator[ClosingServer]:
    server = ClosingServer(answered)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    with contextlib.closing(listening):  # without waiting for connections that the client keeps, as 3.12 and later do
        yield server


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_A27_a_request_on_a_connection_that_was_closed_while_idle_is_sent_again(
    transport: Transport, method: str
) -> None:
    """A27: a connection closed while idle never counts against the source."""
    if method == "POST" and transport.name == "aiohttp" and type(transport).__name__ == "HandedInAiohttp":
        pytest.skip("a session that was handed in repeats by aiohttp's own rules, which leave POST out")
    async with closing_server(1) as server:
        for count in range(1, 6):
            body = b"{}" if method == "POST" else None
            response = await transport.send(
                HttpRequest(method, f"{server.url}/{count}", dict(request(server.url).headers), body),
                deadline=Deadline(5.0),
            )
            assert response.body == BODY
        assert server.connections >= 3


async def test_A27_many_idle_connections_that_close_at_once_are_no_failure(transport: Transport) -> None:
    """A27: the repeated request does not use another closed connection."""
    if type(transport).__name__.startswith("HandedIn"):
        pytest.skip("a client that was handed in opens connections by its own rules")
    async with closing_server(1) as server:

        async def ask() -> bytes:
            return (await transport.send(request(server.url), deadline=Deadline(10.0))).body

        assert await asyncio.gather(*(ask() for _ in range(12))) == [BODY] * 12
        assert await asyncio.gather(*(ask() for _ in range(12))) == [BODY] * 12


async def test_A27_a_new_connection_that_is_closed_is_a_failure(own: Open) -> None:
    """A27: only idle connections are exempt."""
    transport = own()
    async with closing_server(0) as server:
        with pytest.raises(SourceConnectionError, match="closed the connection before it answered"):
            await transport.send(request(server.url), deadline=Deadline(5.0))
        most = 2 if transport.name == "aiohttp" else 1  # aiohttp repeats an idempotent request once by itself
        assert server.requests <= most


@pytest.mark.parametrize("name", ["aiohttp", "httpx2", "httpx"])
async def test_A27_without_retries_no_lookup_fails_behind_a_server_that_closes_idle_connections(name: str) -> None:
    """A27: the repetition does not count for the retry budget or the circuit breaker."""
    async with closing_server(1) as server:
        source = CensusSource("key", entity=1, base_url=server.url, transport=name)  # type: ignore[arg-type]
        policy = SourcePolicy(retry=RetryPolicy(1))
        async with ProfileClient(source, source_policy=policy) as client:
            for number in range(30):
                assert (await client.lookup(f"u{number}")).found
            stats = client.stats()
    assert (stats.source_errors, stats.breaker, stats.source_calls) == ({}, "closed", 30)


async def test_A27_aiohttp_repeats_nothing_without_a_closed_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A27: a transport that is closed under a request and a name that is not resolved are failures at once."""

    def repeat(session: object) -> NoReturn:
        raise AssertionError("the request is repeated")

    monkeypatch.setattr(aiohttp_transport._Session, "fresh", repeat)
    transport = open_transport("aiohttp", options=TransportOptions(), max_body_bytes=1000)
    asked = asyncio.Event()

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    with contextlib.closing(listening):
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        assert (await transport.send(request(url), deadline=Deadline(30.0))).body == BODY
        post = HttpRequest("POST", url, {}, b"{}")  # aiohttp does not repeat it by itself
        call = asyncio.create_task(transport.send(post, deadline=Deadline(30.0)))
        await asked.wait()
        await transport.aclose()
        with pytest.raises(SourceConnectionError):
            await call

    def unresolved(*args: object, **kwargs: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    with pytest.raises(SourceConnectionError, match="was not resolved"):
        await transport.send(request("http://source.example"), deadline=Deadline(30.0))
    await transport.aclose()
