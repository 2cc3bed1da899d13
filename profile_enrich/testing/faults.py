"""What can go wrong between an application and its vendor, each fault made on the wire.

```python
vendor.script(faults.RateLimited(retry_after=1), faults.Reset("in_body"))   # the next two requests
vendor.always(faults.Latency(0.2))                                          # every request, until vendor.heal()
```

Each fault is a frozen object that can be used for any number of requests. To make one of your own, derive from `Fault`
and write `play`.
"""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .exchange import Answer, Exchange, json_answer

__all__ = [
    "BigBody",
    "Fault",
    "Garbage",
    "GzipBomb",
    "Hang",
    "Healthy",
    "Latency",
    "RateLimited",
    "Redirect",
    "Reset",
    "Respond",
    "ServerError",
    "SlowDrip",
    "Truncated",
    "Unauthorized",
    "Unavailable",
    "WrongContentLength",
    "WrongType",
]

_MIB = 1 << 20
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Fault:
    """The base of all faults."""

    async def play(self, exchange: Exchange) -> None:
        """Answer one request, or apply its fault.

        Args:
            exchange: the request, the healthy answer and the connection.
        """
        raise NotImplementedError("write `play` in your own fault")


@dataclass(frozen=True)
class Healthy(Fault):
    """No fault: for the places of a script where all is well."""

    async def play(self, exchange: Exchange) -> None:
        """Send the healthy answer."""
        await exchange.send(exchange.healthy())


@dataclass(frozen=True)
class Latency(Fault):
    """Answers late.

    Args:
        seconds: how late; or a function that draws it from the server's seeded `random.Random`, e.g.
            `lambda rng: rng.lognormvariate(-3, 1)`.
        then: what happens after the wait; `None` (default): the healthy answer.
    """

    seconds: float | Callable[[random.Random], float]
    then: Fault | None = None

    async def play(self, exchange: Exchange) -> None:
        """Waits, then plays `then`."""
        delay = self.seconds(exchange.random) if callable(self.seconds) else self.seconds
        await asyncio.sleep(delay)
        await (self.then or Healthy()).play(exchange)


@dataclass(frozen=True)
class Hang(Fault):
    """Reads the request and says nothing, until `vendor.release()`; then the healthy answer goes out."""

    async def play(self, exchange: Exchange) -> None:
        """Wait for the release."""
        await exchange.hold()
        await exchange.send(exchange.healthy())


