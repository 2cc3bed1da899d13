"""Supervisor of worker processes that share a listening socket."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import NoReturn

from ...errors import ConfigurationError, ProfileEnrichError

__all__ = ["MAX_WORKERS", "Supervisor"]

_log = logging.getLogger("profile_enrich.server")

MAX_WORKERS = 64

_START_TIMEOUT = 60.0
"""Seconds until a started worker must be ready."""
_RETRY_INITIAL = 0.5
_RETRY_MAX = 30.0
_HEALTHY_AFTER = 10.0
"""Seconds after which the end of a worker no longer counts as a failed start."""
_GIVE_UP_AFTER = 5
"""The number of consecutive failed starts, without a running worker, after which the supervisor ends."""

_HANDLED = {signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ())}

Run = Callable[[Callable[[], None]], None]


class _Worker:
    """A forked process. Its pipe sends `ready` once, and closes when the process ends.

    Raises:
        OSError: a system limit is reached.
    """

    def __init__(self, run: Run) -> None:
        self.reader, writer = os.pipe()
        # A signal between the fork and the installation of the child's handlers must not run the parent's handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                os.close(self.reader)
                _run_child(run, writer, before)
        except OSError:
            os.close(self.reader)
            raise
        finally:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.started_at = time.monotonic()
        self.is_ready = False
        self.exit_code: int | None = None

    def read(self) -> None:
        """Read from the pipe whether it is ready or has ended."""
        if os.read(self.reader, 1):
            self.is_ready = True
        else:
            self.reap(block=True)

    def reap(self, *, block: bool = False) -> bool:
        """Return whether the process has ended, and keep its exit code (negative for a signal)."""
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, 0 if block else os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
                os.close(self.reader)
        return self.exit_code is not None

    def signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _run_child(run: Run, writer: int, mask: set[int | signal.Signals]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            # The supervisor handles SIGHUP, and decides between reload and stop.
            ignored = number not in (signal.SIGINT, signal.SIGTERM)
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        def ready() -> None:
            with contextlib.suppress(OSError):  # the supervisor has ended
                os.write(writer, b"1")

        run(ready)
        code = 0
    except ProfileEnrichError as error:
        _log.error("a worker failed: %s", error.message)  # a traceback could quote a record or a key
    except BaseException as error:  # noqa: BLE001  # the boundary of the process
        _log.error("a worker failed: %s", type(error).__name__)
    finally:
        os._exit(code)


class Supervisor:
    """Run `count` workers until SIGINT, SIGTERM or SIGHUP, and replace those that die.

    A failed start is retried with exponential backoff while other workers serve. If none is left and several
    consecutive starts have failed, the supervisor ends.

    Args:
        run: the function of a worker; it calls its argument when it is ready.
        count: the number of workers.
        drain: seconds until a stopping worker is killed.
        on_reload: called in this process on SIGHUP, before the workers are replaced one by one. A `ProfileEnrichError`
            cancels the reload. With `None`, SIGHUP ends the workers.
        on_ready: called when all workers are ready.
    """

    def __init__(
        self,
        run: Run,
        count: int,
        *,
        drain: float,
        on_reload: Callable[[], None] | None = None,
        on_ready: Callable[[], None],
    ) -> None:
        self._run = run
        self._drain = drain
        self._on_reload = on_reload
        self._on_ready = on_ready
        self._workers: list[_Worker | None] = [None] * count
        self._retry_at = [0.0] * count
        self._failures = 0
        self._wakeup = -1
        self._received: int | None = None
        self._reload = False

    def run(self) -> int:
        """Supervise until a signal.

        Returns:
            The signal's number.

        Raises:
            ConfigurationError: a worker ended before it was ready, or no worker can be started any more.
        """
        with self._handling_signals():
            try:
                self._start()
                while self._received is None:
                    self._wait(self._next_retry())
                    self._replace_dead()
                    if self._reload:
                        self._reload = False
                        self._replace_all()
            finally:
                self._end([worker for worker in self._workers if worker is not None])
        return self._received

    def _start(self) -> None:
        problem = ""
        try:
            for place in range(len(self._workers)):
                self._workers[place] = _Worker(self._run)
        except OSError as error:
            problem = (
                f"the workers cannot be started: {error.strerror}; start fewer, or raise the limits of processes and"
                " open files"
            )
        if problem:
            raise ConfigurationError(problem)
        until = time.monotonic() + _START_TIMEOUT
        for worker in self._workers:
            if worker is not None and not self._wait_ready(worker, until) and self._received is None:
                raise ConfigurationError("a worker ended before it was ready; its message is above")
        if self._received is None:
            self._on_ready()

    def _wait(self, timeout: float | None) -> None:
        """Wait for a signal, or until a worker becomes ready or ends."""
        workers = {worker.reader: worker for worker in self._workers if worker is not None and worker.exit_code is None}
        self._poll(workers, timeout)

    def _poll(self, workers: dict[int, _Worker], timeout: float | None) -> None:
        if self._received is not None or self._reload:
            return
        poll = select.poll()
        for descriptor in (self._wakeup, *workers):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(None if timeout is None else max(0.0, timeout) * 1e3):
            if descriptor == self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 4096)
            else:
                workers[descriptor].read()

    def _wait_ready(self, worker: _Worker, until: float) -> bool:
        while not worker.is_ready and worker.exit_code is None and self._received is None and time.monotonic() < until:
            reload, self._reload = self._reload, False
            self._poll({worker.reader: worker}, until - time.monotonic())
            self._reload |= reload
        return worker.is_ready and worker.exit_code is None

    def _next_retry(self) -> float | None:
        dead = [at for worker, at in zip(self._workers, self._retry_at, strict=True) if worker is None]
        return min(dead) - time.monotonic() if dead else None

    def _replace_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            if self._received is not None:
                return
            if worker is not None and worker.reap():
                self._workers[place] = None
                lived = time.monotonic() - worker.started_at
                self._failures = 0 if lived >= _HEALTHY_AFTER else self._failures + 1
                wait = 0.0 if lived >= _RETRY_INITIAL and self._failures < 2 else self._backoff()
                self._retry_at[place] = time.monotonic() + wait
                _log.error("a worker ended (exit code %s); another one is started", worker.exit_code)
                self._check_hopeless()
            if self._workers[place] is None and time.monotonic() >= self._retry_at[place]:
                self._restart(place)

    def _restart(self, place: int) -> None:
        try:
            self._workers[place] = _Worker(self._run)
        except OSError as error:
            self._failures += 1
            wait = self._backoff()
            self._retry_at[place] = time.monotonic() + wait
            _log.error("a worker cannot be started (%s); trying again in %.1f s", error.strerror, wait)
        self._check_hopeless()

    def _check_hopeless(self) -> None:
        if self._failures >= _GIVE_UP_AFTER and not any(self._workers):
            raise ConfigurationError("no worker can be started any more; the messages above have the reason")

    def _backoff(self) -> float:
        return min(_RETRY_MAX, _RETRY_INITIAL * 2.0 ** max(0, self._failures - 1))

    def _replace_all(self) -> None:
        """Replace each worker with a new one after that is ready. If one cannot start, the others are kept."""
        problem = ""
        try:
            if self._on_reload is not None:
                self._on_reload()
            for place, old in enumerate(list(self._workers)):
                new = _Worker(self._run)
                if not self._wait_ready(new, time.monotonic() + _START_TIMEOUT):
                    self._end([new])
                    problem = "a new worker ended before it was ready"
                    break
                self._workers[place] = new
                if old is not None:
                    self._end([old])
        except ProfileEnrichError as error:  # its message holds no secrets
            problem = error.message
        except Exception as error:  # noqa: BLE001  # whatever it is, the running workers go on
            problem = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        if self._received is not None:
            return
        if problem:
            _log.error("not reloaded, the old settings stay: %s", problem)
        else:
            _log.warning("reloaded")

    def _end(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.signal(signal.SIGTERM)
        until = time.monotonic() + self._drain
        for worker in workers:
            while not worker.reap() and (left := until - time.monotonic()) > 0:
                # Its pipe closes when it ends; it may also send a late `ready`, which is discarded.
                if select.select([worker.reader], [], [], left)[0] and not os.read(worker.reader, 1):
                    break
            worker.signal(signal.SIGKILL) if time.monotonic() >= until else None
            worker.reap(block=True)

    @contextlib.contextmanager
    def _handling_signals(self) -> Generator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._received = number

        def reload(number: int, frame: FrameType | None) -> None:
            self._reload = True

        sys.stdout.flush()  # flush, so that a child does not write the buffers again
        self._wakeup, writer = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(writer, False)
        before_descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        before = {
            number: signal.signal(
                number, stop if self._on_reload is None or number in (signal.SIGINT, signal.SIGTERM) else reload
            )
            for number in _HANDLED
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_descriptor)
            os.close(self._wakeup)
            os.close(writer)
