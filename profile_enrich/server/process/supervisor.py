"""Several processes that share a listening socket: started, watched, replaced and ended together."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from ...errors import ConfigurationError, ProfileEnrichError

__all__ = ["MAX_WORKERS", "Supervisor"]

_log = logging.getLogger("profile_enrich.server")

MAX_WORKERS = 64
_TICK = 0.2
_STARTING = 60.0
"""Seconds that a worker has to be ready."""

_AGAIN = 1.0
"""Seconds between two starts of a worker that dies."""


class _Worker:
    def __init__(self, run: Callable[[Callable[[], None]], None]) -> None:
        context = multiprocessing.get_context("fork")  # what was opened and read is shared, and nothing is pickled
        self._reader: Connection
        self._reader, writer = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(target=_work, args=(run, writer))
        self.process.start()
        writer.close()
        self.born = time.monotonic()
        self.is_ready = False

    def ready(self, until: float) -> bool:
        """Waits until it answers requests; false when it ended, or took too long."""
        if not self.is_ready and self._reader.poll(max(0.0, until - time.monotonic())):
            with contextlib.suppress(EOFError, OSError):
                self.is_ready = self._reader.recv() is True
        return self.is_ready

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, OSError):
            if self.process.pid is not None and self.process.exitcode is None:
                os.kill(self.process.pid, number)

    def end(self, until: float) -> None:
        """Waits for its end, and makes it end."""
        self.process.join(max(0.0, until - time.monotonic()))
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self._reader.close()
        self.process.close()


def _work(run: Callable[[Callable[[], None]], None], writer: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)

    def ready() -> None:
        with contextlib.suppress(OSError):  # nobody waits any more
            writer.send(True)
            writer.close()

    problem = ""
    try:
        run(ready)
    except KeyboardInterrupt:
        pass
    except ProfileEnrichError as error:
        problem = error.message
    except Exception as error:  # noqa: BLE001  # a traceback could quote a record or a key
        problem = type(error).__name__
    if problem:
        _log.error("a worker failed: %s", problem)
        sys.exit(1)


class Supervisor:
    """Runs `count` workers until SIGINT or SIGTERM, and starts one anew that dies.

    Args:
        run: what a worker does; it calls its argument once it answers requests.
        count: how many.
        drain: seconds that a worker has to end.
        reload: whether SIGHUP replaces them one by one; otherwise it ends them.
        on_ready: called once all answer.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], None]], None],
        count: int,
        *,
        drain: float,
        reload: bool,
        on_ready: Callable[[], None],
    ) -> None:
        self._run = run
        self._count = count
        self._drain = drain
        self._reloads = reload
        self._on_ready = on_ready
        self._workers: list[_Worker] = []
        self._stop = False
        self._reload = False

    def run(self) -> None:
        """Returns when all workers have ended.

        Raises:
            ConfigurationError: a worker ended before it answered.
        """
        with self._handling_signals():
            try:
                self._workers = [_Worker(self._run) for _ in range(self._count)]
                until = time.monotonic() + _STARTING
                if not all(self._wait_for(worker, until) for worker in self._workers):
                    if self._stop:
                        return
                    raise ConfigurationError("a worker ended before it could answer; what it said is above")
                self._on_ready()
                while not self._stop:
                    self._watch()
            finally:
                self._end(self._workers)

    def _wait_for(self, worker: _Worker, until: float) -> bool:
        while not self._stop and time.monotonic() < until and worker.process.is_alive():
            if worker.ready(time.monotonic() + _TICK):
                return True
        return worker.is_ready

    def _watch(self) -> None:
        dead = wait([worker.process.sentinel for worker in self._workers], timeout=_TICK)
        if self._reload:
            self._reload = False
            self._replace_all()
            return
        for place, worker in enumerate(self._workers):
            if worker.process.sentinel in dead and not self._stop:
                worker.process.join(1.0)  # its end shows a moment before its exit code
                _log.error("a worker ended (exit code %s); another one is started", worker.process.exitcode)
                time.sleep(max(0.0, worker.born + _AGAIN - time.monotonic()))
                worker.end(time.monotonic())
                self._workers[place] = _Worker(self._run)

    def _replace_all(self) -> None:
        """The new worker answers before the old one goes. One that cannot start leaves the rest as they are."""
        for place, old in enumerate(list(self._workers)):
            new = _Worker(self._run)
            if not self._wait_for(new, time.monotonic() + _STARTING):
                self._end([new])
                if not self._stop:
                    _log.error("not reloaded: a new worker ended before it could answer; the old ones go on")
                return
            self._workers[place] = new
            self._end([old])
        _log.warning("reloaded")

    def _end(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.signal(signal.SIGTERM)
        until = time.monotonic() + self._drain
        for worker in workers:
            worker.end(until)

    @contextlib.contextmanager
    def _handling_signals(self) -> Generator[None]:
        def leave(number: int, frame: FrameType | None) -> None:
            self._stop = True

        def reload(number: int, frame: FrameType | None) -> None:
            self._reload = True

        handlers = {signal.SIGINT: leave, signal.SIGTERM: leave, signal.SIGHUP: reload if self._reloads else leave}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)
