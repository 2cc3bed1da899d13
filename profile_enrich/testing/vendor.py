"""A vendor's profile API on 127.0.0.1, with faults on order."""

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

from .connection import serve_connection
from .exchange import Answer, Exchange
from .faults import Fault, Healthy
from .recorder import Call, Recorder
from .vendor_dialects import Profiles, Vendor, VendorCollection

__all__ = ["VendorServer"]

Match = str | Callable[[Call], bool]


def _changeable(profiles: Mapping[str, Mapping[str, object]] | None) -> Profiles:
    # The parameter is a Mapping so that a dict of dicts fits it; what comes is served itself, never a copy.
    return {} if profiles is None else cast("Profiles", profiles)


class _Rule:
    """Faults for the requests that match: one each, then `then`."""

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
    """A real HTTP/1.1 server that speaks Census's and Amperity's formats over a dictionary, and fails when told to.

    ```python
    with VendorServer(profiles={"u1": {"tier": "gold"}}, entity="Users", key="secret") as vendor:
        source = CensusSource(api_key="secret", entity="Users", base_url=vendor.base_url)
        vendor.script(faults.Reset(), faults.ServerError())     # the next two requests
        ...
        assert vendor.call_count == 3
    ```

    It runs on a loop of its own in a thread of its own, so that it answers whatever the test's loop does; it is a
    synchronous and an asynchronous context manager. It listens on a free port of 127.0.0.1. Leaving the block breaks
    off what still hangs, and leaves no thread, task or socket behind.

    Args:
        profiles: attributes by profile id. The object itself is served, so changes to it show at once.
        entity: the collection's name: Census's entity and Amperity's index.
        key: the API key (Census) and a static token (Amperity); `None`: every request is let in.
        tenant: Amperity's tenant.
        id_column: the attribute in which a Census record carries its id.
        client_id: for OAuth client credentials.
        client_secret: for OAuth client credentials.
        issuer_key: for Amperity's older exchange of an issuer token.
        token_ttl: seconds that an issued token lives.
        token_field: the field of the issuer exchange's answer that holds the token; the vendor does not document it.
        clock: what tokens expire by, in seconds; `time.monotonic`, or a `ManualClock`.
        clock_skew: seconds that the `Date` header is ahead of the true time.
        etags: whether answers carry an `ETag`, and `If-None-Match` is answered with 304.
        seed: of the random numbers that faults draw.
        tls: serve HTTPS with this context.
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
        """Attributes by profile id, of the first collection; may be changed while the server runs."""
        self.headers: dict[str, str] = {}
        """Added to every healthy answer, e.g. `Deprecation` or `Cache-Control`; may be changed while it runs."""
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

    # --- where it is ------------------------------------------------------------------------------------------------

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
        """Serve one more collection.

        Args:
            name: the entity's and index's name.
            profiles: attributes by profile id.
            filterable: the attributes that Amperity may filter by; `None`: all that occur.

        Returns:
            The collection: `.number` is Census's id, `.index_id` Amperity's.
        """
        return self._vendor.add(name, _changeable(profiles), filterable)

    # --- tokens -----------------------------------------------------------------------------------------------------

    @property
    def tokens_issued(self) -> int:
        """How many tokens the token endpoints gave out."""
        return self._vendor.issued

    def expire_tokens(self) -> None:
        """Make every issued token invalid at once."""
        self._vendor.tokens.clear()

    # --- faults -----------------------------------------------------------------------------------------------------

    def script(
        self, *faults: Fault, then: Fault | None = None, match: Match | None = None, key: str | None = None
    ) -> None:
        """Play these faults, one a request, in order; scripts given earlier go first.

        Args:
            faults: `faults.Healthy()` lets a request through.
            then: for all requests after the last; `None` (default): they are answered well.
            match: only requests whose decoded path contains this text, or for which this function of the `Call` is
                true.
            key: only requests for this identifier (see `Call.key`).
        """
        with self._lock:
            self._scripts.append(_Rule(faults, then, match, key))

    def always(self, fault: Fault, *, match: Match | None = None, key: str | None = None) -> None:
        """Play this fault at every request that no script takes, until `heal()`; the latest that matches counts.

        Args:
            fault: what goes wrong.
            match: as for `script`.
            key: as for `script`.
        """
        with self._lock:
            self._always.insert(0, _Rule((), fault, match, key))

    def heal(self) -> None:
        """Forget all scripts and faults for requests to come. What hangs goes on hanging: see `release()`."""
        with self._lock:
            self._scripts.clear()
            self._always.clear()

    def release(self) -> None:
        """Let the requests that hang now be answered; later ones hang anew."""
        loop, release = self._loop, self._release
        if loop is None or release is None:
            return

        def swing() -> None:
            release.set()
            release.clear()  # waiters are woken by set(); who comes later waits again

        with contextlib.suppress(RuntimeError):  # the loop has just ended, and with it all that hung
            loop.call_soon_threadsafe(swing)

    def _fault(self, call: Call) -> Fault:
        with self._lock:
            for rule in (*self._scripts, *self._always):
                if rule.applies(call):
                    fault = rule.take()
                    if fault is not None:
                        return fault
        return Healthy()

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it; the `with` block does. After `close()` it comes back on the port that it had.

        Raises:
            RuntimeError: it runs already.
            OSError: it cannot listen, e.g. because somebody else has taken the port meanwhile.
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
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
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
        self.close()  # takes milliseconds: its loop is in another thread and waits for nobody

    def __repr__(self) -> str:
        where = self.origin if self._thread is not None else "stopped"
        return f"<VendorServer {where}, {self.call_count} calls>"
