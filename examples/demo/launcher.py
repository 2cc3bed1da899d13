"""Run the demo's processes, and stop and start each one on request."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .process import Process


class Launcher:
    """Two processes that are stopped and started independently. A process that dies leaves the other one running.

    Args:
        processes: by the name that a request uses, such as `"api"`.
        say: receives a line for the terminal. Default: `print`.
    """

    def __init__(self, processes: dict[str, Process], say: Callable[[str], None] = print) -> None:
        self.processes = processes
        self._say = say
        self._wanted = set[str]()
        self._lock = threading.Lock()

    def start_all(self, stopping: threading.Event) -> None:
        """Start every process and wait until each one answers.

        Raises:
            DemoError: a process died or did not answer in time.
        """
        for name, process in self.processes.items():
            self._wanted.add(name)
            process.start()
        for process in self.processes.values():
            process.wait_until_ready(stopping)

    def stop_all(self) -> None:
        """Stop every process, the one started last first."""
        with self._lock:
            self._wanted.clear()
            for process in reversed(self.processes.values()):
                process.stop()

    def is_running(self, name: str) -> bool:
        """Return whether a process runs."""
        return self.processes[name].is_running

    def stop(self, name: str) -> None:
        """Stop one process."""
        with self._lock:
            self._wanted.discard(name)
            if self.is_running(name):
                self.processes[name].stop()
                self._say(f"  {self.processes[name].name} is stopped.")

    def start(self, name: str, stopping: threading.Event | None = None) -> None:
        """Start one process that does not run, and wait until it answers.

        Raises:
            DemoError: it died or did not answer in time.
        """
        with self._lock:
            if not self.is_running(name):
                process = self.processes[name]
                process.stop()  # closes what a process that died has left
                process.start()
                process.wait_until_ready(stopping)
                self._wanted.add(name)
                self._say(f"  {process.name} is running.")

    def toggle(self, name: str) -> None:
        """Stop a process that runs; start one that does not."""
        if self.is_running(name):
            self.stop(name)
        else:
            self.start(name)

    def report_deaths(self) -> None:
        """Say which processes have ended by themselves, once each."""
        with self._lock:
            for name in sorted(self._wanted):
                if self.processes[name].has_died:
                    self._wanted.discard(name)
                    self._say(self.processes[name].ending())
