"""An open-loop client in a process of its own: requests leave when they are due, whether earlier ones are back or not.

A latency counts from when the request was due. So many requests are made and no more, to 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from ._child import say

CONNECTIONS = 400
"""At most, so that a stuck server cannot use up this process's sockets; who finds none free has failed."""


class Visitor:
    """Keep-alive connections to one port."""

    def __init__(self, port: int, retry_timeout: float) -> None:
        self._port = port
        self._retry_timeout = retry_timeout
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open = 0

    async def get(self, target: str, user: str) -> bool:
        """Whether a whole 200 came in time."""
        connection = None
        try:
            async with asyncio.timeout(self._retry_timeout):
                connection = await self._connection()
                if connection is None:
                    return False
                reader, writer = connection
                writer.write(f"GET {target} HTTP/1.1\r\nhost: shop.test\r\nx-user: {user}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            if connection is not None:
                self._open -= 1
                connection[1].transport.abort()
            return False
        self._idle.append(connection)
        return head.startswith(b"HTTP/1.1 200")

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        if self._idle:
            return self._idle.pop()
        if self._open >= CONNECTIONS:
            return None
        self._open += 1
        try:
            return await asyncio.open_connection("127.0.0.1", self._port)
        except BaseException:
            self._open -= 1
            raise

    def close(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()


async def visit(port: int, users: list[str], rate: float, retry_timeout: float) -> dict[str, list[float]]:
    """Visits the page once for each user.

    Returns:
        Milliseconds of each visit in order, and which of them failed (as 1.0). A failed one took as long as it took
        to give up.
    """
    visitor = Visitor(port, retry_timeout)
    latencies, failures = [0.0] * len(users), [0.0] * len(users)
    started = time.perf_counter() + 0.05

    async def one(number: int, due: float) -> None:
        good = await visitor.get("/", users[number])
        latencies[number] = (time.perf_counter() - due) * 1e3
        failures[number] = 0.0 if good else 1.0

    async with asyncio.TaskGroup() as group:
        for number in range(len(users)):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(number, due))
    visitor.close()
    return {"ms": latencies, "failed": failures}


def crowd(regulars: int, visits: int, newcomers: float, seed: int) -> list[str]:
    """Who visits: some regulars again and again, and people who were never seen before."""
    rng = random.Random(seed)
    return [
        f"new{number}" if rng.random() < newcomers else f"regular{rng.randrange(regulars)}" for number in range(visits)
    ]


def obey() -> None:
    say({"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        regulars = command["regulars"]
        if command["do"] == "warm":
            users = [f"regular{number}" for number in range(regulars)]
        else:
            users = crowd(regulars, command["visits"], command["newcomers"], seed=1)
        say(asyncio.run(visit(command["port"], users, command["rate"], command["retry_timeout"])))


if __name__ == "__main__":
    obey()
