"""The embedded Profile API as an ASGI application."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from starlette.types import Receive, Scope, Send

from ..errors import ConfigurationError, StoreError
from ..store import Collection, LocalStore, ProfileStore
from ..store.files.integrity import Scrubber
from .admission import Admission
from .audit import AuditLog
from .auth.api_keys import ANYONE, NOBODY, ApiKey, Keys
from .auth.rate_limits import Rate
from .counters import SharedCounters
from .cross_worker_state import SharedState
from .dialects import amperity
from .endpoints import batch, openapi
from .endpoints import records as writing
from .endpoints.change_feed import ChangeFeed, ChangeStream
from .endpoints.metrics import CONTENT_TYPE as METRICS_TYPE
from .endpoints.metrics import Metrics
from .endpoints.postman import postman_collection
from .endpoints.status import status_of
from .http.etag import HttpCaching
from .http.gzip import FROM_BYTES, Compression
from .http.messages import (
    JSON,
    MAX_ID_BYTES,
    VARY,
    BadRequest,
    Request,
    Response,
    json_response,
    read_body,
)
from .page import page_response
from .routing import Dialect, Headers, route
from .store_threads import StoreCalls

__all__ = ["ProfileAPI"]

_log = logging.getLogger("profile_enrich.server")
_access = logging.getLogger("profile_enrich.server.access")

_TOO_MANY = "Too many requests with this key; the header Retry-After says how many seconds to wait."
_OTHER_VERSION = (
    "This version of the API is not served here; this server has /api/v1 (Census) and /api/indexes with the header"
    f" api-version: {amperity.VERSION} (Amperity)."
)
_CHALLENGE: Headers = ((b"www-authenticate", b"Bearer"),)
_LATER: Headers = ((b"retry-after", b"5"),)

_CHECK_EVERY = 0.1
_SCRUB_RATE = 10_000_000
"""The bytes of data files that are verified per second: below one percent of a core."""
_SCRUB_PAUSE = 60.0
"""Seconds from one verification of all data files to the next."""
_MAX_RECORD = 1024 * 1024


class ProfileAPI:
    """The embedded Profile API: an ASGI application with Census's and Amperity's URLs over one store.

    ```python
    app = ProfileAPI("profiles.store", keys=[ApiKey.from_secret(os.environ["PROFILE_API_KEY"])])
    ```

    Serve it with any ASGI server or mount it in an application: `Mount("/profile-api", app=ProfileAPI(...))`. The
    store's collections are entities in Census's dialect (base URL `…/api/v1`) and indexes in Amperity's (`…/api`). Both
    accept a key's secret as bearer token; Amperity's dialect also accepts tokens of `/api/v0/oauth2/token` and
    `/api/v0/admin/api-keys/{key id}/tokens`. `/healthz` needs no key and reveals nothing about the data. `/status`
    shows a key's collections, their age and the number of requests by kind.

    Below each entity and index, `/changes` streams the changed keys as server-sent events. API keys with `admin` can
    `PUT` and `DELETE` single records.

    Args:
        store: the store, or its path. A store opened from a path is closed when the server stops.
        keys: the API keys, or a `KeyFile`. Required unless `no_auth`.
        no_auth: serve without authentication. Only for tests and private networks.
        workspace: the workspace (Amperity: tenant) of the store; by default that of the keys, if they all have the
            same. Keys of other workspaces are rejected.
        access_log: log one line per request to `profile_enrich.server.access`: kind, status and milliseconds, never an
            id.
        max_age: the `Cache-Control: max-age` of responses, in seconds; none by default. All responses are `private`,
            and support conditional requests with `If-None-Match`.
        compress_from: the size in bytes from which responses are gzipped for clients that accept it; `None` for never.
        feed: options of the change feed, e.g. `{"heartbeat": 30.0}`; see `ChangeFeed`.
        metrics: access to the Prometheus metrics at `/metrics` (extra `prometheus`): none (`"off"`), keys with access
            to all collections (`"keys"`), or without a key (`"open"`).
        shared: the counters and rate buckets shared by the workers of one server; see `SharedState.create`. Not shared
            by default.
        refreshing: returns the state of scheduled refreshing for `/status`, e.g. `RefreshSchedule.status`.
        page: serve the entities page at `/`: collections, lookups, filters and requests, within the scope of the key
            that the user enters.
        rate: the rate limit of keys without their own: a `Rate`, `"100/s"`, or the name of a vendor's documented limit
            (`"amperity"`). No limit by default.
        audit: the audit log, which records which key read which profile.
        before_read: an async function called with the collection and the record ids before a request reads them, after
            authentication and rate limiting. A relay fills the store in it.

    Raises:
        ConfigurationError: neither or both of `keys` and `no_auth` are given; or the keys have different workspaces and
            `workspace` is not given.
        StoreError: the store cannot be opened.
    """

    def __init__(
        self,
        store: ProfileStore | Path | str,
        *,
        keys: Iterable[ApiKey] | Keys | None = None,
        no_auth: bool = False,
        workspace: str | None = None,
        access_log: bool = False,
        max_age: int | None = None,
        compress_from: int | None = FROM_BYTES,
        feed: Mapping[str, Any] | None = None,
        rate: Rate | str | None = None,
        audit: AuditLog | None = None,
        before_read: Callable[[Collection, Sequence[str]], Awaitable[None]] | None = None,
        metrics: Literal["off", "keys", "open"] = "off",
        shared: SharedState | None = None,
        refreshing: Callable[[], Mapping[str, Any]] | None = None,
        page: bool = False,
    ) -> None:
        self._page = page
        self._caching = HttpCaching(max_age)
        self._compression = Compression(compress_from)
        shared = shared or SharedState()
        self._audit = audit
        self._before_read = before_read
        self._admission = Admission(keys, no_auth=no_auth, workspace=workspace, rate=rate, buckets=shared.buckets)
        self._owns = isinstance(store, Path | str)
        self._store = LocalStore(store, check_every=_CHECK_EVERY) if isinstance(store, Path | str) else store
        self._scrubber = (
            Scrubber(self._store.verify, rate=_SCRUB_RATE, pause=_SCRUB_PAUSE)
            if isinstance(self._store, LocalStore)
            else None
        )
        self._calls = StoreCalls(blocking=self._store.blocking)
        self._feed = ChangeFeed(self._store, places=shared.streams, **(feed or {}))
        self._tokens = self._admission.issuer(self._store.secret)
        self._access_log = access_log
        if metrics not in ("off", "keys", "open"):
            raise ConfigurationError('metrics is "off", "keys" or "open"')
        self._totals = SharedCounters(shared.directory)
        self._metrics = None if metrics == "off" else Metrics(self._totals, self._store, self._feed, refreshing)
        self._metrics_open = metrics == "open"
        self._refreshing = refreshing

    @property
    def store(self) -> ProfileStore:
        """The served store."""
        return self._store

    @property
    def requests(self) -> dict[str, int]:
        """The number of answered requests by kind, e.g. `{"census.record": 12}`."""
        counts: dict[str, int] = {}
        for (kind, _), count in self._totals.requests.items():
            counts[kind] = counts.get(kind, 0) + count
        return counts

    def end_streams(self) -> None:
        """End the streams of the change feed, so that a server waiting for open responses can stop.

        `serve` calls it, and a shutdown of uvicorn is detected. With another server that waits without a limit, call it
        on shutdown. It is thread-safe.
        """
        self._feed.end()

    def limit_streams(self, count: int) -> None:
        """Allow at most `count` streams of the change feed at once in this process, if more were allowed."""
        self._feed.limit(count)

    def started(self) -> None:
        """Allow streams again, and start to verify the data files of a local store.

        The lifespan calls it at startup; it is optional for an application without lifespan.
        """
        self._feed.begin()
        if self._scrubber is not None:
            self._scrubber.start()

    def close(self) -> None:
        """End the streams, flush the audit log, and close the store if the application opened it."""
        self._feed.end()
        if self._scrubber is not None:
            self._scrubber.stop()
        self._totals.write()
        self._calls.close()
        if self._audit is not None:
            self._audit.close()
        if self._owns:
            self._store.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, refuse a WebSocket, or handle the lifespan events."""
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
                self.started()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request = Request(scope)
        kind, dialect = route(request.segments)
        try:
            response = await self._answer(kind, dialect, request, receive)
        except BadRequest as bad:
            response = dialect.error(400, bad.message)
        except StoreError:
            _log.error("the store cannot be read")
            response = dialect.error(503, "The profiles cannot be read at the moment.")
        except Exception as failure:  # noqa: BLE001  # the boundary: a bug is answered in the vendor's envelope
            # Not the exception itself, whose text may quote the request.
            _log.error("%s in the answer to a %s request", type(failure).__name__, kind)
            response = dialect.error(500, "An internal error occurred.")
        personal = kind != "healthz" and not kind.startswith("page.")
        if self._audit is not None and personal:
            status = 200 if isinstance(response, ChangeStream) else response.status
            self._audit.note(self._store.secret, kind, request, status)
        if isinstance(response, ChangeStream):
            self._count(kind, 200, began)
            await response.run(receive, send, head=request.method == "HEAD")
            return
        headers = [*response.headers, *request.limits]
        if personal:
            headers.append(VARY)
        if response.status not in (204, 304):  # responses with these statuses have no body, and no headers about it
            if b"content-type" not in dict(response.headers):
                headers.append(JSON)
            headers += [(b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})
        self._count(kind, response.status, began)

    def _count(self, kind: str, status: int, began: float) -> None:
        seconds = time.perf_counter() - began
        self._totals.count(kind, status, seconds)
        if self._access_log:
            _access.info("%s %s %.1f ms", kind, status, seconds * 1e3)

    async def _answer(self, kind: str, dialect: Dialect, request: Request, receive: Receive) -> Response | ChangeStream:
        if kind.startswith("token."):
            if request.method != "POST":
                return _not_allowed(dialect, b"POST")
            body = await read_body(receive)
            if body is None:
                return dialect.error(413, "The body is too large.")
            if self._admission.no_auth:
                raise BadRequest("Authentication is off: no token is needed.")
            return self._tokens.answer(kind, request, body)
        writes = request.method in writing.METHODS and kind in _WRITABLE
        batched = kind.endswith(".batch")
        if batched and request.method != "POST":
            return _not_allowed(dialect, b"POST")
        nothing = (
            kind == "unknown"
            or (kind.startswith("page.") and not self._page)
            or (kind == "metrics" and self._metrics is None)
        )
        readable = not nothing and "unknown" not in kind  # a missing resource allows no method
        if request.method not in ("GET", "HEAD") and not writes and not batched and readable:
            return _not_allowed(dialect, b"GET, HEAD")
        if kind == "healthz":
            return json_response(200, {"status": "ok"})
        if kind.startswith("page.") and self._page:
            return page_response(kind, request.root)
        if kind == "unknown.version":
            return dialect.error(404, _OTHER_VERSION)
        if nothing:
            return dialect.error(404, _NOTHING)
        key = self._admission.authenticate(request, dialect, self._tokens)
        if key is None and kind == "metrics" and self._metrics is not None and self._metrics_open:
            return Response(200, self._metrics.text(NOBODY), (METRICS_TYPE,))
        if key is None:
            return dialect.error(401, "A valid key is required: Authorization: Bearer <key>.", _CHALLENGE)
        tenant = self._admission.tenant(key)
        if tenant not in (None, key.workspace):
            return dialect.error(403, "This key belongs to another workspace.")
        request.noted.key = key.id
        if not batched and not self._admission.admit(request, key, 1):
            return dialect.error(429, _TOO_MANY)
        if kind == "status":
            return self._status(key)
        if kind == "metrics" and self._metrics is not None:
            return Response(200, self._metrics.text(key), (METRICS_TYPE,))
        if kind in ("openapi", "postman"):
            return self._describe(kind, request, key, tenant)
        if dialect is amperity:
            refused = amperity.refuse(kind, request, tenant)
            if refused is not None:
                return refused
        if kind.endswith(".unknown"):
            return dialect.error(404, "There is nothing here.")
        if kind.endswith(".changes"):
            return self._follow(dialect, request, key)
        if writes:
            with contextlib.suppress(StoreError):
                return await self._write(dialect, request, key, receive)
            _log.error("the store cannot be written")
            return dialect.error(503, "The profiles cannot be changed at the moment.", _LATER)
        if batched:
            response = await self._batch(kind, dialect, request, receive, key)
            return self._compression.answer(request, response)
        if self._before_read is not None and kind in _WRITABLE:
            collection = dialect.collection_of(request, self._store, key)
            if not isinstance(collection, Response):
                await self._before_read(collection, [dialect.record_id_of(request)])
        response = await self._calls.run(dialect.answer, kind, request, self._store, key)
        return self._compression.answer(request, self._caching.answer(request, response))

    def _follow(self, dialect: Dialect, request: Request, key: ApiKey) -> Response | ChangeStream:
        collection = dialect.collection_of(request, self._store, key)
        if isinstance(collection, Response):
            return collection
        if not key.sees_ids(collection):
            return dialect.error(403, "This key may not see the ids that the feed consists of.")
        after = request.one_header(b"last-event-id")

        def allowed() -> bool:
            # The key may have been revoked, or its token may have expired, since the stream was opened.
            now = self._admission.authenticate(request, dialect, self._tokens)
            return now is not None and now.may_read(collection.name) and now.sees_ids(collection)

        with contextlib.ExitStack() as stack:
            if not stack.enter_context(self._feed.place(None if key is ANYONE else key.id)):
                return dialect.error(429, "This key has too many streams open; close one, or come back later.", _LATER)
            stream = self._feed.open(collection, None if after is None else after.decode("latin-1"), allowed)
            if stream is None:
                return dialect.error(503, "There are too many streams; come back later.", _LATER)
            stream.held = stack.pop_all()
            return stream

    async def _write(self, dialect: Dialect, request: Request, key: ApiKey, receive: Receive) -> Response:
        collection = dialect.collection_of(request, self._store, key)
        if isinstance(collection, Response):
            return collection
        if not key.admin:  # other keys only see the vendors' API
            return _not_allowed(dialect, b"GET, HEAD")
        record_id = dialect.record_id_of(request)
        if not record_id or len(record_id.encode()) > MAX_ID_BYTES:
            raise BadRequest(f"The id of a record has 1 to {MAX_ID_BYTES} bytes.")
        request.noted.records.append((record_id, None))
        if request.method == "DELETE":
            if not await writing.delete(self._store, collection, record_id):
                return dialect.error(404, "There is no such record.")
            self._feed.notify()
            return Response(204, b"")
        body = await read_body(receive, _MAX_RECORD)
        if body is None:
            return dialect.error(413, "The body is too large.")
        record = writing.read_record(body, request.header(b"content-type"))
        new = await writing.put(self._store, collection, record_id, record)
        self._feed.notify()
        return json_response(201 if new else 200, {"id": record_id, "created": new})

    async def _batch(self, kind: str, dialect: Dialect, request: Request, receive: Receive, key: ApiKey) -> Response:
        body = await read_body(receive, batch.MAX_BODY)
        if body is None:
            return dialect.error(413, "The body is too large.")
        ids = batch.ids_of(body)
        rate = self._admission.rate_of(key)
        if rate is not None and len(ids) > rate.requests:
            raise BadRequest(f"Each id counts as a request, and this key has {rate}: ids may have {rate.requests}.")
        if not self._admission.admit(request, key, len(ids)):
            return dialect.error(429, _TOO_MANY)
        collection = dialect.collection_of(request, self._store, key)
        if isinstance(collection, Response):
            return collection
        if self._before_read is not None:
            await self._before_read(collection, ids)
        return await self._calls.run(batch.answer, kind, request, ids, self._store, collection, key)

    def _describe(self, kind: str, request: Request, key: ApiKey, tenant: str | None) -> Response:
        collections = self._store.collections()
        if kind == "postman":
            document = postman_collection(collections, key, workspace=tenant)
        else:
            document = openapi.describe(collections, key, server=request.root or "/", workspace=tenant)
        return self._compression.answer(request, self._caching.answer(request, json_response(200, document)))

    def _status(self, key: ApiKey) -> Response:
        refreshing = None if self._refreshing is None else self._refreshing()
        content = status_of(self._store, self._totals, self._feed, key, refreshing)
        return json_response(200, {"workspace": self._admission.workspace, **content})


_NOTHING = "There is nothing here: Census's paths begin with /api/v1, Amperity's with /api."

_WRITABLE = ("census.record", "amperity.profile")


def _not_allowed(dialect: Dialect, methods: bytes) -> Response:
    return dialect.error(405, "This method is not allowed here.", ((b"allow", methods),))
