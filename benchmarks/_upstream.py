"""A vendor that does nothing but answer: the same 1 KB record to every request, as fast as Python can."""

from __future__ import annotations

import asyncio
import sys

from ._child import say
from ._profiles import payload

BODY = b'{"data":' + payload("u1") + b"}"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        heads = self.buffer.split(b"\r\n\r\n")
        self.buffer = heads.pop()
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(ANSWER * len(heads))


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    say({"port": server.sockets[0].getsockname()[1]})
    await loop.run_in_executor(None, sys.stdin.read)  # the parent ends it


if __name__ == "__main__":
    asyncio.run(serve())
