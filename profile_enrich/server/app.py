"""The embedded Profile API as an ASGI application."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from starlette.types import Receive, Scope, Send

from ..errors import ConfigurationError, StoreError
from ..store import ProfileStore
from . import amperity, census, tokens
from .auth import ANYONE, ApiKey, KeyRing, bearer_of
from .wire import JSON, BadRequest, Request, Response, json_response, read_body

__all__ = ["ProfileAPI"]

_log = logging.getLogger("profile_enrich.server")
_access = logging.getLogger("profile_enrich.server.access")

_Headers = tuple[tuple[bytes, bytes], ...]
_CHALLENGE: _Headers = ((b"www-authenticate", b"Bearer"),)


class _Dialect(Protocol):
    """What the modules `census` and `amperity` have in common."""

    def error(self, status: int, message: str, headers: _Headers = ...) -> Response: ...

    def answer(self, kind: str, request: Request, store: ProfileStore, key: ApiKey) -> Response: ...


class ProfileAPI:
    """The embedded Profile API: Census's and Amperity's URLs over one store, as a bare ASGI application.

    ```python
    app = ProfileAPI("profiles.store", keys=[ApiKey.from_secret(os.environ["PROFILE_API_KEY"])])
    ```

    Serve it with any ASGI server or mount it in an application: `Mount("/profile-api", app=ProfileAPI(...))`. The
    store's collections are entities in Census's dialect (base URL `…/api/v1`) and indexes in Amperity's (`…/api`).
    Both take a key's secret as bearer; Amperity's also the tokens of `/api/v0/oauth2/token` and
    `/api/v0/admin/api-keys/{key id}/tokens`. `/healthz` answers everybody and says nothing of the data; `/status` tells
    a key's holder the collections, their age and how many requests of each kind this process has answered.

    Args:
        store: the store, or its path (then it is closed when the server stops).
        keys: who may ask. Required unless `no_auth`.
        no_auth: answer everybody. Only for tests, and for networks that nobody else is on.
        workspace: the workspace (Amperity: tenant) that the store belongs to; that of the keys when they all have the
            same. Keys of other workspaces are refused.
        access_log: log one line a request to `profile_enrich.server.access`: what kind of request, status,
            milliseconds; never an id.

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
        ring = KeyRing(keys or ())
        if not ring and not no_auth:
            raise ConfigurationError(
                "the Profile API needs at least one key: keys=[ApiKey.from_secret(...)];"
                " to answer everybody, say no_auth=True"
            )
        if ring and no_auth:
            raise ConfigurationError("keys and no_auth contradict each other; give one of them")
        if workspace is None and len(ring.workspaces) > 1:
            raise ConfigurationError("the keys belong to several workspaces; say workspace= which one is served")
        self._workspace = workspace or next(iter(ring.workspaces), "default")
        if ring and self._workspace not in ring.workspaces:
            raise ConfigurationError("no key belongs to the workspace that is served, so nobody could ask")
        self._keys = None if no_auth else ring
        self._owns = not isinstance(store, ProfileStore)
        self._store = store if isinstance(store, ProfileStore) else ProfileStore(store)
        self._tokens = tokens.TokenIssuer(self._store.secret, ring, self._workspace)
        self._access_log = access_log
        self._requests: Counter[str] = Counter()
        self._responses: Counter[str] = Counter()
        self._started = time.time()

    @property
    def store(self) -> ProfileStore:
        """What is served."""
        return self._store

    @property
    def requests(self) -> dict[str, int]:
        """How many requests of each kind were answered, e.g. `{"census.record": 12}`."""
        return dict(self._requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, refuses a WebSocket, or follows the lifespan."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": ""})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._owns:
                    self._store.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request = Request(scope)
        kind, dialect = _route(request.segments)
        try:
            response = await self._answer(kind, dialect, request, receive)
        except BadRequest as bad:
            response = dialect.error(400, bad.message)
        except StoreError:
            _log.error("the store cannot be read")
            response = dialect.error(503, "The profiles cannot be read at the moment.")
        except Exception as failure:  # noqa: BLE001  # the boundary: a bug is answered in the vendor's envelope
            # Not the exception itself: its text may quote what was asked for.
            _log.error("%s in the answer to a %s request", type(failure).__name__, kind)
            response = dialect.error(500, "An internal error occurred.")
        self._requests[kind] += 1
        self._responses[f"{response.status // 100}xx"] += 1
        headers = [JSON, (b"content-length", b"%d" % len(response.body)), *response.headers]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})
        if self._access_log:
            _access.info("%s %s %.1f ms", kind, response.status, (time.perf_counter() - began) * 1e3)

    async def _answer(self, kind: str, dialect: _Dialect, request: Request, receive: Receive) -> Response:
        if kind.startswith("token."):
            if request.method != "POST":
                return _not_allowed(dialect, b"POST")
            body = await read_body(receive)
            if body is None:
                return dialect.error(413, "The body is too large.")
            if self._keys is None:
                raise BadRequest("Authentication is off: no token is needed.")
            return self._tokens.answer(kind, request, body)
        if request.method not in ("GET", "HEAD"):
            return _not_allowed(dialect, b"GET, HEAD")
        if kind == "healthz":
            return json_response(200, {"status": "ok"})
        if kind == "unknown":
            return dialect.error(404, "There is nothing here.")
        key = self._authenticate(request, dialect)
        if key is None:
            return dialect.error(401, "A valid key is required: Authorization: Bearer <key>.", _CHALLENGE)
        if key is not ANYONE and key.workspace != self._workspace:
            return dialect.error(403, "This key belongs to another workspace.")
        if kind == "status":
            return self._status(key)
        if dialect is amperity:
            refused = amperity.refuse(kind, request, None if key is ANYONE else self._workspace)
            if refused is not None:
                return refused
        if kind.endswith(".unknown"):
            return dialect.error(404, "There is nothing here.")
        return dialect.answer(kind, request, self._store, key)

    def _authenticate(self, request: Request, dialect: _Dialect) -> ApiKey | None:
        if self._keys is None:
            return ANYONE
        values = request.header(b"authorization")
        if not values and dialect is census:
            values = request.header(b"authentication")  # as Census's page writes it
        bearer = bearer_of(values)
        if bearer is None:
            return None
        key = self._keys.by_secret(bearer)
        return self._tokens.verify(bearer) if key is None and dialect is amperity else key

    def _status(self, key: ApiKey) -> Response:
        now = time.time()
        content = {
            "generation": self._store.generation,
            "uptime_seconds": round(now - self._started, 3),
            "collections": [
                {
                    "id": item.id,
                    "index_id": item.index_id,
                    "name": item.name,
                    "rows": item.rows,
                    "generation": item.generation,
                    "updated_at": item.updated_at.isoformat(timespec="seconds"),
                    "age_seconds": round(max(0.0, now - item.updated_at.timestamp()), 3),
                }
                for item in self._store.collections()
                if key.may_read(item.name)
            ],
            "requests": dict(self._requests),
            "responses": dict(self._responses),
        }
        return json_response(200, content)


def _not_allowed(dialect: _Dialect, methods: bytes) -> Response:
    return dialect.error(405, "This method is not allowed here.", ((b"allow", methods),))


def _route(segments: list[bytes]) -> tuple[str, _Dialect]:
    """What kind of request it is, and in whose envelope errors are said."""
    if segments[:1] == [b"api"]:
        rest = segments[2:]
        if segments[1:2] == [b"v1"]:
            return census.route(rest) or "census.unknown", census
        if segments[1:2] == [b"v0"]:
            return tokens.route(rest) or "amperity.unknown", amperity
        if segments[1:2] == [b"indexes"]:
            return amperity.route(segments[1:]) or "amperity.unknown", amperity
    if segments in ([b"healthz"], [b"status"]):
        return segments[0].decode(), census
    return "unknown", census
