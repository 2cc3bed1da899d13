"""The pipelined connection that lookups share, against a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from profile_enrich.cache.shared.connection import Connections
from profile_enrich.cache.shared.replies import IncompleteReply, Refused, read_reply

pytest.importorskip("redis", reason="the extra is not installed: pip install 'profile-enrich[redis]'")


class Scripted:
    """A server that records commands, and replies only with what a test sends."""

    def __init__(self) -> None:
        self.commands: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self.connections = 0
        self.writer: asyncio.StreamWriter | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        data = b""
        while block := await reader.read(65536):
            data += block
            position = 0
            with contextlib.suppress(IncompleteReply):
                while position < len(data):
                    command, position = read_reply(data, position)
                    if command[0] == b"CLIENT":  # the handshake of `redis`
                        writer.write(b"+OK\r\n")
                    else:
                        self.commands.put_nowait(command)
            data = data[position:]
        writer.close()

    async def said(self) -> bytes:
        return (await self.commands.get())[0]

    def answer(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


@pytest.fixture
async def server() -> AsyncGenerator[tuple[Scripted, Any]]:
    scripted = Scripted()
    listener = await asyncio.start_server(scripted, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = Connections(f"redis://127.0.0.1:{port}/0", cluster=False, timeout=5.0, options={}).open(5.0)
    yield scripted, client
    await client.aclose()
    listener.close()
    await listener.wait_closed()


async def test_S2_the_answer_to_a_command_that_was_given_up_is_nobodys(server: tuple[Scripted, Any]) -> None:
    scripted, client = server
    first = asyncio.create_task(client.run("ONE"))
    assert await scripted.said() == b"ONE"
    second = asyncio.create_task(client.run("TWO"))
    assert await scripted.said() == b"TWO"
    first.cancel()
    scripted.answer(b"$1\r\n1\r\n$1\r\n2\r\n")
    assert await second == b"2"
    assert (first.cancelled(), scripted.connections) == (True, 1)


async def test_S2_answers_may_arrive_in_pieces(server: tuple[Scripted, Any]) -> None:
    scripted, client = server
    commands = [asyncio.create_task(client.run(word)) for word in ("ONE", "TWO", "THREE")]
    for _ in commands:
        await scripted.said()
    for byte in b"*2\r\n$3\r\na\r\n\r\n$-1\r\n:-7\r\n+OK\r\n":
        scripted.answer(bytes([byte]))
        await asyncio.sleep(0)
    assert await asyncio.gather(*commands) == [[b"a\r\n", None], -7, b"OK"]


@pytest.mark.parametrize("data", [b":1\r\n:2\r\n", b"HTTP/1.1 400 Bad Request\r\n"], ids=["one too many", "no answer"])
async def test_S2_what_no_command_asked_for_ends_the_connection(server: tuple[Scripted, Any], data: bytes) -> None:
    scripted, client = server
    with contextlib.suppress(ConnectionError):
        command = asyncio.create_task(client.run("ONE"))
        await scripted.said()
        scripted.answer(data)
        assert await command == 1
    command = asyncio.create_task(client.run("TWO"))
    await scripted.said()
    scripted.answer(b":3\r\n")
    assert (await command, scripted.connections) == (3, 2)


async def test_S2_a_refusal_is_of_its_command_alone(server: tuple[Scripted, Any]) -> None:
    scripted, client = server
    commands = [asyncio.create_task(client.run(word)) for word in ("ONE", "TWO")]
    for _ in commands:
        await scripted.said()
    scripted.answer(b"-ERR not known\r\n:2\r\n")
    refused, two = await asyncio.gather(*commands, return_exceptions=True)
    assert (type(refused), two, scripted.connections) == (Refused, 2, 1)


async def test_S2_a_server_that_has_become_a_replica_is_left(server: tuple[Scripted, Any]) -> None:
    """S2: after a failover, the name may resolve to another server, which an open connection cannot notice."""
    scripted, client = server
    command = asyncio.create_task(client.run("ONE"))
    await scripted.said()
    scripted.answer(b"-READONLY You can't write against a read only replica.\r\n")
    with pytest.raises(Refused, match="READONLY"):
        await command
    command = asyncio.create_task(client.run("TWO"))
    await scripted.said()
    scripted.answer(b":2\r\n")
    assert (await command, scripted.connections) == (2, 2)


async def test_S2_a_command_without_an_answer_ends_the_connection_and_all_that_wait(
    server: tuple[Scripted, Any],
) -> None:
    scripted, client = server
    slow = asyncio.create_task(client.run("ONE"))
    await scripted.said()
    connection = client._connection
    later = asyncio.create_task(client.run("TWO"))
    await scripted.said()
    connection._expire(connection._pending[0])  # what its timer does
    answers = await asyncio.gather(slow, later, return_exceptions=True)
    assert [type(each) for each in answers] == [TimeoutError, ConnectionError]
    command = asyncio.create_task(client.run("THREE"))
    await scripted.said()
    scripted.answer(b":3\r\n")
    assert (await command, scripted.connections) == (3, 2)