@dataclass(frozen=True)
class Reset(Fault):
    """Breaks the connection off with a TCP reset.

    Args:
        when: before the first byte of the answer, inside its headers, or inside its body.
    """

    when: Literal["before_headers", "in_headers", "in_body"] = "before_headers"

    async def play(self, exchange: Exchange) -> None:
        """Send the first part of the response, then reset the connection."""
        answer = exchange.healthy()
        head = exchange.head(answer)
        if self.when == "in_headers":
            await exchange.write(head[: len(head) // 2])
        elif self.when == "in_body":
            await exchange.write(head + answer.body[: len(answer.body) // 2])
        await asyncio.sleep(0.005)  # a reset overtakes what the kernel has not delivered yet
        exchange.reset()


@dataclass(frozen=True)
class Truncated(Fault):
    """Declares the whole length, sends a part of the body, and closes in good order.

    Args:
        keep: the part that is sent, 0.0 to 1.0 (a part of 1.0 still lacks the last byte).
    """

    keep: float = 0.5

    async def play(self, exchange: Exchange) -> None:
        """Send the first part of the response, then close the connection."""
        answer = exchange.healthy()
        exchange.close()
        kept = min(int(len(answer.body) * self.keep), len(answer.body) - 1)
        await exchange.write(exchange.head(answer) + answer.body[:kept])


@dataclass(frozen=True)
class SlowDrip(Fault):
    """Sends the answer a few bytes at a time.

    Args:
        interval: seconds between two pieces.
        size: bytes a piece.
        part: `"body"`: the headers go at once; `"headers"`: the body goes at once; `"both"`: neither.
    """

    interval: float = 0.05
    size: int = 1
    part: Literal["headers", "body", "both"] = "body"

    async def play(self, exchange: Exchange) -> None:
        """Send the response byte by byte."""
        answer = exchange.healthy()
        for data, slowly in (
            (exchange.head(answer), self.part != "body"),
            (answer.body, self.part != "headers"),
        ):
            step = self.size if slowly else max(1, len(data))
            for start in range(0, len(data), step):
                await exchange.write(data[start : start + step])
                if slowly:
                    await asyncio.sleep(self.interval)


@dataclass(frozen=True)
class Respond(Fault):
    """Any answer at all.

    Args:
        status: the HTTP status.
        body: bytes as they are, text as UTF-8, anything else as JSON.
        headers: added to `date`, `content-length` and `connection`, or in place of them.
    """

    status: int = 200
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        headers = dict(self.headers)
        if isinstance(self.body, bytes):
            body = self.body
        elif isinstance(self.body, str):
            body = self.body.encode()
        else:
            body = json.dumps(self.body).encode()
            headers = {**_JSON, **headers}
        await exchange.send(Answer(self.status, body, headers))


@dataclass(frozen=True)
class Garbage(Fault):
    """Answers 200 with a body that is not JSON.

    Args:
        body: the body; by default a JSON object that breaks off.
        content_type: what it claims to be.
    """

    body: bytes = b'{"data": {"id": "u1", "tier": "go'
    content_type: str = "application/json"

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(Answer(200, self.body, {"content-type": self.content_type}))


@dataclass(frozen=True)
class WrongType(Fault):
    """Answers 200 with JSON of another shape than documented.

    Args:
        value: what is sent in place of the documented object.
    """

    value: object = field(default_factory=lambda: ["not", "an", "object"])

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(json_answer(200, self.value))


@dataclass(frozen=True)
class BigBody(Fault):
    """Answers 200 with a huge JSON body, made while it is sent.

    Args:
        size: bytes; 50 MB by default.
        declared: whether `content-length` says how large it is. Otherwise it comes chunked.
    """

    size: int = 50_000_000
    declared: bool = True

    def _chunks(self) -> Iterator[bytes]:
        opening, closing = b'{"data":{"id":"', b'"}}'
        yield opening
        left = max(0, self.size - len(opening) - len(closing))
        block = b"x" * 65_536
        while left > 0:
            yield block[:left]
            left -= len(block)
        yield closing

    async def play(self, exchange: Exchange) -> None:
        """Stream this fault's response."""
        if self.declared:
            await exchange.write(exchange.head(Answer(200, b"", _JSON), length=sum(map(len, self._chunks()))))
            await exchange.stream(self._chunks())
            return
        await exchange.write(exchange.head(Answer(200, b"", {**_JSON, "transfer-encoding": "chunked"}), length=-1))
        await exchange.stream(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in self._chunks() if chunk)
        await exchange.write(b"0\r\n\r\n")


@dataclass(frozen=True)
class GzipBomb(Fault):
    """Answers 200 with a small gzip body that unpacks to a huge one: one byte on the wire is about 1,000 unpacked.

    Args:
        size: bytes unpacked; 256 MiB by default.
    """

    size: int = 256 * _MIB

    def _chunks(self) -> Iterator[bytes]:
        # A block that ends in a full flush refers to nothing before it, so the same bytes can be sent over and over.
        plain = b" " * _MIB
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        block = packer.compress(plain) + packer.flush(zlib.Z_FULL_FLUSH)
        yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
        checksum = 0
        blocks = max(1, self.size // _MIB)
        for _ in range(blocks):
            yield block
            checksum = zlib.crc32(plain, checksum)
        yield b"\x03\x00" + checksum.to_bytes(4, "little") + (blocks * _MIB % 2**32).to_bytes(4, "little")

    async def play(self, exchange: Exchange) -> None:
        """Stream this fault's response."""
        exchange.close()
        await exchange.write(exchange.head(Answer(200, b"", {**_JSON, "content-encoding": "gzip"}), length=-1))
        await exchange.stream(self._chunks())


@dataclass(frozen=True)
class Redirect(Fault):
    """Sends the client elsewhere.

    Args:
        location: where to; `None` (default): the same request again, on this server.
        status: 301, 302, 303, 307 or 308.
    """

    location: str | None = None
    status: int = 302

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        location = exchange.call.target if self.location is None else self.location
        await exchange.send(Answer(self.status, b"", {"location": location}))


@dataclass(frozen=True)
class Unauthorized(Fault):
    """Answers 401, as for a token that was revoked. Once in a script, it is "401, then good"."""

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(_error(401, "unauthorized", "The access token is not valid."))


@dataclass(frozen=True)
class RateLimited(Fault):
    """Answers 429.

    Args:
        retry_after: the `Retry-After` header: seconds, or any text such as an HTTP date; `None` (default): no header.
    """

    retry_after: float | str | None = None

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        answer = _error(429, "rate_limited", "Too many requests.")
        if self.retry_after is not None:
            value = self.retry_after if isinstance(self.retry_after, str) else f"{self.retry_after:g}"
            answer = Answer(answer.status, answer.body, {**answer.headers, "retry-after": value})
        await exchange.send(answer)


@dataclass(frozen=True)
class ServerError(Fault):
    """Answers 500."""

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(_error(500, "internal", "An internal error occurred."))


@dataclass(frozen=True)
class Unavailable(Fault):
    """Answers 503.

    Args:
        retry_after: the `Retry-After` header, in seconds; `None` (default): no header.
    """

    retry_after: float | None = None

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        answer = _error(503, "unavailable", "The service is unavailable.")
        if self.retry_after is not None:
            answer = Answer(answer.status, answer.body, {**answer.headers, "retry-after": f"{self.retry_after:g}"})
        await exchange.send(answer)


@dataclass(frozen=True)
class WrongContentLength(Fault):
    """Sends the whole healthy body under a wrong `content-length`, and closes.

    Args:
        by: how much too large (positive) or too small (negative) the declared length is, in bytes; or any text, which
            becomes the header's value as it is.
    """

    by: int | str = 10

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        answer = exchange.healthy()
        exchange.close()
        if isinstance(self.by, str):
            answer = Answer(answer.status, answer.body, {**answer.headers, "content-length": self.by})
            await exchange.write(exchange.head(answer) + answer.body)
            return
        declared = max(0, len(answer.body) + self.by)
        await exchange.write(exchange.head(answer, length=declared) + answer.body)


def _error(status: int, code: str, message: str) -> Answer:
    # Holds what either vendor's envelope has, so that one fault serves both.
    return json_answer(
        status,
        {"status": status, "message": message, "request_id": "req-fault", "error": {"code": code, "message": message}},
    )
