"""A vendor that answers well, and late: the same 1 KB record after 5 ms, from a process of its own, with a count."""

from __future__ import annotations

import asyncio
import json
import sys

from ._child import say
from ._upstream import ANSWER


class Vendor:
    """What the connections share."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.every = 0
        self.slow = 0.5
        self.calls = 0
        self.now = 0
        self.most = 0

    def delay(self) -> float:
        self.calls += 1
        return self.slow if self.every and self.calls % self.every == 0 else self.seconds


class Late(asyncio.Protocol):
    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        heads = self.buffer.split(b"\r\n\r\n")
        self.buffer = heads.pop()
        loop = asyncio.get_running_loop()
        vendor = self.vendor
        for _ in heads:
            vendor.now += 1
            vendor.most = max(vendor.most, vendor.now)
            loop.call_later(vendor.delay(), self.answer)

    def answer(self) -> None:
        self.vendor.now -= 1
        self.transport.write(ANSWER)


async def serve(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    vendor = Vendor(seconds)
    server = await loop.create_server(lambda: Late(vendor), "127.0.0.1", 0, backlog=1024)
    say({"port": server.sockets[0].getsockname()[1]})
    while line := await loop.run_in_executor(None, sys.stdin.readline):  # the parent ends it
        told = json.loads(line)
        say({"calls": vendor.calls, "most": vendor.most})
        vendor.calls = vendor.most = 0
        vendor.every = told["every"]


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
