"""Serves the embedded Profile API in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..store import ProfileStore
from .auth import ApiKey

__all__ = ["serve"]


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
        access_log: log one line a request, without ids.
        log_level: of uvicorn's own messages.
        on_ready: called with the base URL, e.g. `http://127.0.0.1:8787`, once requests are answered.

    Raises:
        ConfigurationError: no keys; or the address cannot be listened on (taken, not allowed, unknown), with what to do.
        MissingExtraError: the extra `server` (uvicorn) is not installed.
        StoreError: the store cannot be opened.
    """
    raise NotImplementedError
