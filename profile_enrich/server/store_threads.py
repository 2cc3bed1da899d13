"""Threads for store calls that may wait for a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["StoreCalls"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_THREADS = 32


class StoreCalls:
    """Run calls that read the store.

    Args:
        blocking: whether the store may wait for a network. A local one is read on the event loop, which is faster.
    """

    def __init__(self, *, blocking: bool) -> None:
        self._blocking = blocking
        self._threads: ThreadPoolExecutor | None = None

    async def run(
        self, call: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Run a call and return its result."""
        if not self._blocking:
            return call(*args, **kwargs)
        if self._threads is None:  # created here, because threads do not survive the fork of a worker
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="profile_enrich-store")
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **kwargs))

    def close(self) -> None:
        """End the threads after their calls."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)
