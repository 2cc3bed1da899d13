"""A client in a process of its own: an open loop (requests leave when they are due, latency counts from then) and a
closed one (as fast as answers come). Keep-alive connections to 127.0.0.1 only, as many as it was told, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections import deque
from functools import partial
from typing import Any

from ._child import say

TIMEOUT = 10.0
"""Seconds that are waited for the last answers."""


class Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, idle: deque[Connection]) -> None:
        self._idle = idle
        self._buffer = b""
        self.transport: Any = None
        self.waiting: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(0)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.find(b"content-length: ", 0, end)
        if at >= 0:
            whole = len(self._buffer) >= end + 4 + int(self._buffer[at + 16 : self._buffer.find(b"\r\n", at)])
        else:
            chunked = b"transfer-encoding: chunked" in self._buffer[:end]
            whole = self._buffer.endswith(b"\r\n0\r\n\r\n") if chunked else True
        if whole:
            status = int(self._buffer[9:12])
            self._buffer = b""
            self._idle.append(self)
            self._end(status)

    def _end(self, status: int) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(status)


async def connect(port: int, count: int) -> deque[Connection]:
    idle: deque[Connection] = deque()
    loop = asyncio.get_running_loop()
    for _ in range(count):
        _, connection = await loop.create_connection(lambda: Connection(idle), "127.0.0.1", port)
        idle.append(connection)
    return idle


async def open_loop(port: int, requests: list[bytes], rate: float, connections: int) -> dict[str, Any]:
    """Sends each request when it is due. Who finds no connection free waits for one, and that counts, too."""
    idle = await connect(port, connections)
    everyone = list(idle)
    latencies: list[float] = []
    failed = 0
    queue: deque[tuple[float, bytes]] = deque()
    started = time.perf_counter() + 0.05
    done = asyncio.Event()

    def answered(due: float, future: asyncio.Future[int]) -> None:
        nonlocal failed
        latencies.append((time.perf_counter() - due) * 1e3)
        failed += future.result() != 200
        send()
        if len(latencies) == len(requests):
            done.set()

    def send() -> None:
        while queue and idle:
            due, request = queue.popleft()
            idle.popleft().ask(request).add_done_callback(partial(answered, due))

    for number, request in enumerate(requests):
        due = started + number / rate
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        queue.append((due, request))
        send()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            await done.wait()
    for connection in everyone:
        connection.transport.abort()
    cut = statistics.quantiles(latencies, n=100)
    # Not each latency: a pipe that its reader has not emptied takes 64 KB, and uvloop leaves stdout non-blocking.
    percentiles = {"p50": cut[49], "p95": cut[94], "p99": cut[98], "max": max(latencies)}
    return {**percentiles, "failed": failed + len(requests) - len(latencies)}


async def closed_loop(port: int, requests: list[bytes], seconds: float, connections: int) -> dict[str, Any]:
    """Keeps each connection busy."""
    idle = await connect(port, connections)
    everyone = list(idle)
    end = time.perf_counter() + seconds
    answered = failed = 0
    began, cpu = time.perf_counter(), time.process_time()

    async def busy(connection: Connection, at: int) -> None:
        nonlocal answered, failed
        while time.perf_counter() < end:
            at = (at + 1) % len(requests)
            if await connection.ask(requests[at]) == 200:
                answered += 1
            else:
                failed += 1

    await asyncio.gather(*(busy(each, number * 101) for number, each in enumerate(everyone)))
    took = time.perf_counter() - began
    for connection in everyone:
        connection.transport.abort()
    return {"per_second": answered / took, "failed": failed, "cpu": (time.process_time() - cpu) / took}


def obey() -> None:
    run = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop

        run = uvloop.run
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        requests = [
            f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n{order['headers']}\r\n".encode()
            for target in order["targets"]
        ]
        if order["do"] == "open":
            say(run(open_loop(order["port"], requests, order["rate"], order["connections"])))
        else:
            say(run(closed_loop(order["port"], requests, order["seconds"], order["connections"])))


if __name__ == "__main__":
    obey()
