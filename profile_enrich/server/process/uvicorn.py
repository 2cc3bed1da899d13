"""uvicorn, with signals that are ours: ready when it answers, reloaded on SIGHUP, gone with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, cast

from starlette.types import Receive, Scope, Send

from ...errors import MissingExtraError, ProfileEnrichError
from ..app import ProfileAPI

__all__ = ["ReloadableApp", "import_uvicorn", "make_server", "on_terminal"]

_log = logging.getLogger("profile_enrich.server")

_LINGER = 30.0
"""Seconds that an application which was replaced has for its last requests."""


def import_uvicorn() -> Any:
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        uvicorn = None  # type: ignore[assignment]  # said below, outside the handler
    if uvicorn is None:
        raise MissingExtraError("serving the Profile API", "server")
    return uvicorn


class ReloadableApp:
    """Stands for the application, so that another one can take its place while requests come in.

    Args:
        app: the first one.
        make: makes the next; `None` where there is to be none.
    """

    def __init__(self, app: ProfileAPI, make: Callable[[], ProfileAPI] | None) -> None:
        self.app = app
        self._make = make
        self._replaced: list[ProfileAPI] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on to the application of this moment."""
        await self.app(scope, receive, send)

    @property
    def reloads(self) -> bool:
        """Whether there may be another one."""
        return self._make is not None

    def reload(self) -> None:
        """Puts a new application in the place of the old one, which ends its streams and answers what it has begun."""
        if self._make is None:
            return
        problem = ""
        new: ProfileAPI | None = None
        try:
            new = self._make()
        except ProfileEnrichError as error:  # its message is free of secrets
            problem = error.message
        except Exception as error:  # noqa: BLE001  # whatever it is, what runs must go on
            problem = type(error).__name__
        if new is None:
            _log.error("not reloaded, the old settings stay: %s", problem)
            return
        old, self.app = self.app, new
        self._replaced.append(old)
        old.end_streams()
        new.started()
        asyncio.get_running_loop().call_later(_LINGER, self._drop, old)
        _log.warning("reloaded")

    def _drop(self, app: ProfileAPI) -> None:
        if app in self._replaced:
            self._replaced.remove(app)
            app.close()

    def end(self) -> None:
        """The server stops: no stream may hold it up."""
        self.app.end_streams()
        for app in list(self._replaced):
            self._drop(app)


def make_server(
    uvicorn: Any, config: Any, holder: ReloadableApp, ready: Callable[[], None], parent: int | None = None
) -> Any:
    """A server that calls `ready` once it answers, and returns from a signal instead of raising it once more.

    Args:
        uvicorn: the module.
        config: of the server.
        holder: the application.
        ready: called once requests are answered.
        parent: the process without which this one must not go on; `None` for a process of its own.
    """

    class Server(uvicorn.Server):  # type: ignore[misc]  # its class comes from an optional dependency
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                ready()

        async def on_tick(self, counter: int) -> bool:
            if parent is not None and os.getppid() != parent:
                self.should_exit = True
            return cast("bool", await super().on_tick(counter))

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            holder.end()
            await super().shutdown(sockets=sockets)

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            with _handling_signals(self.handle_exit, holder.reload if holder.reloads else None):
                yield

    return Server(config)


def on_terminal() -> bool:
    """Whether somebody sits before it: when their terminal closes, SIGHUP must end it, as it does every command."""
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


@contextlib.contextmanager
def _handling_signals(
    leave: Callable[[int, FrameType | None], None], reload: Callable[[], None] | None
) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python hears signals only there
        yield
        return
    handlers: dict[int, Any] = {signal.SIGINT: leave, signal.SIGTERM: leave}
    hup: int | None = getattr(signal, "SIGHUP", None)
    if hup is not None and reload is not None:
        loop = asyncio.get_running_loop()

        def on_hup(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(reload)

        handlers[hup] = on_hup
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
