"""Another process, so that its CPU is not counted and its loop is not shared. It takes and gives lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

__all__ = ["Child", "say"]


class Child:
    """Runs `python -m MODULE ARGS…`, which says one line when it is ready, and ends when its input ends.

    Args:
        module: of this package.
        args: of its command line.
    """

    def __init__(self, module: str, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._greeting: Any = None

    def ready(self) -> Any:
        """Waits for what it says when it is ready."""
        if self._greeting is None:
            self._greeting = self._line()
        return self._greeting

    def ask(self, **command: Any) -> Any:
        """Sends one command and waits for the answer."""
        self.ready()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process {self._process.args!r} ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends its input, and it a little later if it is still there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def say(value: Any) -> None:
    """In the child: one line to the parent."""
    print(json.dumps(value), flush=True)
