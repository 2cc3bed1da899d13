"""`BlockingProfileClient`: the client for synchronous code such as Flask, Django views, workers and notebooks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol, TypeVar

from .._utils.fork import notice_fork, reset_after_fork, warn_before_fork
from ..profile import Profile, ProfileKey

__all__ = ["BlockingProfileClient"]

R = TypeVar("R")

Key = str | ProfileKey


class _AsyncClient(Protocol):
    async def get(self, key: Key, *, budget: float | None = None) -> Profile: ...
    async def lookup(self, key: Key, *, budget: float | None = None) -> Profile: ...
    async def refresh(self, key: Key, *, budget: float | None = None) -> Profile: ...
    async def get_many(
        self, keys: Iterable[Key], *, budget: float | None = None, concurrency: int = 64
    ) -> dict[Key, Profile]: ...
    async def lookup_many(
        self, keys: Iterable[Key], *, concurrency: int = 64, retry_timeout: float = 60.0
    ) -> dict[Key, Profile]: ...
    async def aclose(self) -> None: ...


class BlockingProfileClient:
    """A `ProfileClient` for synchronous code: lookups run on an event loop in a separate thread.

    `client.blocking()` makes it. Any number of threads may use it at the same time. The thread starts with the first
    lookup that needs it, and again in a forked child. A fresh hit is answered in the calling thread.

    It is a context manager; leaving it closes the client and ends the thread.
    """

    def __init__(self, client: _AsyncClient, fresh: Callable[[object], Profile | None]) -> None:
        self._client = client
        self._fresh = fresh
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        reset_after_fork(self)

    def get(self, key: Key, *, budget: float | None = None) -> Profile:
        """See `ProfileClient.get`."""
        return self._fresh(key) or self._run(self._client.get(key, budget=budget))

    def lookup(self, key: Key, *, budget: float | None = None) -> Profile:
        """See `ProfileClient.lookup`."""
        return self._fresh(key) or self._run(self._client.lookup(key, budget=budget))

    def refresh(self, key: Key, *, budget: float | None = None) -> Profile:
        """See `ProfileClient.refresh`."""
        return self._run(self._client.refresh(key, budget=budget))

    def get_many(
        self, keys: Iterable[Key], *, budget: float | None = None, concurrency: int = 64
    ) -> dict[Key, Profile]:
        """See `ProfileClient.get_many`."""
        return self._run(self._client.get_many(keys, budget=budget, concurrency=concurrency))

    def lookup_many(
        self, keys: Iterable[Key], *, concurrency: int = 64, retry_timeout: float = 60.0
    ) -> dict[Key, Profile]:
        """See `ProfileClient.lookup_many`."""
        return self._run(self._client.lookup_many(keys, concurrency=concurrency, retry_timeout=retry_timeout))

    def fresh(self, key: Key) -> Profile | None:
        """Return a fresh hit of the cache, counted; `None` for all else. It never waits.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
        """
        return self._fresh(key)

    def close(self) -> None:
        """Close the client and end the thread. A second call does nothing."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._client.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def __enter__(self) -> BlockingProfileClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """Forget the thread, in a forked child: it is the parent's."""
        self._lock = threading.Lock()
        self._loop = self._thread = None

    def submit(self, work: Coroutine[object, object, R]) -> concurrent.futures.Future[R]:
        """Start a coroutine on the client's event loop, from any thread, without waiting for it."""
        return asyncio.run_coroutine_threadsafe(work, self._running_loop())

    def _run(self, lookup: Coroutine[object, object, R]) -> R:
        future = self.submit(lookup)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C ends the wait; the load goes on
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        notice_fork()  # before the lock, which a thread of the parent may have held
        with self._lock:
            if self._loop is None:
                warn_before_fork()
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(loop,), name="profile_enrich", daemon=True)
                self._thread.start()
                self._loop = loop
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()
