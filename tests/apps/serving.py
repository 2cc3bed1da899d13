"""Applications in real servers, in their own processes on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]

UNCLEAN = (
    "Unclosed",
    "ResourceWarning",
    "was destroyed",
    "never awaited",
    "never retrieved",
    "Traceback",
    "Event loop is closed",
)
"""What standard error must not hold after a clean shutdown."""


def unclean(said: str, port: int = 0) -> list[str]:
    """Return unexpected lines, except those about the server's own listener on `port`."""
    listener = f"laddr=('{HOST}', {port})>"
    return [
        line
        for line in said.splitlines()
        if any(words in line for words in UNCLEAN) and listener not in line and "Enable tracemalloc" not in line
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def command_of(server: str, target: str, port: int, *, loop: str = "asyncio", factory: bool = False) -> list[str]:
    """Return the command that starts a server with one worker.

    Args:
        server: `uvicorn`, `granian` or `hypercorn`.
        target: `module:attribute`.
        port: to listen on.
        loop: `asyncio`, `uvloop`, or `trio` (Hypercorn only).
        factory: whether the target makes the application.
    """
    python = [sys.executable, "-W", "always::ResourceWarning", "-m"]
    if server == "hypercorn":
        call = "()" if factory else ""
        return [*python, "hypercorn", f"{target}{call}", "--bind", f"{HOST}:{port}", "--worker-class", loop]
    options = ["--host", HOST, "--port", str(port), "--loop", loop, "--log-level", "warning"]
    options += ["--factory"] if factory else []
    if server == "granian":
        return [*python, "granian", "--interface", "asgi", "--no-access-log", *options, target]
    return [*python, "uvicorn", "--no-access-log", *options, target]


class Served:
    """A server process. Leaving the block stops it, and waits for its end.

    Args:
        command: how it is started.
        port: where it listens.
        environment: variables on top of this process's own.
    """

    def __init__(self, command: list[str], port: int, environment: Mapping[str, str]) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.errors = ""
        """Everything that it said, once it has ended."""
        self._command = command
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._said,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        return self

    def wait(self, seconds: float = 30.0) -> Self:
        """Waits until it accepts connections."""
        end = time.monotonic() + seconds
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return self
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{self._command[4:6]} did not start: {self._read()}")
            time.sleep(0.02)

    def stop(self, seconds: float = 30.0) -> int:
        """Stop the server, and return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            # The whole session that was started here: a server's workers must not outlive the test.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise
        finally:
            self.errors = self._read()
        return code

    def unclean(self) -> list[str]:
        """Return lines that the server should not have logged."""
        return unclean(self.errors, self.port)

    def _read(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self._said.close()
