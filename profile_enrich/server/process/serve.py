"""Serving of the embedded Profile API, from one or several processes that share a port."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..._utils.validation import check_int
from ...errors import ConfigurationError
from ...store import ProfileStore
from ..app import ProfileAPI
from ..auth.api_keys import ApiKey, Keys
from ..cross_worker_state import SharedState
from .sockets import bind, listen, url_of
from .supervisor import MAX_WORKERS, Supervisor
from .worker import DRAIN, require_uvicorn, run_worker

__all__ = ["serve", "serve_app"]

_LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


def serve(
    store: ProfileStore | Path | str,
    *,
    keys: Keys | Iterable[ApiKey] | None = None,
    no_auth: bool = False,
    workspace: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8787,
    workers: int = 1,
    access_log: bool = False,
    log_level: str = "warning",
    on_ready: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serve the embedded Profile API until SIGINT, SIGTERM or SIGHUP, then finish open requests and return.

    Args:
        store: the store or its path.
        keys: the API keys; required unless `no_auth`.
        no_auth: answer without a key.
        workspace: see `ProfileAPI`.
        host: the address to listen on. By default only this machine; `0.0.0.0` for all interfaces.
        port: the port; 0 for any free one.
        workers: the number of processes that share the port. More than one needs `fork`, and the main thread.
        access_log: log one line per request to `profile_enrich.server.access`, without ids.
        log_level: of uvicorn's own messages: `"critical"`, `"error"`, `"warning"`, `"info"` or `"debug"`. Its
            `"trace"` logs whole requests, with ids and keys, and is refused.
        on_ready: called with the base URL, e.g. `http://127.0.0.1:8787`, when the server is ready.
        options: further arguments of `ProfileAPI`, e.g. `max_age`, `rate`, `audit`.

    Raises:
        ConfigurationError: there are no keys, or the address cannot be used (taken, not allowed, unknown); the message
            has the remedy.
        MissingExtraError: the extra `server` (uvicorn) is not installed.
        StoreError: the store cannot be opened.
    """
    if not isinstance(keys, Keys) and keys is not None:
        keys = list(keys)

    def make(shared: SharedState) -> ProfileAPI:
        return ProfileAPI(
            store, keys=keys, no_auth=no_auth, workspace=workspace, access_log=access_log, shared=shared, **options
        )

    require_uvicorn()
    with contextlib.closing(bind(host, port)) as listener:
        serve_app(make, listener, workers=workers, log_level=log_level, on_ready=on_ready)


def serve_app(
    make: Callable[[SharedState], ProfileAPI],
    listener: socket.socket,
    *,
    workers: int = 1,
    log_level: str = "warning",
    on_ready: Callable[[str], None] | None = None,
    on_reload: Callable[[], None] | None = None,
) -> int | None:
    """Serve the application that `make` returns in each worker.

    Args:
        make: makes the application; its argument is the shared state, to pass on as `shared`.
        listener: a socket from `bind`.
        workers: see `serve`.
        log_level: see `serve`.
        on_ready: see `serve`.
        on_reload: called on SIGHUP, before new workers with a new application replace the old ones one by one, without
            downtime. A `ProfileEnrichError` in it, or in a new worker, keeps the old workers. By default SIGHUP ends
            the server.

    Returns:
        The number of the signal that ended the server; `None` if it ended otherwise.

    Raises:
        ConfigurationError: see `serve`.
        MissingExtraError: see `serve`.
        StoreError: see `serve`.
    """
    require_uvicorn()
    _check_workers(workers)
    if log_level not in _LOG_LEVELS:
        raise ConfigurationError(f"log_level must be one of {', '.join(_LOG_LEVELS)}")
    supervised = workers > 1 or on_reload is not None
    with SharedState.create(several=supervised) as shared:

        def ready() -> None:
            if on_ready is not None:
                on_ready(url_of(listener))

        app = make(shared)  # checked here, so that errors are raised in this call
        listen(listener)
        if not supervised:
            return run_worker(app, listener, log_level=log_level, ready=ready)
        app.close()
        parent = os.getpid()

        def work(ready: Callable[[], None]) -> None:
            run_worker(make(shared), listener, log_level=log_level, ready=ready, parent=parent)

        return Supervisor(work, workers, drain=DRAIN + 0.5, on_reload=on_reload, on_ready=ready).run()


def _check_workers(workers: int) -> None:
    if check_int("workers", workers, most=MAX_WORKERS) > 1 and not hasattr(os, "fork"):
        raise ConfigurationError("several workers need a system with fork, such as Linux or macOS; leave workers at 1")
    if workers > 1 and threading.current_thread() is not threading.main_thread():
        raise ConfigurationError("several workers run from the main thread only: it handles the signals")
