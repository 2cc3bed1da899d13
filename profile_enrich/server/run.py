"""Serves the embedded Profile API in this process."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import ConfigurationError, MissingExtraError
from ..store import ProfileStore
from .app import ProfileAPI
from .auth import ApiKey

__all__ = ["serve"]

_DRAIN = 5
"""Seconds that open requests have to end."""


def serve(
    store: ProfileStore | Path | str,
    *,
    keys: Iterable[ApiKey] | None = None,
    no_auth: bool = False,
    workspace: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8787,
    access_log: bool = False,
    log_level: str = "warning",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves the embedded Profile API until SIGINT or SIGTERM, then ends open requests and returns.

    Args:
        store: the store or its path.
        keys: who may ask; required unless `no_auth`.
        no_auth: answer everybody.
        workspace: see `ProfileAPI`.
        host: the address to listen on. Only this machine by default; `0.0.0.0` for all.
        port: 0 takes any free one.
        access_log: log one line a request to `profile_enrich.server.access`, without ids.
        log_level: of uvicorn's own messages.
        on_ready: called with the base URL, e.g. `http://127.0.0.1:8787`, once requests are answered.

    Raises:
        ConfigurationError: no keys; or the address cannot be listened on (taken, not allowed, unknown); it says what to
            do.
        MissingExtraError: the extra `server` (uvicorn) is not installed.
        StoreError: the store cannot be opened.
    """
    uvicorn = _import_uvicorn()
    app = ProfileAPI(store, keys=keys, no_auth=no_auth, workspace=workspace, access_log=access_log)
    listener = _listen(host, port)

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]  # its class comes from an optional dependency
        """Says when it is ready, and returns from a signal instead of raising it once more."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started and on_ready is not None:
                on_ready(_url(listener))

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            with _handling_signals(self.handle_exit):
                yield

    config = uvicorn.Config(
        app,
        # uvicorn's access log prints whole URLs, and they hold ids.
        access_log=False,
        log_level=log_level,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_DRAIN,
    )
    try:
        Server(config).run(sockets=[listener])
    finally:
        listener.close()


def _import_uvicorn() -> Any:
    try:
        import uvicorn
    except ImportError:
        uvicorn = None  # type: ignore[assignment]  # said below, outside the handler
    if uvicorn is None:
        raise MissingExtraError("serving the Profile API", "server")
    return uvicorn


@contextlib.contextmanager
def _handling_signals(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python hears signals only there
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, made before anything else so that a taken port is said clearly.

    Raises:
        ConfigurationError: it cannot be had; the message says why and what to do.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigurationError("port must be a whole number from 0 to 65535")
    problem = ""
    found: list[Any] = []
    with contextlib.suppress(socket.gaierror, UnicodeError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    if not found:
        raise ConfigurationError(
            f"the host {host!r} is not an address of this machine; 127.0.0.1 is this machine alone, 0.0.0.0 all"
        )
    family, _, _, _, address = found[0]
    # With TCP named: asyncio switches Nagle's algorithm off for such sockets only, and each answer would wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # on Windows this would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        problem = {
            errno.EADDRINUSE: f"port {port} on {host} is taken; stop what listens there or choose another port",
            errno.EACCES: f"port {port} needs special rights; choose one from 1024 on",
            errno.EADDRNOTAVAIL: f"the host {host!r} is not an address of this machine",
        }.get(error.errno or 0, f"port {port} on {host} cannot be listened on: {error.strerror}")
    if problem:
        listener.close()
        raise ConfigurationError(problem)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
