"""What `make demo` runs: the embedded Profile API and the shop, as two processes, until Ctrl-C.

    python examples/demo.py

Ports are variables: `API_PORT` (8787) and `SHOP_PORT` (8000).
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from examples.storefront.featured import FEATURED

ROOT = Path(__file__).resolve().parent.parent
HOUSEHOLDS = ROOT / "examples" / "storefront" / "data" / "households.jsonl"
HOST = "127.0.0.1"
READY_SECONDS = 60.0
"""How long a process may take until it answers; the first start on a slow disk takes longest."""
STOP_SECONDS = 5.0
"""How long a process may take to end after it was asked to."""


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two processes listen."""

    api: int
    shop: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Ports:
        """Reads `API_PORT` and `SHOP_PORT`, and makes sure that both can be had.

        Raises:
            DemoError: one is no port number, is taken, or both are the same.
        """
        ports = cls(_port(environment, "API_PORT", 8787), _port(environment, "SHOP_PORT", 8000))
        if ports.api == ports.shop:
            raise DemoError(f"API_PORT and SHOP_PORT are both {ports.api}; each process needs a port of its own.")
        for name, port in (("API_PORT", ports.api), ("SHOP_PORT", ports.shop)):
            if not _is_free(port):
                raise DemoError(
                    f"Port {port} is taken. Stop what listens there, or choose another: make demo {name}={port + 1}"
                )
        return ports


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise DemoError(f"{name} must be a port number from 1 to 65535, not {text!r}.")
    return int(text)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Process:
    """One of the two processes: started, waited for, stopped. What it says goes to a file, shown if it dies.

    Args:
        name: what the messages call it.
        command: the program and its arguments. Secrets go into `environment`: others can read arguments with `ps`.
        environment: variables on top of this process's own.
        ready: the address that answers once it is ready.
    """

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], ready: str) -> None:
        self.name = name
        self.ready = ready
        self._command = command
        self._environment = {**os.environ, **environment}
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, in a session of its own: Ctrl-C reaches the launcher alone, which stops both in order."""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            self._command, env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            DemoError: it was not started.
        """
        if self._process is None:
            raise DemoError(f"{self.name} was not started.")
        return self._process.pid

    @property
    def has_died(self) -> bool:
        """Whether it ended though nobody stopped it."""
        return self._process is not None and self._process.poll() is not None

    def wait_until_ready(self, stopping: threading.Event | None = None, seconds: float = READY_SECONDS) -> None:
        """Waits until it answers, or until `stopping` is set.

        Raises:
            DemoError: it died, or did not answer in time.
        """
        stopping = stopping or threading.Event()
        end = time.monotonic() + seconds
        while not _answers(self.ready):
            if self.has_died:
                raise DemoError(self.last_words())
            if time.monotonic() > end:
                raise DemoError(f"{self.name} did not answer within {seconds:.0f} seconds.\n{self._said()}")
            if stopping.wait(0.05):
                return

    def last_words(self) -> str:
        """Says that it ended, with what it said last."""
        code = None if self._process is None else self._process.poll()
        return f"{self.name} ended by itself (exit code {code}).\n{self._said()}"

    def stop(self) -> None:
        """Asks it to end, and ends it if it does not."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._output is not None:
            self._output.close()

    def kill(self) -> None:
        """Ends it without asking, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _said(self) -> str:
        if self._output is None or self._output.closed:
            return ""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        return "\n".join(f"  | {line}" for line in lines[-15:])


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as response:  # noqa: S310 - our own http address
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def profile_api(port: int, key: str) -> Process:
    """The embedded Profile API over the example's households."""
    command = [
        sys.executable, "-m", "profile_enrich", "serve", "--data", str(HOUSEHOLDS), "--entity", "Households",
        "--id", "household_id", "--host", HOST, "--port", str(port),
    ]  # fmt: skip
    return Process("The Profile API", command, {"PROFILE_ENRICH_KEYS": key}, f"http://{HOST}:{port}/healthz")


def storefront(port: int, api_port: int, key: str, environment: Mapping[str, str] | None = None) -> Process:
    """The shop, looking profiles up at the Profile API."""
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "examples.storefront.app:create_app", "--host", HOST,
        "--port", str(port), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    variables = {
        "STOREFRONT_API_URL": f"http://{HOST}:{api_port}/api/v1",
        "STOREFRONT_API_KEY": key,
        "STOREFRONT_SECRET": secrets.token_urlsafe(32),
        **(environment or {}),
    }
    return Process("The shop", command, variables, f"http://{HOST}:{port}/ready")


def welcome(ports: Ports) -> str:
    """What is said once both are ready."""
    people = "\n".join(f"    {item.number:>5}  {item.title}: {item.line}" for item in FEATURED)
    return f"""
  The shop          http://{HOST}:{ports.shop}
  The Profile API   http://{HOST}:{ports.api}   (it wants a key, which only the shop has)

  Sign in as one of these, or as any other household number up to 2500:
{people}

  Ctrl-C stops both.
"""


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Runs both until it is told to stop, or one of them dies. Returns the exit code."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A flag, not an exception: one that came while a process is being started would leave it behind.
        signal.signal(number, lambda number, frame: stopping.set())
    running: list[Process] = []
    try:
        ports = Ports.from_environment(environment)
        key = secrets.token_urlsafe(32)
        print("Starting the Profile API and the shop ...", flush=True)
        for process in (profile_api(ports.api, key), storefront(ports.shop, ports.api, key)):
            running.append(process)
            process.start()
        for process in running:
            process.wait_until_ready(stopping)
        if not stopping.is_set():
            print(welcome(ports), flush=True)
        while not stopping.wait(0.2):
            for process in running:
                if process.has_died:
                    raise DemoError(f"{process.last_words()}\nStopping the other one too.")
        print("\nStopping.", flush=True)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        for process in reversed(running):
            process.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
