"""Detection of new generations: through LISTEN, or by polling if there is a pooler."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from ..._utils.fork import reset_after_fork
from ...errors import StoreError
from .connections import new_connection
from .driver import psycopg

__all__ = ["ChangeListener", "channel"]


def channel(schema: str) -> str:
    """Return the name of the notification channel for new generations."""
    return f"profile_enrich_{schema}"


class ChangeListener:
    """A thread that checks for newer generations while a store is open. The first call in a process starts it.

    Args:
        url: the URL of the primary.
        schema: the schema of the store.
        look: a function that checks for a newer generation.
        every: seconds between checks without a notification.
    """

    def __init__(self, url: str, schema: str, look: Callable[[], object], every: float) -> None:
        self._url = url
        self._schema = schema
        self._look = look
        self._every = every
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the parent's thread in a forked child."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Start the thread unless it is running."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._closed = threading.Event()
                    self._thread = threading.Thread(
                        target=self._run, args=(self._closed,), name="profile_enrich-generations", daemon=True
                    )
                    self._thread.start()

    def close(self) -> None:
        """End the thread, and wait briefly for it."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._closed.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * self._every + 1)

    def _run(self, closed: threading.Event) -> None:
        while not closed.is_set():
            # The server is unavailable or was promoted: keep serving, and reconnect in the next round.
            with contextlib.suppress(StoreError, psycopg.Error):
                self._follow(closed)
            closed.wait(self._every)

    def _follow(self, closed: threading.Event) -> None:
        connection = new_connection(self._url, statement_timeout=None, prepare=False)
        try:
            listens = not connection.pooled
            if listens:
                connection.execute(f'LISTEN "{channel(self._schema)}"'.encode())
            while not closed.is_set():
                self._look()
                if not listens:
                    connection.close()
                    closed.wait(self._every)
                    continue
                waited = 0.0
                while waited < self._every and not closed.is_set():
                    # in short steps, so that closing is fast
                    step = min(0.25, self._every)
                    if any(True for _ in connection.notifies(timeout=step, stop_after=1)):
                        break
                    waited += step
        finally:
            connection.close()
