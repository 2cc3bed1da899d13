"""Background event loop for loads that outlive the event loop of their caller."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from .._utils.fork import reset_after_fork
from ..errors import ProfileEnrichError

__all__ = ["BackgroundLoop"]

IDLE_SECONDS = 1.0
"""Idle seconds after which the thread ends."""


class BackgroundLoop:
    """An event loop in a daemon thread, which runs while there are loads for it.

    Some frameworks make an event loop for each request (`asgiref.sync.async_to_sync`, some test clients). A refresh
    that is started on such a loop is cancelled with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: deque[Callable[[], object]] = deque()
        self._running = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        reset_after_fork(self)

    def submit(self, start: Callable[[], object]) -> None:
        """Start a load on the loop; `start` may raise a `ProfileEnrichError` if it starts none."""
        with self._lock:
            self._starts.append(start)
            if self._running:
                self._notify()
                return
            self._running = True
        threading.Thread(target=self._run, name="profile_enrich refreshes", daemon=True).start()

    def stop(self) -> None:
        """Drop loads that have not started, and end the thread after the running ones."""
        with self._lock:
            self._starts.clear()
            self._notify()

    def is_running_here(self) -> bool:
        """Return whether the caller is on the loop."""
        return self._loop is not None and self._loop is asyncio.get_running_loop()

    def after_fork(self) -> None:
        """Forget the thread, in a forked child: it is the parent's."""
        self._lock = threading.Lock()
        self._starts.clear()
        self._running = False
        self._loop = self._wake = None

    def _notify(self) -> None:
        if self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        wake = asyncio.Event()
        with self._lock:
            self._loop, self._wake = asyncio.get_running_loop(), wake
        while True:
            wake.clear()
            while self._starts:
                with contextlib.suppress(ProfileEnrichError):
                    self._starts.popleft()()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await wake.wait()
                    continue
            with self._lock:
                if not self._starts and len(asyncio.all_tasks()) == 1:
                    self._running = False
                    self._loop = self._wake = None
                    return
