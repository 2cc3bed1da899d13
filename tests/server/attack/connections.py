"""Attacks by clients without a key: huge, slow, idle, truncated and ambiguous requests."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections import Counter
from pathlib import Path

from .running import KEY, RECORD, ROWS, Served, health_meanwhile, serving

__all__ = ["disconnects", "fuzzed", "huge", "idle", "slow", "smuggling", "streams"]

HEAD = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"


def huge(directory: Path) -> tuple[bool, str]:
    """60 MB of header lines, a URL of 200 MB and 60 MB of trailers, each from ten concurrent clients."""
    line = b"x-a: " + b"b" * 1000 + b"\r\n"

    def send() -> None:
        for first, more, times in (
            (HEAD, line * 64, 940), (b"GET /", b"a" * 2**20, 200),
            (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", line * 64, 940),
        ):  # fmt: skip
            with contextlib.suppress(OSError), served.connect(20) as connection:
                connection.sendall(first)
                for _ in range(times):
                    connection.sendall(more)
                connection.recv(100)

    with serving(directory, "--workers", "2") as served:
        before = served.memory()
        statuses, slowest = health_meanwhile(served, send, 10)
        grown = served.memory() - before
    fine = statuses == {200} and grown < 64 and slowest < 5
    return fine, f"{grown} MB more memory, slowest health check {slowest:.2f} s"


def slow(directory: Path) -> tuple[bool, str]:
    """300 clients that send a byte every half second."""

    def drip() -> None:
        held: list[socket.socket] = []
        for _ in range(100):
            with contextlib.suppress(OSError):
                made = served.connect()
                made.sendall(HEAD + b"x-a: ")
                held.append(made)
        began, ends = time.monotonic(), [0.0]
        while held and time.monotonic() - began < 60:
            for connection in list(held):
                try:
                    connection.sendall(b"b")
                except OSError:
                    held.remove(connection)
                    ends.append(time.monotonic() - began)
            time.sleep(0.5)
        with (directory / "ends").open("a") as file:
            file.write(f"{max(ends) if not held else 60}\n")

    (directory / "ends").unlink(missing_ok=True)
    with serving(directory) as served:
        before = served.memory()
        statuses, slowest = health_meanwhile(served, drip, 3)
        grown = served.memory() - before
    last = max(float(line) for line in (directory / "ends").read_text().split())
    return (
        statuses == {200} and last < 30 and grown < 64,
        f"all closed within {last:.0f} s; {grown} MB more memory, slowest health check {slowest:.2f} s",
    )


def idle(directory: Path) -> tuple[bool, str]:
    """200 idle connections and 200 unfinished requests, with 64 descriptors per process."""
    with serving(directory, descriptors=64) as served:
        held: list[socket.socket] = []
        for number in range(400):
            with contextlib.suppress(OSError):
                made = served.connect(5)
                made.sendall(b"GET / HT" if number % 2 else b"")
                held.append(made)
        answers = [served.get(path) for path in ["/healthz", RECORD] * 5]
        for connection in held:
            connection.close()
    return answers == [200] * 10, f"answers during the attack: {dict(Counter(answers))}"


def streams(directory: Path) -> tuple[bool, str]:
    """One key opens 400 change-feed streams at two workers; another key opens one."""
    other = "the-secret-of-another-client-key"
    with serving(directory, "--workers", "2", "--key", KEY, "--key", other) as served:
        statuses: Counter[str] = Counter()
        held: list[socket.socket] = []
        last = ""
        for secret in [KEY] * 400 + [other]:
            made = served.connect()
            made.sendall(
                f"GET /api/v1/entities/1/changes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n\r\n".encode()
            )
            last = made.recv(12).decode()[9:]
            statuses[last] += secret == KEY
            held.append(made)
        for connection in held:
            connection.close()
    fine = statuses == {"200": 100, "429": 300} and last == "200"
    return fine, f"of one key: {dict(statuses)}; the other key: {last}"


HIDDEN = f"GET /status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()
CODINGS = [
    b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding: CHUNKED",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked",
    b"X: y\r\n Transfer-Encoding: chunked", b"X: y\n\tTransfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: \x0cchunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked\x00", b"\x00Transfer-Encoding: chunked", b"Transfer_Encoding: chunked",
    b"Content-Encoding: chunked", b"Transfer-Encoding: ch\x00unked",
]  # fmt: skip
"""Ways to write the header that one server takes for chunked and another one does not."""


def smuggling(directory: Path) -> tuple[bool, str]:
    """51 forms of request smuggling: servers disagree where the first request ends."""
    shapes: list[bytes] = []
    for coding in CODINGS:
        inside, chunk = b"0\r\n\r\n" + HIDDEN, b"%x\r\n" % len(HIDDEN)
        shapes.append(coding + b"\r\nContent-Length: %d\r\n\r\n" % len(inside) + inside)
        head = coding + b"\r\nContent-Length: %d\r\n\r\n" % len(chunk)
        shapes.append(head + chunk + HIDDEN + b"\r\n0\r\n\r\n")
    shapes.append(b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN)
    statuses: Counter[str] = Counter()
    answered = 0
    with serving(directory) as served:
        for shape in shapes:
            data = _whole(served, b"POST /api/v1/entities HTTP/1.1\r\nhost: x\r\n" + shape)
            statuses[data[9:12].decode() or "closed"] += 1
            answered += b'"workspace"' in data
        healthy = served.get()
    return (answered, healthy) == (
        0,
        200,
    ), f"{len(shapes)} shapes, {answered} hidden requests answered; {dict(statuses)}"


def _whole(served: Served, request: bytes) -> bytes:
    data = b""
    with contextlib.suppress(OSError), served.connect(3) as connection:
        connection.sendall(request)
        connection.settimeout(0.5)
        while part := connection.recv(65536):
            data += part
    return data


NOISE = [b"\0", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"%", b"%00", b"/", b"//", b"..", b"?", b"&", b"=", b"\xff",
         b"HTTP/1.1", b"HTTP/9.9", b"a" * 5000, b"[", b"{", b'"', b";", b"-1", b"99999999999999999999"]  # fmt: skip


def fuzzed(directory: Path) -> tuple[bool, str]:
    """6,000 requests with bytes changed, removed, repeated and inserted."""
    pick = random.Random(15)
    key = f"authorization: Bearer {KEY}\r\n"
    amperity = f"{key}amperity-tenant: default\r\napi-version: 2025-07-31\r\n"
    seeds = [
        f"GET {RECORD} HTTP/1.1\r\nhost: x\r\n{key}\r\n",
        f"GET /api/indexes HTTP/1.1\r\nhost: x\r\n{amperity}\r\n",
        f"GET /status HTTP/1.1\r\nhost: x\r\n{key}\r\n",
        f'POST /api/x/entities/1/records HTTP/1.1\r\nhost: x\r\n{key}content-length: 14\r\n\r\n{{"ids":["u1"]}}',
        "POST /api/v0/oauth2/token HTTP/1.1\r\nhost: x\r\namperity-tenant: default\r\ncontent-length: 29\r\n\r\n"
        "grant_type=client_credentials",
    ]
    statuses: Counter[str] = Counter()
    with serving(directory, "--workers", "2") as served:
        workers = served.workers()
        for _ in range(6_000):
            data = bytearray(pick.choice(seeds).encode())
            for _ in range(pick.randrange(1, 5)):
                at = pick.randrange(len(data) + 1)
                change = pick.randrange(4)
                if change == 0 and at < len(data):
                    data[at] ^= 1 << pick.randrange(8)
                elif change == 1:
                    data[at:at] = pick.choice(NOISE)
                elif change == 2:
                    del data[at : at + pick.randrange(1, 20)]
                else:
                    data[at:at] = data[at : at + pick.randrange(1, 40)]
            answer = b""
            with contextlib.suppress(OSError), served.connect(5) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            statuses[answer[9:10].decode() + "xx" if answer else "closed"] += 1
        fine = served.get() == 200 and served.workers() == workers and not statuses["5xx"]
    return fine, f"{dict(statuses)}; no worker died" if fine else f"{dict(statuses)}"


def disconnects(directory: Path) -> tuple[bool, str]:
    """96,000 requests from 64 clients that disconnect at random moments."""
    pick = random.Random(16)
    asked = right = wrong = 0

    async def client(served: Served) -> None:
        nonlocal asked, right, wrong
        while asked < 96_000:
            ids = [f"u{pick.randrange(ROWS)}" for _ in range(pick.randrange(1, 24))]
            asked += len(ids)
            data = b"".join(
                f"GET /api/v1/entities/1/record?record_id={id} HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {KEY}\r\n\r\n".encode() for id in ids
            )  # fmt: skip
            with contextlib.suppress(OSError, TimeoutError):
                reader, writer = await asyncio.open_connection(*served.address)
                try:
                    writer.write(data[: pick.choice([len(data), len(data), pick.randrange(len(data))])])
                    got = b""
                    if pick.random() < 0.7:
                        async with asyncio.timeout(10):
                            while got.count(b'{"data":') < len(ids) * pick.random():
                                part = await reader.read(pick.choice([100, 4096, 65536]))
                                if not part:
                                    break
                                got += part
                    for id, body in zip(ids, got.split(b"\r\n\r\n")[1:], strict=False):
                        found = body.partition(b"}}")
                        if found[1]:
                            fine = found[0].startswith(b'{"data":{"id":"%s","email":"%s@' % (id.encode(), id.encode()))
                            right, wrong = right + fine, wrong + (not fine)
                finally:
                    if pick.random() < 0.5:  # a reset in place of an end
                        writer.get_extra_info("socket").setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4)
                        )
                    writer.close()

    async def crowd(served: Served) -> None:
        await asyncio.gather(*(client(served) for _ in range(64)))

    with serving(directory, "--workers", "2") as served:
        for _ in range(100):  # so that each worker has opened what it needs
            served.get(RECORD)
        workers, before = served.workers(), (served.memory(), served.descriptors())
        asyncio.run(crowd(served))
        end = time.monotonic() + 30
        while served.descriptors() > before[1] and time.monotonic() < end:
            time.sleep(0.2)
        grown, more = served.memory() - before[0], served.descriptors() - before[1]
        fine = (served.get(), served.workers(), wrong) == (200, workers, 0) and grown < 64 and more <= 0
    return (
        fine,
        f"{asked:,} requests, {right:,} whole answers read, {wrong} wrong; {grown} MB, {max(more, 0)} descriptors more",
    )
