"""Worker: run the application on uvicorn in this process."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

from ..._utils.optional_import import import_extra
from ..app import ProfileAPI

__all__ = ["DRAIN", "on_terminal", "require_uvicorn", "run_worker"]

DRAIN = 1
"""Seconds that open requests have to finish."""

_ACCEPT_AT_ONCE = 16
"""The number of connections accepted per loop iteration, so that the connection limit can take effect."""
_BACKLOG = 2048


def require_uvicorn() -> None:
    """Check that uvicorn and httptools are installed.

    Raises:
        MissingExtraError: uvicorn or httptools is missing.
    """
    for module in ("httptools", "uvicorn"):
        import_extra(module, "serving the Profile API", "server")


def run_worker(
    app: ProfileAPI,
    listener: socket.socket,
    *,
    log_level: str,
    ready: Callable[[], None],
    parent: int | None = None,
) -> int | None:
    """Serve until SIGINT, SIGTERM or SIGHUP (SIGHUP only without a parent).

    Args:
        app: the application.
        listener: the listening socket.
        log_level: level of uvicorn's own messages.
        ready: called when requests are served.
        parent: the process id of the supervisor; the worker ends with it. `None` without a supervisor.

    Returns:
        The signal's number; `None` if it ended otherwise.
    """
    import uvicorn

    from .connection_limits import ConnectionLimits, limited_protocol

    limits = ConnectionLimits.for_this_process()
    app.limit_streams(limits.connections // 2)
    received: list[int] = []

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                listener.listen(_BACKLOG)  # uvicorn has set the backlog to its number of accepted connections
                if threading.current_thread() is threading.main_thread():  # not in a thread of another program
                    # Collections of all that is alive now would pause a busy worker for tens of milliseconds.
                    gc.unfreeze()  # what the application before a reload left behind
                    gc.collect()
                    gc.freeze()
                ready()

        async def on_tick(self, counter: int) -> bool:
            if parent is not None and os.getppid() != parent:
                self.should_exit = True
            return await super().on_tick(counter)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.end_streams()
            await super().shutdown(sockets=sockets)

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            def stop(number: int, frame: FrameType | None) -> None:
                received.append(number)
                self.handle_exit(number, frame)

            with _handling_signals(stop, hangup=parent is None):
                yield

    config = uvicorn.Config(
        app,
        http=limited_protocol(limits),
        # uvicorn's access log prints full URLs, which hold ids.
        access_log=False,
        log_level=log_level,
        lifespan="on",
        ws="none",
        server_header=False,
        backlog=_ACCEPT_AT_ONCE,
        timeout_keep_alive=limits.idle_timeout,
        timeout_graceful_shutdown=DRAIN,
    )
    Server(config).run(sockets=[listener])
    return received[0] if received else None


def on_terminal() -> bool:
    """Return whether standard input is a terminal, whose SIGHUP must end the command."""
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # missing or closed
        return False


@contextlib.contextmanager
def _handling_signals(stop: Callable[[int, Any], None], *, hangup: bool) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python handles signals only in the main thread
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangup and hasattr(signal, "SIGHUP") else [])]
    # If `nohup` ignores SIGHUP, keep ignoring it.
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
