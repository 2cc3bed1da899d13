"""The embedded Profile API as an ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from starlette.types import Receive, Scope, Send

from ..store import ProfileStore
from .auth import ApiKey

__all__ = ["ProfileAPI"]


class ProfileAPI:
    """The embedded Profile API: Census's and Amperity's URLs over one store, as a bare ASGI application.

    ```python
    app = ProfileAPI("profiles.store", keys=[ApiKey.from_secret(os.environ["PROFILE_API_KEY"])])
    ```

    Serve it with any ASGI server or mount it in an application: `Mount("/profile-api", app=ProfileAPI(...))`.

    Args:
        store: the store, or its path (then it is closed when the server stops).
        keys: who may ask. Required unless `no_auth`.
        no_auth: answer everybody. Only for tests, and for networks that nobody else is on.
        workspace: the workspace (Amperity: tenant) that the store belongs to; that of the keys when they all have the
            same. Keys of other workspaces are refused.
        access_log: log one line a request: what kind of request, status, milliseconds; never an id.

    Raises:
        ConfigurationError: there are no keys and `no_auth` was not said; or both; or the keys have different
            workspaces and `workspace` was not said.
        StoreError: the store cannot be opened.
    """

    def __init__(
        self,
        store: ProfileStore | Path | str,
        *,
        keys: Iterable[ApiKey] | None = None,
        no_auth: bool = False,
        workspace: str | None = None,
        access_log: bool = False,
    ) -> None:
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, WebSocket (refused) or lifespan."""
        raise NotImplementedError
