"""One request and response of the vendor server."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

from .recorder import Call

__all__ = ["Answer", "Exchange", "json_answer"]

_NO_BODY = {204, 304}


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response.

    Args:
        status: the HTTP status.
        body: the body.
        headers: the headers, without `date`, `content-length` and `connection`, which the server adds.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def json_answer(status: int, data: object, **headers: str) -> Answer:
    """Return a JSON response; underscores in header names become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, body, {"content-type": "application/json", **named})


class Exchange:
    """The input of a fault: the request, its healthy response, and the raw connection.

    Attributes:
        call: the request.
        random: a seeded generator, shared by all exchanges of the server.
    """

    def __init__(
        self,
        call: Call,
        writer: asyncio.StreamWriter,
        *,
        healthy: Callable[[], Answer],
        rng: random.Random,
        released: Callable[[], Awaitable[None]],
        keep_alive: bool,
        clock_skew: float,
    ) -> None:
        self.call = call
        self.random = rng
        self._writer = writer
        self._healthy = healthy
        self._released = released
        self._clock_skew = clock_skew
        self.keep_alive = keep_alive
        """Whether the connection stays open after the response; `close()` and `reset()` end it."""

    def healthy(self) -> Answer:
        """The response without the fault."""
        return self._healthy()

    async def hold(self) -> None:
        """Wait until the server's `release()`."""
        await self._released()

    def head(self, answer: Answer, *, length: int | None = None) -> bytes:
        """Return the status line and headers, including the blank line.

        Args:
            answer: the response, whose body determines the length.
            length: another length to declare; a negative one omits `content-length`.
        """
        given = {name.lower(): (name, value) for name, value in answer.headers.items()}
        declared = len(answer.body) if length is None else length
        if declared >= 0 and answer.status not in _NO_BODY:
            given.setdefault("content-length", ("Content-Length", str(declared)))
        given.setdefault("date", ("Date", formatdate(time.time() + self._clock_skew, usegmt=True)))
        given.setdefault("connection", ("Connection", "keep-alive" if self.keep_alive else "close"))
        try:
            phrase = HTTPStatus(answer.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in given.values())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def send(self, answer: Answer) -> None:
        """Send a complete, correct response."""
        silent = self.call.method == "HEAD" or answer.status in _NO_BODY
        await self.write(self.head(answer) + (b"" if silent else answer.body))

    async def write(self, data: bytes) -> None:
        """Send raw bytes, and wait while the peer does not read.

        Raises:
            ConnectionError: the peer has disconnected.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def stream(self, chunks: Iterator[bytes]) -> None:
        """Send chunks lazily: each is built after the previous one was sent."""
        for chunk in chunks:
            await self.write(chunk)
            await asyncio.sleep(0)  # `drain` does not suspend while the peer keeps up

    def close(self) -> None:
        """Close the connection after the written data (FIN)."""
        self.keep_alive = False

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self.keep_alive = False
        sock: socket.socket | None = self._writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
