"""Change feed: the changed keys of a collection as server-sent events (WHATWG HTML, section 9.2).

```text
retry: 1000
id: 5f0c2a9e-41             sent by the client as Last-Event-ID when it reconnects
event: ready
data: {}

event: changes
id: 5f0c2a9e-42
data: {"keys":["u1","u2"]}

event: reset                too many changes to list: drop all entries
id: 5f0c2a9e-97
data: {}

: heartbeat
```

A stream has no backlog: it keeps the generation that its client has seen, and reads later changes from the store. A
slow client therefore costs the memory of one event, and an event id is valid on every worker, also after a restart. If
the keys of a generation take several events, only the last one has the id; a client that disconnects earlier receives
them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import re
import signal
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from weakref import WeakKeyDictionary

from starlette.types import Receive, Send

from ...errors import StoreError
from ...store import Collection, ProfileStore
from ..cross_worker_state import Places

__all__ = ["ChangeFeed", "ChangeStream"]

_log = logging.getLogger("profile_enrich.server")

_ID = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")
_EVENT_BYTES = 16 * 1024
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would buffer events
]
_READY = "retry: 1000\nevent: ready\nid: {}\ndata: {{}}\n\n"
_RESET = "event: reset\nid: {}\ndata: {{}}\n\n"
_HEARTBEAT = b": heartbeat\n\n"


class ChangeFeed:
    """Notify streams of changes of the store, and end them.

    Args:
        store: the served store.
        heartbeat: seconds without events after which a comment is sent.
        poll: seconds between checks of the store while there are streams.
        max_streams: the largest number of open streams in this process.
        max_key_streams: the largest number of open streams of one key, in all processes that share `places`.
        max_age: seconds after which a stream is ended, so that load balancing applies to the reconnect.
        max_keys: the largest number of keys to list; more changes are sent as a reset.
        stall: seconds without progress after which a slow client is disconnected.
        places: the slots of each key's streams; by default those of this process alone.
    """

    def __init__(
        self,
        store: ProfileStore,
        *,
        heartbeat: float = 15.0,
        poll: float = 0.1,
        max_streams: int = 1000,
        max_key_streams: int = 100,
        max_age: float = 3600.0,
        max_keys: int = 50_000,
        stall: float = 20.0,
        places: Places | None = None,
    ) -> None:
        self.store = store
        self.heartbeat = heartbeat
        self.max_age = max_age
        self.max_keys = max_keys
        self.stall = stall
        self.sent = 0
        """The number of keys sent, in all streams."""
        self._poll = poll
        self._max_streams = max_streams
        self._max_key_streams = max_key_streams
        self._places = places or Places()
        self._hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub] = WeakKeyDictionary()
        self._ended = False

    @property
    def streams(self) -> int:
        """The number of open streams in this process."""
        return sum(len(hub.wakes) for hub in self._hubs.values())

    def limit(self, count: int) -> None:
        """Lower the limit to `count` streams, and a fifth of them per key, if it is higher."""
        self._max_streams = min(self._max_streams, count)
        self._max_key_streams = min(self._max_key_streams, max(1, count // 5))

    @contextlib.contextmanager
    def place(self, owner: str | None) -> Generator[bool]:
        """Hold one of a key's stream slots, and yield whether there was one.

        Args:
            owner: id of the key; `None` stands for all requests without authentication, which have no limit.
        """
        place = None if owner is None else self._places.take(owner, self._max_key_streams)
        try:
            yield owner is None or place is not None
        finally:
            if place is not None:
                self._places.free(place)

    def open(self, collection: Collection, after: str | None, allowed: Callable[[], bool]) -> ChangeStream | None:
        """Return a stream of the changes of a collection; `None` when too many are open, or the server is stopping.

        Args:
            collection: the collection.
            after: the id of the last event that the client received, if any.
            allowed: whether the client may still read the collection; called again at each event and heartbeat.
        """
        if self._ended or self.streams >= self._max_streams:
            return None
        return ChangeStream(self, collection.id, after, allowed)

    def notify(self) -> None:
        """Check the store now, after a write through this process. It is thread-safe."""
        for loop, hub in list(self._hubs.items()):
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(hub.look.set)

    def end(self) -> None:
        """End all streams at the server's shutdown. Clients reconnect with their last id."""
        self._ended = True
        for loop, hub in list(self._hubs.items()):
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(hub.wake_all)

    def begin(self) -> None:
        """Allow streams again at the server's startup."""
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the server is stopping."""
        return self._ended

    @contextlib.contextmanager
    def listening(self) -> Generator[asyncio.Event]:
        """Return an event of this loop that is set after every possible change."""
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            hub = self._hubs[loop] = _Hub()
        wake = asyncio.Event()
        hub.wakes.add(wake)
        if hub.watcher is None or hub.watcher.done():
            hub.seen = self.store.generation  # read here, not in the task: a stream starts at the current generation
            hub.watcher = loop.create_task(self._watch(hub))
        try:
            yield wake
        finally:
            hub.wakes.discard(wake)
            if not hub.wakes:
                hub.watcher.cancel()

    async def _watch(self, hub: _Hub) -> None:
        """Check for newer generations while there are streams. The workers share only the manifest."""
        while hub.wakes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await hub.look.wait()
            hub.look.clear()
            if _server_is_stopping():
                self.end()
                return
            now = self._look()
            if now != hub.seen:
                hub.seen = now
                hub.wake_all()

    def _look(self) -> int:
        # A remote store checks in its own thread, so this does not wait.
        if not self.store.blocking:
            with contextlib.suppress(StoreError):
                self.store.refresh()
        return self.store.generation


class _Hub:
    """The streams of one event loop."""

    def __init__(self) -> None:
        self.wakes: set[asyncio.Event] = set()
        self.look = asyncio.Event()
        self.seen = 0
        self.watcher: asyncio.Task[None] | None = None

    def wake_all(self) -> None:
        for wake in self.wakes:
            wake.set()


class ChangeStream:
    """The stream of one client; see `ChangeFeed.open`.

    Attributes:
        held: released when the stream ends.
    """

    def __init__(self, feed: ChangeFeed, collection: int, after: str | None, allowed: Callable[[], bool]) -> None:
        self._feed = feed
        self._store = feed.store
        self._collection = collection
        self._after = after
        self._allowed = allowed
        self.held = contextlib.ExitStack()

    async def run(self, receive: Receive, send: Send, *, head: bool = False) -> None:
        """Send events until the client disconnects, stalls or loses access, or the server stops."""
        with self.held:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if head:
                await send({"type": "http.response.body", "body": b""})
                return
            with self._feed.listening() as wake:
                gone = asyncio.get_running_loop().create_task(_disconnected(receive))
                gone.add_done_callback(lambda _: wake.set())
                try:
                    async with contextlib.aclosing(self._events(wake, gone)) as events:
                        async for event in events:
                            async with asyncio.timeout(self._feed.stall):
                                await send({"type": "http.response.body", "body": event, "more_body": True})
                    if not gone.done():
                        async with asyncio.timeout(self._feed.stall):
                            await send({"type": "http.response.body", "body": b""})
                except TimeoutError:
                    _log.info("a client of the change feed stopped reading and was disconnected")
                except Exception as failure:  # noqa: BLE001  # the boundary: the client comes back; what failed may hold keys
                    _log.error("%s in the change feed", type(failure).__name__)
                finally:
                    gone.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await gone

    async def _events(self, wake: asyncio.Event, gone: asyncio.Task[None]) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._feed.max_age * random.uniform(0.9, 1.1)  # noqa: S311  # spreads, hides nothing
        collection = self._store.find(self._collection)
        if collection is None:
            return
        seen = self._resume(collection)
        if seen is None:
            seen = collection.generation
            yield _RESET.format(self._id(collection, seen)).encode()
        else:
            yield _READY.format(self._id(collection, seen)).encode()
        while not gone.done() and not self._feed.ended and loop.time() < until:
            wake.clear()
            collection = self._store.find(self._collection)
            if collection is None or not self._allowed():
                return
            if collection.generation != seen:
                # After an event, the client fetches the record, perhaps from another worker, which must have checked
                # the store by then: it does so every `check_every` seconds. Later writes are sent now and repeated
                # in the next round.
                await asyncio.sleep(self._store.check_every)
                for event in await self._changes(collection, seen):
                    yield event
                seen = collection.generation
                continue
            try:
                async with asyncio.timeout(min(self._feed.heartbeat, until - loop.time())):
                    await wake.wait()
            except TimeoutError:
                yield _HEARTBEAT

    def _resume(self, collection: Collection) -> int | None:
        """Return the generation that the client has seen; `None` if its missed changes are unknown."""
        if self._after is None:
            return collection.generation
        match = _ID.fullmatch(self._after)
        if match is None or match[1] != self._mark(collection) or int(match[2]) > collection.generation:
            return None
        return int(match[2])

    async def _changes(self, collection: Collection, seen: int) -> list[bytes]:
        id = self._id(collection, collection.generation)
        keys: list[str] | None = None
        # In a thread, because the keys of a large refresh are read from disk.
        with contextlib.suppress(StoreError):
            keys = await asyncio.to_thread(self._keys, collection, seen)
        if keys is None:
            return [_RESET.format(id).encode()]
        self._feed.sent += len(keys)
        return list(_encode(keys, id))

    def _keys(self, collection: Collection, seen: int) -> list[str] | None:
        changed = self._store.changes_since(collection, seen, limit=self._feed.max_keys)
        if changed is None or changed.generation < collection.generation:
            return None
        return list(changed.keys)

    def _id(self, collection: Collection, generation: int) -> str:
        return f"{self._mark(collection)}-{generation}"

    def _mark(self, collection: Collection) -> str:
        """Return the prefix of this collection's event ids, so that ids of other feeds are rejected."""
        text = b"feed\0%d" % collection.id
        return hashlib.blake2b(text, key=self._store.secret, digest_size=4).hexdigest()


def _encode(keys: Iterable[str], id: str) -> Iterator[bytes]:
    """Encode events of at most some kilobytes; only the last one has the id."""
    part: list[str] = []
    size = 0
    for key in keys:
        # ASCII only, which escapes all kinds of line breaks inside keys.
        text = json.dumps(key)
        if part and size + len(text) > _EVENT_BYTES:
            yield f'event: changes\ndata: {{"keys":[{",".join(part)}]}}\n\n'.encode()
            part, size = [], 0
        part.append(text)
        size += len(text) + 1
    yield f'event: changes\nid: {id}\ndata: {{"keys":[{",".join(part)}]}}\n\n'.encode()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _server_is_stopping() -> bool:
    """Return whether the uvicorn of this process is stopping. It waits for open responses before the lifespan shutdown.

    The state is found through uvicorn's signal handler; other servers, or uvicorn in a thread, cannot be detected.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
