"""Faults of the vendor server, produced on the wire.

```python
vendor.script(faults.RateLimited(retry_after=1), faults.Reset("in_body"))   # the next two requests
vendor.always(faults.Latency(0.2))                                          # every request, until vendor.heal()
```

Each fault is a frozen object that can be used for any number of requests. For a custom fault, subclass `Fault` and
implement `play`.
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
            exchange: the request, the healthy response and the connection.
        """
        raise NotImplementedError("write `play` in your own fault")


@dataclass(frozen=True)
class Healthy(Fault):
    """No fault, for a healthy response within a script."""

    async def play(self, exchange: Exchange) -> None:
        """Send the healthy response."""
        await exchange.send(exchange.healthy())


@dataclass(frozen=True)
class Latency(Fault):
    """A delayed response.

    Args:
        seconds: the delay; or a function that draws it from the server's seeded `random.Random`, e.g. `lambda rng:
            rng.lognormvariate(-3, 1)`.
        then: the fault after the delay; `None` (default) for the healthy response.
    """

    seconds: float | Callable[[random.Random], float]
    then: Fault | None = None

    async def play(self, exchange: Exchange) -> None:
        """Wait, then apply `then`."""
        delay = self.seconds(exchange.random) if callable(self.seconds) else self.seconds
        await asyncio.sleep(delay)
        await (self.then or Healthy()).play(exchange)


@dataclass(frozen=True)
class Hang(Fault):
    """No response until `vendor.release()`, then the healthy one."""

    async def play(self, exchange: Exchange) -> None:
        """Wait for the release."""
        await exchange.hold()
        await exchange.send(exchange.healthy())


@dataclass(frozen=True)
class Reset(Fault):
    """A TCP reset of the connection.

    Args:
        when: before the response, inside its headers, or inside its body.
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
        await asyncio.sleep(0.005)  # a reset discards data that the kernel has not delivered yet
        exchange.reset()


@dataclass(frozen=True)
class Truncated(Fault):
    """An incomplete body: the full length is declared, then the connection is closed.

    Args:
        keep: the part of the body to send, 0.0 to 1.0 (1.0 still omits the last byte).
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
    """A response sent a few bytes at a time.

    Args:
        interval: seconds between pieces.
        size: bytes per piece.
        part: the part to send slowly: `"body"`, `"headers"` or `"both"`.
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
    """A custom response.

    Args:
        status: the HTTP status.
        body: bytes, text (sent as UTF-8), or any other value (sent as JSON).
        headers: headers that extend or replace `date`, `content-length` and `connection`.
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
    """A 200 response whose body is not JSON.

    Args:
        body: the body; by default an incomplete JSON object.
        content_type: the declared content type.
    """

    body: bytes = b'{"data": {"id": "u1", "tier": "go'
    content_type: str = "application/json"

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(Answer(200, self.body, {"content-type": self.content_type}))


@dataclass(frozen=True)
class WrongType(Fault):
    """A 200 response with undocumented JSON.

    Args:
        value: the JSON value to send.
    """

    value: object = field(default_factory=lambda: ["not", "an", "object"])

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(json_answer(200, self.value))


@dataclass(frozen=True)
class BigBody(Fault):
    """A 200 response with a huge JSON body, generated while it is sent.

    Args:
        size: bytes; 50 MB by default.
        declared: whether to send `content-length`; otherwise the body is chunked.
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
    """A 200 response with a gzip body that expands about 1,000 times.

    Args:
        size: the size after decompression, in bytes; 256 MiB by default.
    """

    size: int = 256 * _MIB

    def _chunks(self) -> Iterator[bytes]:
        # A block that ends in a full flush is self-contained, so the same bytes can be sent repeatedly.
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
    """A redirect.

    Args:
        location: the target; `None` (default) for the same request on this server.
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
    """A 401 response, as for a revoked token."""

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(_error(401, "unauthorized", "The access token is not valid."))


@dataclass(frozen=True)
class RateLimited(Fault):
    """A 429 response.

    Args:
        retry_after: the `Retry-After` header: seconds, or text such as an HTTP date; `None` (default) for none.
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
    """A 500 response."""

    async def play(self, exchange: Exchange) -> None:
        """Send this fault's response."""
        await exchange.send(_error(500, "internal", "An internal error occurred."))


@dataclass(frozen=True)
class Unavailable(Fault):
    """A 503 response.

    Args:
        retry_after: the `Retry-After` header in seconds; `None` (default) for none.
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
    """The healthy body with a wrong `content-length`.

    Args:
        by: the difference between declared and actual length, in bytes; or text, which is sent as the header's value.
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
    # Valid for both vendors' envelopes, so that one fault serves both.
    return json_answer(
        status,
        {"status": status, "message": message, "request_id": "req-fault", "error": {"code": code, "message": message}},
    )
