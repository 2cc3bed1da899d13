"""A vendor 5 ms away: answers each Census lookup with a small record of its own, and counts."""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import unquote

DELAY = 0.005


class Upstream(asyncio.Protocol):
    calls = 0
    in_flight = 0
    most = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        *heads, self.buffer = self.buffer.split(b"\r\n\r\n")
        for head in heads:
            Upstream.calls += 1
            Upstream.in_flight += 1
            Upstream.most = max(Upstream.most, Upstream.in_flight)
            asyncio.get_running_loop().call_later(DELAY, self._answer, head)

    def _answer(self, head: bytes) -> None:
        Upstream.in_flight -= 1
        key = unquote(head.split(b" ", 2)[1].partition(b"record_id=")[2].decode())
        body = json.dumps({"data": {"id": key, "tier": "gold", "score": len(key), "city": "Springfield"}}).encode()
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        assert isinstance(self.transport, asyncio.Transport)
        if not self.transport.is_closing():
            self.transport.write(answer + body)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    _say({"port": server.sockets[0].getsockname()[1]})
    while await loop.run_in_executor(None, sys.stdin.readline):  # each line: how many since the last one
        _say({"calls": Upstream.calls, "most": Upstream.most})
        Upstream.calls = Upstream.most = 0


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
