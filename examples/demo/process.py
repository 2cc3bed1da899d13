"""A child process: start it, wait until it answers, stop it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from .terminal import wrapped

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
READY_SECONDS = 60.0
"""How long a process may take until it answers; the first start on a slow disk takes longest."""
STOP_SECONDS = 5.0
"""How long a process may take to end after it was asked to."""


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


class Process:
    """A child process. Its output goes to a file, whose end is shown when the process dies.

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
        """Start it in a session of its own, so that Ctrl-C reaches the launcher only, which stops all in order."""
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
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_died(self) -> bool:
        """Whether it ended without `stop`."""
        return self._process is not None and self._process.poll() is not None

    def wait_until_ready(self, stopping: threading.Event | None = None, seconds: float = READY_SECONDS) -> None:
        """Wait until it answers, or until `stopping` is set.

        Raises:
            DemoError: it died, or did not answer in time.
        """
        stopping = stopping or threading.Event()
        end = time.monotonic() + seconds
        while not _answers(self.ready):
            if self.has_died:
                raise DemoError(self.ending())
            if time.monotonic() > end:
                raise DemoError(f"{self.name} did not answer within {seconds:.0f} seconds.\n{self._output_tail()}")
            if stopping.wait(0.05):
                return

    def ending(self) -> str:
        """Describe how it ended, with the end of its output."""
        code = None if self._process is None else self._process.poll()
        return f"{self.name} ended by itself (exit code {code}).\n{self._output_tail()}"

    def stop(self) -> None:
        """Terminate it, and kill it if it does not end in time."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._output is not None:
            self._output.close()
            self._output = None
        self._process = None

    def kill(self) -> None:
        """Kill it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _output_tail(self) -> str:
        if self._output is None or self._output.closed:
            return ""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        return wrapped("\n".join(lines[-15:]), "  | ")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as response:  # noqa: S310 - our own http address
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
