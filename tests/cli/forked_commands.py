"""Commands that start quickly, because they are forked from a process that has loaded the library."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import IO, Any

__all__ = ["ForkedCommand", "ForkingProcess"]

_SCRIPT = """
import json, os, socket, sys, tempfile
import profile_enrich_command
import profile_enrich.cli.app

orders = socket.socket(fileno=int(sys.argv[1]))
while True:
    data, streams, _, _ = socket.recv_fds(orders, 65536, 3)
    if not data:
        sys.exit()
    order = json.loads(data)
    child = os.fork()
    if not child:
        break
    for stream in streams:
        os.close(stream)
    orders.sendall(b"%d" % child)
    _, status, used = os.wait4(child, 0)
    orders.sendall(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]).encode())
orders.close()
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
os.environ.update(order["environment"])
tempfile.tempdir = None
sys.argv = ["profile-enrich", *order["arguments"]]
sys.stderr.write("begun\\n")
sys.stderr.flush()
profile_enrich_command.main()
"""


class ForkedCommand:
    """A running command, as `subprocess.Popen` has it.

    Args:
        pid: its process.
        orders: where its end is reported.
        streams: our ends of its standard input, output and error.

    Attributes:
        cpu: seconds of processor time that it and its ended children used in all, once it has ended.
    """

    def __init__(self, pid: int, orders: socket.socket, streams: Sequence[IO[bytes]]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams
        self.cpu = 0.0
        self.returncode: int | None = None
        self._orders = orders

    def poll(self) -> int | None:
        """Return the exit code, or `None` while it runs."""
        with contextlib.suppress(TimeoutError, BlockingIOError):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None) -> int:
        """Wait at most `timeout` seconds (`TimeoutError`) for its end, and return its exit code."""
        if self.returncode is None:
            self._orders.settimeout(timeout)
            self.returncode, self.cpu = json.loads(self._orders.recv(1000))
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


class ForkingProcess:
    """Starts commands one after the other."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()

    @contextlib.contextmanager
    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Generator[ForkedCommand]:
        """Start a command, and kill it at the end if it still runs."""
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        order = json.dumps({"arguments": list(arguments), "environment": dict(environment)})
        self._orders.settimeout(60)
        socket.send_fds(self._orders, [order.encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        with contextlib.ExitStack() as stack:
            streams: list[Any] = []
            for descriptor, mode in zip(ours, ("wb", "rb", "rb"), strict=True):
                streams.append(stack.enter_context(os.fdopen(descriptor, mode, buffering=0 if mode == "wb" else -1)))
            command = ForkedCommand(int(self._orders.recv(100)), self._orders, streams)
            try:
                yield command
            finally:
                if command.returncode is None:
                    command.send_signal(signal.SIGKILL)
                    command.wait(None)

    def close(self) -> None:
        """End the process."""
        self._orders.close()
        self._process.wait()
