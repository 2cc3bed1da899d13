"""Monitors: wrappers of the source and the limits, logs, warnings, threads, sockets and memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self
from weakref import WeakSet

from profile_enrich import Breaker, ProfileKey, RetryPolicy, SourceError
from profile_enrich._utils.deadline import Deadline
from profile_enrich.client.breaker import Permit
from profile_enrich.sources.base import Found, ProfileSource, SourceResult, Validators

from .checker import Checker, frames_of
from .expected_state import ExpectedState

__all__ = ["WHO", "Held", "LogWatcher", "WatchedBreaker", "WatchedRetry", "WatchedSource"]

WHO: ContextVar[str] = ContextVar("soak_who", default="")
"""Set by each request. No load may see it."""

_again: ContextVar[bool] = ContextVar("soak_again", default=False)


class WatchedSource:
    """A source that records its calls, and tags half of the profiles."""

    def __init__(self, inner: ProfileSource, expected: ExpectedState, checker: Checker, max_in_flight: int) -> None:
        self.name, self.namespace = inner.name, inner.namespace
        self.transport_name = getattr(inner, "transport_name", None)
        self.closing = False
        self.mortal: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        """Loops that may end at any moment, and their loads with them."""
        self._calls: dict[object, tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = {}
        self._inner = inner
        self._expected = expected
        self._checker = checker
        self._most = max_in_flight
        self._lock = threading.Lock()

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        check = self._checker.check
        check(not WHO.get(), "L9: a request's context rides on a load")
        self._checker.count("retry" if _again.get() else "load")
        _again.set(True)  # a load has a context of its own, so this is seen by its own retry alone
        loop = asyncio.get_running_loop()
        call = object()
        with self._lock:
            self._calls[call] = loop, asyncio.current_task()
            busy = sum(each is loop for each, _ in self._calls.values())
        check(busy <= self._most, "L10: more calls in flight than max_in_flight", busy)
        try:
            result = await self._inner.fetch(key, deadline=deadline, validators=validators)
        except asyncio.CancelledError as error:
            if not self.closing and loop not in self.mortal:
                check(False, "L2: a load was cancelled", frames_of(error))
            raise
        finally:
            with self._lock:
                del self._calls[call]
        if isinstance(result, Found):
            tag = self._expected.tag_of(key.value)
            if tag is not None:
                return replace(result, tags=frozenset({tag}))
        return result

    def calls_under_way(self) -> list[str]:
        """Return the state of each call's loop, and the frames of its task."""
        with self._lock:
            calls = list(self._calls.values())
        return [
            f"{loop} {'mortal' if loop in self.mortal else 'lasting'}: "
            + " > ".join(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" for frame in _stack(task))
            for loop, task in calls
        ]

    async def aclose(self) -> None:
        await self._inner.aclose()


def _stack(task: asyncio.Task[Any] | None) -> list[FrameType]:
    """The frames of a suspended task, outermost first. `Task.get_stack` knows the first of them alone."""
    found: list[FrameType] = []
    step: Any = None if task is None else task.get_coro()
    while step is not None:
        frame = getattr(step, "cr_frame", None) or getattr(step, "ag_frame", None)
        if frame is not None:
            found.append(frame)
        step = getattr(step, "cr_await", None) or getattr(step, "ag_await", None)
    return found


class WatchedBreaker(Breaker):
    """A breaker that records how many calls each half-open phase allows."""

    def __init__(self, checker: Checker, open_for: float) -> None:
        super().__init__(5, open_for=open_for, max_open=4 * open_for)
        self._checker = checker
        self._asking = threading.Lock()
        self._tries: Counter[int] = Counter()

    def ask(self) -> Permit | None:
        with self._asking:
            before = self.state
            permit = super().ask()
            if permit is not None and before != "closed":
                self._tries[permit.generation] += 1
                self._checker.count("breaker: tries")
                tries = self._tries[permit.generation]
                self._checker.check(tries == 1, "L10: a half-open breaker lets more than one through", tries)
            return permit


class WatchedRetry(RetryPolicy):
    """A retry policy that counts retries, and the loads that earn them."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0
        self.retries = 0
        self._counting = threading.Lock()

    def began(self) -> None:
        with self._counting:
            self.loads += 1
        super().began()

    def pause(self, error: SourceError, attempt: int, remaining: float) -> float | None:
        granted = super().pause(error, attempt, remaining)
        with self._counting:
            self.retries += granted is not None
        return granted


class LogWatcher(logging.Handler):
    """Records logs at every level, warnings and unhandled exceptions.

    Personal data in a log message is a violation, and so is any error that asyncio reports.
    """

    def __init__(self, expected: ExpectedState, checker: Checker) -> None:
        super().__init__(logging.DEBUG)
        self._expected = expected
        self._checker = checker
        self._undo: list[Callable[[], object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._checker.count(f"log: {record.name.partition('.')[0]} {record.levelname.lower()}")
        planted = self._expected.planted(text)
        self._checker.check(not planted, f"A18: personal data in a log message of {record.name}", record.msg)
        if record.name == "asyncio" and record.levelno >= logging.WARNING and not planted:
            self._checker.check(False, "L14: asyncio complains", text)

    def __enter__(self) -> Self:
        root = logging.getLogger()
        level = root.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        caught = warnings.catch_warnings()
        caught.__enter__()
        warnings.simplefilter("always", ResourceWarning)
        warnings.showwarning = self._warned
        hook, thread_hook = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._thread_died

        def undo() -> None:
            sys.unraisablehook, threading.excepthook = hook, thread_hook
            caught.__exit__(None, None, None)
            root.setLevel(level)
            root.removeHandler(self)

        self._undo.append(undo)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        gc.collect()
        self._undo.pop()()

    def _warned(self, message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        self._checker.check(not issubclass(category, ResourceWarning), "L14: a ResourceWarning", message)

    def _unraisable(self, args: Any) -> None:
        if isinstance(args.exc_value, RuntimeWarning) and "connect_tcp.<locals>.try_connect" in str(args.exc_value):
            return  # anyio's own: a task group that is cancelled before a child's first step never awaits that child
        self._checker.check(False, "L14: an exception that nobody took", f"{args.err_msg}: {args.exc_value!r}")

    def _thread_died(self, args: Any) -> None:
        name = "?" if args.thread is None else args.thread.name
        self._checker.check(False, "a thread died", f"{name}: {args.exc_value!r}")


@dataclass(frozen=True, slots=True)
class Held:
    """The resources of the process while it is idle."""

    tasks: int
    threads: tuple[str, ...]
    sockets: int
    blocks: int
    """Memory blocks that Python has given out."""
    rss: int
    """Bytes."""

    @classmethod
    def now(cls) -> Held:
        for _ in range(3):
            gc.collect()
        _trim()
        threads = [thread.name for thread in threading.enumerate()]
        return cls(
            tasks=len(asyncio.all_tasks()),
            # Worker threads of Starlette and of the loop stay as long as the loop.
            threads=tuple(sorted(name for name in threads if not name.startswith(("AnyIO", "asyncio_")))),
            sockets=_sockets(),
            blocks=sys.getallocatedblocks(),
            rss=_rss(),
        )


def _sockets() -> int:
    found = 0
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return 0
    for entry in list(folder.iterdir()):
        try:
            found += str(entry.readlink()).startswith(("socket:", "anon_inode:[eventpoll]", "pipe:"))
        except OSError:
            continue  # the folder's own descriptor
    return found


def _rss() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def _trim() -> None:
    """Return freed memory to the system, so that measurements show the memory in use."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
