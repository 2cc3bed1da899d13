"""A running `serve`, and requests to it that cost the attacker little."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KEY", "RECORD", "ROWS", "Served", "Skipped", "health_meanwhile", "serving"]

KEY = "the-secret-of-the-attacked-server"
ROWS = 100_000
RECORD = "/api/v1/entities/1/record?record_id=u1"


class Skipped(Exception):
    """Raised if a requirement of the attack is missing; the message names it."""


@dataclass
class Served:
    """A running `serve`."""

    process: subprocess.Popen[str]
    address: tuple[str, int]

    def connect(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection(self.address, timeout)

    def get(self, path: str = "/healthz", key: str = KEY) -> int | str:
        """Return the status of a response, or how the connection ended."""
        return self.ask(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n")[
            0
        ]

    def ask(self, request: str | bytes) -> tuple[int | str, bytes]:
        """Return status and body of a response that closes its connection."""
        data = b""
        try:
            with self.connect() as connection:
                connection.sendall(request if isinstance(request, bytes) else request.encode())
                while part := connection.recv(65536):
                    data += part
        except OSError as error:
            if not data:
                return type(error).__name__, b""
        head, _, body = data.partition(b"\r\n\r\n")
        return (int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else "no answer"), body

    def workers(self) -> list[int]:
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]

    def memory(self) -> int:
        """Return the memory of all processes, in megabytes."""
        total = 0
        for pid in (self.process.pid, *self.workers()):
            with contextlib.suppress(OSError):
                found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                total += int(found[1]) if found else 0
        return total // 1024

    def descriptors(self) -> int:
        """Return the number of open files of all processes."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (self.process.pid, *self.workers()))


@contextlib.contextmanager
def serving(
    directory: Path, *more: str, descriptors: int | None = None, prefix: tuple[str, ...] = (), keys: str = KEY
) -> Generator[Served]:
    """Serve `directory`; with a `--store` among the arguments, the store is built before."""

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    temporary = directory / "t"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o777)
    data = ["--data", str(directory / "users.csv"), "--entity", "Users", "--id", "id"]
    with subprocess.Popen(
        [*prefix, sys.executable, "-m", "profile_enrich", "serve", "--port", "0",
         *([] if "--store" in more else data), *more],
        env={**os.environ, "TMPDIR": str(temporary), "PROFILE_ENRICH_API_KEY": keys}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=limit,  # no thread yet
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            shown = next((line for line in process.stdout if "Profile API at" in line), "")
            host, _, port = shown.rpartition("/")[2].strip().rpartition(":")
            yield Served(process, (host, int(port or 0)))
        finally:
            if process.poll() is None:
                process.kill()


def health_meanwhile(served: Served, attack: Callable[[], None], attackers: int) -> tuple[set[int | str], float]:
    """Run attackers in their own processes, and request the health check continuously.

    Returns:
        The statuses of the health checks, and the seconds of the slowest.
    """
    children = [_forked(attack) for _ in range(attackers)]
    statuses: set[int | str] = set()
    slowest = 0.0
    ended = threading.Event()

    def wait() -> None:
        for child in children:
            os.waitpid(child, 0)
        ended.set()

    threading.Thread(target=wait).start()
    while not ended.is_set():
        began = time.monotonic()
        statuses.add(served.get())
        slowest = max(slowest, time.monotonic() - began)
    return statuses, slowest


def _forked(attack: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(Exception):
            attack()
        os._exit(0)
    return child
