"""`VendorServer`: a vendor's profile API on 127.0.0.1 with scripted faults."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self, cast

from .exchange import Answer, Exchange
from .faults import Fault, Healthy
from .recorder import Call, Recorder
from .server_connection import serve_connection
from .vendor_dialects import Profiles, Vendor, VendorCollection

__all__ = ["VendorServer"]

Match = str | Callable[[Call], bool]


def _changeable(profiles: Mapping[str, Mapping[str, object]] | None) -> Profiles:
    # A Mapping, so that a dict of dicts is accepted; it is served itself, not copied.
    return {} if profiles is None else cast("Profiles", profiles)


class _Rule:
    """Faults for matching requests: one each, then `then`."""

    def __init__(self, faults: Iterable[Fault], then: Fault | None, match: Match | None, key: str | None) -> None:
        self.faults = deque(faults)
        self.then = then
        self._match = match
        self._key = key

    def applies(self, call: Call) -> bool:
        if self._key is not None and call.key != self._key:
            return False
        if self._match is None:
            return True
        return self._match in call.path if isinstance(self._match, str) else self._match(call)

    def take(self) -> Fault | None:
        return self.faults.popleft() if self.faults else self.then


class VendorServer(Recorder):
    """A real HTTP/1.1 server with Census's and Amperity's formats over a dictionary, and scripted faults.

    ```python
    with VendorServer(profiles={"u1": {"tier": "gold"}}, entity="Users", key="secret") as vendor:
        source = CensusSource(api_key="secret", entity="Users", base_url=vendor.base_url)
        vendor.script(faults.Reset(), faults.ServerError())     # the next two requests
        ...
        assert vendor.call_count == 3
    ```

    It runs on its own event loop in a separate thread, so a blocked test loop does not delay it. It is a sync and async
    context manager, and listens on a free port of 127.0.0.1. Leaving the block aborts hanging requests, and closes all
    threads, tasks and sockets.

    Args:
        profiles: attributes by profile id. The object is not copied, so changes apply immediately.
        entity: the collection's name: Census's entity and Amperity's index.
        key: the API key (Census) and static token (Amperity); `None` for no authentication.
        tenant: Amperity's tenant.
        id_column: the attribute with the id of a Census record.
        client_id: for OAuth client credentials.
        client_secret: for OAuth client credentials.
        issuer_key: for Amperity's older exchange of an issuer token.
        token_ttl: the lifetime of an issued token, in seconds.
        token_field: the field of the issuer exchange's answer that holds the token; the vendor does not document it.
        clock: the clock of token expiry, in seconds; `time.monotonic`, or a `ManualClock`.
        clock_skew: seconds by which the `Date` header is ahead.
        etags: whether to send `ETag`, and 304 for a matching `If-None-Match`.
        seed: the seed of the faults' random numbers.
        tls: a TLS context to serve HTTPS.
    """

    def __init__(
        self,
        profiles: Mapping[str, Mapping[str, object]] | None = None,
        *,
        entity: str = "Users",
        key: str | None = "secret",
        tenant: str = "acme",
        id_column: str = "id",
        client_id: str = "client",
        client_secret: str = "client-secret",  # noqa: S107  # a test server's, not a credential
        issuer_key: str = "issuer",
        token_ttl: float = 3600.0,
        token_field: str = "access-token",  # noqa: S107  # the name of a field
        clock: Callable[[], float] = time.monotonic,
        clock_skew: float = 0.0,
        etags: bool = False,
        seed: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        self.profiles = _changeable(profiles)
        """Attributes by profile id in the first collection; may be modified while the server runs."""
        self.headers: dict[str, str] = {}
        """Headers of every healthy response, e.g. `Deprecation` or `Cache-Control`; may be modified while it runs."""
        self.clock_skew = clock_skew
        self._vendor = Vendor(key, tenant, client_id, client_secret, issuer_key, token_ttl, token_field, clock)
        self._vendor.id_column = id_column
        self._first = self._vendor.add(entity, self.profiles)
        self._etags = etags
        self._tls = tls
        self._random = random.Random(seed)  # noqa: S311  # reproducible on purpose
        self._lock = threading.Lock()
        self._scripts: list[_Rule] = []
        self._always: list[_Rule] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._release: asyncio.Event | None = None
        self._failed: list[OSError] = []
        self._port = 0

    # --- URLs ------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port on 127.0.0.1.

        Raises:
            RuntimeError: the server was never started.
        """
        if not self._port:
            raise RuntimeError("the vendor server is not running: use it in a `with` block, or call start()")
        return self._port

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """Census's base URL."""
        return f"{self.origin}/api/v1"

    @property
    def amperity_url(self) -> str:
        """Amperity's base URL."""
        return f"{self.origin}/api"

    @property
    def token_url(self) -> str:
        """Amperity's OAuth token endpoint."""
        return f"{self.origin}/api/v0/oauth2/token"

    @property
    def entity_id(self) -> int:
        """Census's id of the first collection."""
        return self._first.number

    @property
    def index_id(self) -> str:
        """Amperity's id of the first collection."""
        return self._first.index_id

    def add_collection(
        self, name: str, profiles: Mapping[str, Mapping[str, object]], *, filterable: Iterable[str] | None = None
    ) -> VendorCollection:
        """Add a collection.

        Args:
            name: the entity's and index's name.
            profiles: attributes by profile id.
            filterable: the attributes that Amperity can filter by; `None` for all.

        Returns:
            The collection: `.number` is Census's id, `.index_id` Amperity's.
        """
        return self._vendor.add(name, _changeable(profiles), filterable)

    # --- tokens -----------------------------------------------------------------------------------------------------

    @property
    def tokens_issued(self) -> int:
        """The number of tokens issued."""
        return self._vendor.issued

    def expire_tokens(self) -> None:
        """Invalidate all issued tokens."""
        self._vendor.tokens.clear()

    # --- faults -----------------------------------------------------------------------------------------------------

    def script(
        self, *faults: Fault, then: Fault | None = None, match: Match | None = None, key: str | None = None
    ) -> None:
        """Apply these faults in order, one per request, after earlier scripts.

        Args:
            faults: the faults; `faults.Healthy()` is a healthy response.
            then: the fault of all later requests; `None` (default) for healthy responses.
            match: apply to requests whose decoded path contains this text, or for which this function of the `Call` is
                true.
            key: apply to requests for this identifier (see `Call.key`).
        """
        with self._lock:
            self._scripts.append(_Rule(faults, then, match, key))

    def always(self, fault: Fault, *, match: Match | None = None, key: str | None = None) -> None:
        """Apply this fault to every request without a script, until `heal()`; the last matching one wins.

        Args:
            fault: the fault.
            match: as for `script`.
            key: as for `script`.
        """
        with self._lock:
            self._always.insert(0, _Rule((), fault, match, key))

    def heal(self) -> None:
        """Remove all scripts and faults. Hanging requests keep hanging until `release()`."""
        with self._lock:
            self._scripts.clear()
            self._always.clear()

    def release(self) -> None:
        """Respond to the requests that hang now; later ones hang again."""
        loop, release = self._loop, self._release
        if loop is None or release is None:
            return

        def swing() -> None:
            release.set()
            release.clear()  # set() wakes the waiters; later ones wait again

        with contextlib.suppress(RuntimeError):  # the loop has just ended, with all hanging requests
            loop.call_soon_threadsafe(swing)

    def _fault(self, call: Call) -> Fault:
        with self._lock:
            for rule in (*self._scripts, *self._always):
                if rule.applies(call):
                    fault = rule.take()
                    if fault is not None:
                        return fault
        return Healthy()

    # --- start and stop
    # -------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the server, as the `with` block does. After `close()`, it uses the same port again.

        Raises:
            RuntimeError: it is already running.
            OSError: it cannot listen, e.g. because the port was taken meanwhile.
        """
        if self._thread is not None:
            raise RuntimeError("the vendor server runs already")
        ready = threading.Event()
        self._failed.clear()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="vendor-server", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failed:
            self.close()
            raise self._failed.pop()
        return self

    def close(self) -> None:
        """Stop the server: abort requests in flight and join the thread. May be called twice."""
        thread, loop, stop = self._thread, self._loop, self._stop
        self._thread = None
        if thread is None:
            return
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has already ended
                loop.call_soon_threadsafe(stop.set)
        thread.join()

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(ready))
        except OSError as error:
            self._failed.append(error)
        finally:
            self._loop = self._stop = self._release = None
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._release = asyncio.Event(), asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            self._port = await serve_connection(stack, self, self._play, self._tls, self._port)
            ready.set()
            await self._stop.wait()

    async def _play(self, call: Call, writer: asyncio.StreamWriter, keep_alive: bool) -> bool:
        exchange = Exchange(
            call,
            writer,
            healthy=lambda: self._healthy(call),
            rng=self._random,
            released=self._wait_for_release,
            keep_alive=keep_alive,
            clock_skew=self.clock_skew,
        )
        await self._fault(call).play(exchange)
        return exchange.keep_alive

    async def _wait_for_release(self) -> None:
        if self._release is not None:
            await self._release.wait()

    def _healthy(self, call: Call) -> Answer:
        answer = self._vendor.answer(call)
        headers = {**answer.headers, **self.headers}
        if self._etags and answer.status == 200:
            headers["etag"] = f'"{hashlib.sha256(answer.body).hexdigest()[:16]}"'
            if call.headers.get("if-none-match") == headers["etag"]:
                return Answer(304, b"", headers)
        return Answer(answer.status, answer.body, headers)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()  # takes milliseconds, because its loop runs in another thread

    def __repr__(self) -> str:
        where = self.origin if self._thread is not None else "stopped"
        return f"<VendorServer {where}, {self.call_count} calls>"
