"""Serves the embedded Profile API in this process, or in several that share a port."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from ...store import ProfileStore
from ..app import ProfileAPI
from ..auth.api_keys import ApiKey, Keys
from ..counters import shared_totals
from .sockets import listen, url_of
from .supervisor import MAX_WORKERS, Supervisor
from .uvicorn import ReloadableApp, import_uvicorn, make_server, on_terminal

__all__ = ["serve", "serve_app"]

_DRAIN = 5
"""Seconds that open requests have to end."""


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
    """Serves the embedded Profile API until SIGINT or SIGTERM, then ends open requests and returns.

    Args:
        store: the store or its path.
        keys: who may ask; required unless `no_auth`.
        no_auth: answer everybody.
        workspace: see `ProfileAPI`.
        host: the address to listen on. Only this machine by default; `0.0.0.0` for all.
        port: 0 takes any free one.
        workers: processes that share the port. More than one needs a system with `fork`, and the main thread.
        access_log: log one line a request to `profile_enrich.server.access`, without ids.
        log_level: of uvicorn's own messages.
        on_ready: called with the base URL, e.g. `http://127.0.0.1:8787`, once requests are answered.
        options: further arguments of `ProfileAPI`, e.g. `max_age`, `rate`, `audit`.

    Raises:
        ConfigurationError: no keys; or the address cannot be listened on (taken, not allowed, unknown); it says what to
            do.
        MissingExtraError: the extra `server` (uvicorn) is not installed.
        StoreError: the store cannot be opened.
    """
    _check_workers(workers)
    if not isinstance(keys, Keys) and keys is not None:
        keys = list(keys)

    def make() -> ProfileAPI:
        return ProfileAPI(
            store,
            keys=keys,
            no_auth=no_auth,
            workspace=workspace,
            access_log=access_log,
            workers=workers,
            totals=totals,
            **options,
        )

    with shared_totals(workers) as totals:
        serve_app(make, host=host, port=port, workers=workers, log_level=log_level, on_ready=on_ready)


def serve_app(
    make: Callable[[], ProfileAPI],
    *,
    host: str = "127.0.0.1",
    port: int = 8787,
    workers: int = 1,
    log_level: str = "warning",
    on_ready: Callable[[str], None] | None = None,
    reload: bool = False,
) -> None:
    """Serves what `make` makes, once in each worker.

    Args:
        make: makes the application.
        host: see `serve`; so are the others.
        port: see `serve`.
        workers: see `serve`.
        log_level: see `serve`.
        on_ready: see `serve`.
        reload: on SIGHUP, make the application anew, and have it take over without a pause; when it cannot be made, the
            old one goes on. Not in a terminal: when that closes, SIGHUP ends what runs in it.

    Raises:
        ConfigurationError: see `serve`.
        MissingExtraError: see `serve`.
        StoreError: see `serve`.
    """
    uvicorn = import_uvicorn()
    _check_workers(workers)
    reload = reload and not on_terminal()
    first = make()  # here, so that what is wrong is said by this call
    listener = listen(host, port)

    def run(app: ProfileAPI, ready: Callable[[], None], parent: int | None) -> None:
        holder = ReloadableApp(app, make if reload else None)
        config = uvicorn.Config(
            holder,
            # uvicorn's access log prints whole URLs, and they hold ids.
            access_log=False,
            log_level=log_level,
            lifespan="on",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_DRAIN,
        )
        make_server(uvicorn, config, holder, ready, parent).run(sockets=[listener])

    try:
        if workers == 1:
            run(first, lambda: on_ready(url_of(listener)) if on_ready is not None else None, None)
        else:
            first.close()
            parent_pid = os.getpid()
            Supervisor(
                lambda ready: run(make(), ready, parent_pid),
                workers,
                drain=_DRAIN + 2,
                reload=reload,
                on_ready=lambda: on_ready(url_of(listener)) if on_ready is not None else None,
            ).run()
    finally:
        listener.close()


def _check_workers(workers: int) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MAX_WORKERS:
        raise ConfigurationError(f"workers must be a whole number from 1 to {MAX_WORKERS}")
    if workers > 1 and not hasattr(os, "fork"):
        raise ConfigurationError("several workers need a system with fork, such as Linux or macOS; leave workers at 1")
    if workers > 1 and threading.current_thread() is not threading.main_thread():
        raise ConfigurationError("several workers are run from the main thread only: it hears the signals")
