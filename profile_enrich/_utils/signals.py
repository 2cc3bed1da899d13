"""Signal handling of long commands: end quickly on SIGINT, SIGTERM and SIGHUP, and remove temporary files.

A signal handler must not raise, because the exception would appear inside of the main thread's current call, e.g. an
import or a database call. This handler removes the registered paths and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import TypeVar

__all__ = [
    "SAID",
    "ending_on_signals",
    "is_ending",
    "on_signal",
    "removed_on_signal",
    "run_in_thread",
    "stopping_on_signals",
]

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], None]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_SHOW_CURSOR = b"\x1b[?25h"
SAID = {2: "Interrupted.", 15: "Terminated.", 1: "Hung up."}
"""The message of a command ended by a signal, by the signal's number."""

_GRACE = 1.5
"""Seconds that a command has to stop, or to flush its output to a pipe."""
_TRIES = 20

# By process, so that a forked child removes nothing of its parent.
_callbacks: list[tuple[int, Callable[[str], None]]] = []
_ending: list[int] = []
"""The signal that is ending the process."""


@contextlib.contextmanager
def on_signal(callback: Callable[[str], None]) -> Generator[None]:
    """Call a function with the signal's name if a signal ends the process inside the `with` block.

    It runs in the signal handler, so it must be fast and must not take a lock that another thread may hold.
    """
    entry = (os.getpid(), callback)
    _callbacks.append(entry)
    try:
        yield
    finally:
        _callbacks.remove(entry)


@contextlib.contextmanager
def removed_on_signal(path: Path) -> Generator[None]:
    """Remove a file or a directory if a signal ends the process inside the `with` block."""
    with on_signal(lambda _: _remove(path)):
        yield


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for _ in range(_TRIES):  # a running thread may create a file while the directory is being deleted
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return


def is_ending() -> bool:
    """Return whether a signal is ending the process, so that a thread must not create again what is being removed."""
    return bool(_ending)


@contextlib.contextmanager
def ending_on_signals() -> Generator[None]:
    """End the process with exit code 128 + n on SIGINT, SIGTERM and SIGHUP inside the `with` block.

    Handlers other than the default are kept: `nohup` ignores SIGHUP, and a server has its own handlers. Only the main
    thread can set handlers; in another thread, none is set.
    """
    with _handling(_end, taking_over=(signal.SIG_DFL, signal.default_int_handler)):
        yield


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Generator[list[int]]:
    """Call a function at the first signal inside the `with` block, instead of ending the process immediately.

    A second signal ends the process. So does a timeout of 1.5 seconds, e.g. if the command is blocked by a full pipe;
    it then ends as with `ending_on_signals`.

    Yields:
        The numbers of the received signals.
    """
    received: list[int] = []

    def first(number: int, frame: FrameType | None) -> None:
        if received:
            _end(number, frame)
        received.append(number)
        _set_alarm(lambda: _end(number, None))
        stop()

    try:
        with _handling(first, taking_over=(signal.SIG_DFL, signal.default_int_handler, _end)):
            yield received
    finally:
        if received:
            _set_alarm(None)


@contextlib.contextmanager
def _handling(handler: Handler, *, taking_over: tuple[object, ...]) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    mine = [number for number, old in before.items() if old in taking_over]
    for number in mine:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def _set_alarm(action: Callable[[], None] | None) -> None:
    """Call a function in `_GRACE` seconds, also while the main thread waits for the system; `None` for not at all."""

    def ring(number: int, frame: FrameType | None) -> None:
        if action is not None:
            action()

    if hasattr(signal, "setitimer"):  # not on Windows
        # Again and again: one that arrives just before the main thread begins to wait is not seen by Python.
        signal.setitimer(signal.ITIMER_REAL, 0.0 if action is None else _GRACE, 0.2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if action is None else ring)


def run_in_thread(work: Callable[[], T]) -> T:
    """Run a function in a thread and return its result, so that the main thread can handle signals.

    Exceptions propagate. A signal ends the process immediately (see `ending_on_signals`), so the function's output must
    survive a `kill -9`.
    """
    results: list[T] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # the main thread raises it again
            failures.append(error)
        finally:
            done.set()

    with ending_on_signals():
        threading.Thread(target=run, name="profile-enrich-work", daemon=True).start()
        while not done.wait(0.5):  # with a timeout, because Windows otherwise does not deliver Ctrl-C
            pass
    if failures:
        raise failures.pop()
    return results[0]


def _end(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    _ending.append(number)
    _set_alarm(None)
    for pid, callback in reversed(_callbacks):
        if pid == os.getpid():
            with contextlib.suppress(Exception):  # run the remaining ones
                callback(name)
    _set_alarm(lambda: os._exit(128 + number))  # the next step may block on a full pipe
    if not any(pid != os.getpid() for pid, _ in _callbacks):
        with contextlib.suppress(OSError):
            terminal = _SHOW_CURSOR if os.isatty(2) else b""
            os.write(2, terminal + f"{SAID[number]}\n".encode())
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(128 + number)
