"""Backplane: distributes invalidations to all processes and acknowledges them.

Each message has a sequence number, and each process renews a lease with a heartbeat that also reads the last number: a
missed message is detected at the next heartbeat, and the first level is then cleared. An event is acknowledged when
every process with a lease has applied it. A stopped or disconnected process serves only entries loaded within the
length of a lease, so waiting for one lease is equivalent to its acknowledgement. A flushed server has lost the list of
processes: for the length of a lease, every acknowledgement takes that long.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
import threading
import time
from typing import Any

from ..._utils.fork import reset_after_fork
from .connection import PARALLEL, Connections
from .events import Event, Listener, decode_message, encode_message
from .outbox import Outbox
from .scripts import FENCE, HEARTBEAT, PUBLISH, RESERVE, ROTATE, STATE
from .sealing import Sealing

__all__ = ["Backplane"]

logger = logging.getLogger("profile_enrich")

FENCE_MS = 600_000
"""Milliseconds for which an invalidation rejects results of earlier loads: longer than any load."""

FORGET_MS = 60_000
"""Milliseconds after which a lost process is forgotten."""

REMEMBERED_KEYS = 10_000
"""Invalidated keys that a process remembers."""

LONGEST_MESSAGE = 2**20
"""The largest message, in bytes."""


class _MissedMessage(Exception):
    """Another process started a new epoch, or a message was lost."""


class Backplane:
    """A thread with its own event loop, one per process, independent of the application's loops.

    Args:
        connections: the connections to the server.
        prefix: the prefix of all names on the server.
        sealing: encrypts messages.
        lease: seconds for which a process may serve its first level without a heartbeat.
    """

    def __init__(self, connections: Connections, prefix: str, sealing: Sealing, lease: float) -> None:
        self.outbox = Outbox()
        self.lease = lease
        self._connections = connections
        self._prefix = prefix
        self._sealing = sealing
        self._names = {
            name: f"{{{prefix}}}:{name}" for name in ("sequence", "epoch", "tags", "cleared", "members", "events")
        }
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._reset()
        reset_after_fork(self)

    def _reset(self) -> None:
        self._member = secrets.token_hex(8)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._ended = asyncio.Event()
        self._stopping = False
        self._until = 0.0
        self._heard = False
        self._members_complete_at = 0.0
        self.epoch: str | None = None
        self.sequence = 0
        """The last sequence number without missed messages."""
        self.tags: dict[str, int] = {}
        self.keys: dict[tuple[str, str, str], int] = {}
        """The last keys that were invalidated, with the sequence numbers: a replica that takes over may lack them."""
        self.cleared = 0
        self.missed = 0
        """How often the first level was cleared because of a missed message."""
        self._early: set[int] = set()
        self._expected: dict[int, set[str]] = {}
        self._all_there: dict[int, asyncio.Event] = {}

    # --- from any thread --------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the lease is valid, so that the second level may be read."""
        return time.monotonic() < self._until

    def join(self, listener: Listener) -> None:
        """Add the first level of a client."""
        with self._lock:
            if listener not in self._listeners:
                self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        """Remove the first level of a client. The thread ends with the last one."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
            thread, loop = self._thread, self._loop
            if self._listeners or thread is None:
                return
            self._stopping = True
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread is already ending
                loop.call_soon_threadsafe(self._stop)
        thread.join(timeout=2 * self.lease)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._stopping = False
                # A fresh context: the thread serves all users.
                context = contextvars.Context()
                self._thread = threading.Thread(
                    target=context.run, args=(asyncio.run, self._run()), name="profile_enrich backplane", daemon=True
                )
                self._thread.start()

    def announce(self, event: Event) -> None:
        """Send a change to all other processes, in the background."""
        self.outbox.put(event)
        self.start()
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(wake.set)

    def after_fork(self) -> None:
        """Forget the parent's thread and lease in a forked child."""
        self._lock = threading.Lock()
        self.outbox.renew_lock()
        self._reset()
        for listener in self._listeners:
            listener.connected_for(0.0)

    # --- in the thread ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._loop, self._wake, self._ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        pause = 0.05
        said = False
        while not self._stopping:
            self._heard = False
            try:
                await self._session()
            except* Exception as errors:  # noqa: BLE001  # whatever it is: without this thread nothing is announced
                first: BaseException = errors
                while isinstance(first, BaseExceptionGroup):
                    first = first.exceptions[0]
                kind = type(first).__name__
                said = said and not self._heard
                if not said and not self._stopping:
                    said = True
                    logger.warning("the shared cache is not available (%s); lookups go on without it", kind)
            pause = 0.05 if self._heard else min(2 * pause, 1.0)
            if not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        self._thread = self._loop = self._wake = None

    def _stop(self) -> None:
        if self._wake is not None:
            self._wake.set()
            self._ended.set()

    async def _session(self) -> None:
        """Run one connection until it fails or the thread ends."""
        client = self._connections.open(self.lease / 2)
        listening = self._connections.subscriber(self.lease / 2)
        subscription = listening.pubsub()
        try:
            await subscription.subscribe(self._names["events"], self._acks(self._member))
            confirmed = 0
            async with asyncio.timeout(self.lease):
                while confirmed < 2:
                    message = await subscription.get_message(timeout=self.lease)
                    confirmed += message is not None and message["type"] == "subscribe"
            await self._heartbeat(client, first=True)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(work)
                    for work in (self._listen(client, subscription), self._beat(client), self._deliver(client))
                ]
                group.create_task(self._end(tasks))
        finally:
            with contextlib.suppress(Exception):
                if self._stopping:
                    await client.run("ZREM", self._names["members"], self._member)
            for each in (subscription, listening, client):
                with contextlib.suppress(Exception):
                    await each.aclose()

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        await self._ended.wait()
        for task in tasks:
            task.cancel()

    async def _beat(self, client: Any) -> None:
        while True:
            await asyncio.sleep(self.lease / 4)
            await self._heartbeat(client)

    async def _heartbeat(self, client: Any, *, first: bool = False) -> None:
        began, seen = time.monotonic(), self.sequence  # a message may arrive before the response
        sequence, epoch = await self._beat_once(client)
        if self.epoch is None or epoch != self.epoch:
            await self._adopt(client, epoch, sequence)
        elif sequence < seen:  # a failover or restart lost acknowledged events
            fresh = secrets.token_hex(8)
            names = [self._names[name] for name in ("epoch", "sequence", "tags", "cleared")]
            epoch = (await client.run("EVAL", ROTATE, 4, *names, self.epoch, fresh, self.sequence)).decode()
            await self._adopt(client, epoch, self.sequence)
        elif sequence > self.sequence:
            if not first:
                await self._catch_up(sequence)
            if sequence > self.sequence:
                await self._adopt(client, epoch, sequence)
        self._until, self._heard = began + self.lease, True
        left = self._until - time.monotonic()
        for listener in list(self._listeners):
            listener.connected_for(left)

    async def _beat_once(self, client: Any) -> tuple[int, str]:
        names = [self._names[name] for name in ("sequence", "epoch", "members")]
        milliseconds = int(self.lease * 1000)
        sequence, epoch = await client.run(
            "EVAL", HEARTBEAT, 3, *names, secrets.token_hex(8), self._member, milliseconds
        )
        return int(sequence), epoch.decode()

    async def _catch_up(self, sequence: int) -> None:
        """Wait briefly for messages in transit."""
        for _ in range(50):
            if self.sequence >= sequence:
                return
            await asyncio.sleep(self.lease / 200)

    async def _adopt(self, client: Any, epoch: str, sequence: int) -> None:
        """Adopt the server's state and clear the first level, which may be outdated."""
        tags, cleared = await client.run("EVAL", STATE, 2, self._names["tags"], self._names["cleared"])
        if self.epoch is not None:
            self.missed += 1
        if epoch != self.epoch:  # the server lost the list of members, each of which may still hold a lease
            self._members_complete_at = time.monotonic() + self.lease
            self.keys = {}
        self.epoch, self.sequence = epoch, sequence
        self._early = {number for number in self._early if number > sequence}
        self.tags = {tag.decode(): int(number) for tag, number in zip(tags[::2], tags[1::2], strict=True)}
        self.cleared = int(cleared or 0)
        for listener in list(self._listeners):
            listener.drop()

    async def _listen(self, client: Any, subscription: Any) -> None:
        own_acks = self._acks(self._member).encode()
        while True:
            message = await subscription.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is None or message["type"] != "message":
                continue
            channel = message["channel"].decode()
            data = self._sealing.open(message["data"], channel, LONGEST_MESSAGE)
            if data is None:
                continue  # written with another secret
            if message["channel"] == own_acks:
                number, _, member = data.decode().partition(":")
                self._acknowledged(int(number), member)
                continue
            sequence, origin, events = decode_message(data)
            if origin != self._member:
                self._apply(sequence, events)
                ack = self._acks(origin)
                await client.run("PUBLISH", ack, self._sealing.seal(f"{sequence}:{self._member}".encode(), ack))
            self._saw(sequence)

    def _apply(self, sequence: int, events: list[Event]) -> None:
        for event in events:
            if event.kind == "tag":
                for name in self._sealing.names((event.namespace, event.tag)):
                    self.tags[name] = max(sequence, self.tags.get(name, 0))
            elif event.kind == "clear":
                self.cleared = max(sequence, self.cleared)
            elif event.kind != "overlay":
                for type_, value in event.keys:
                    self.keys.pop(key := (event.namespace, type_, value), None)
                    self.keys[key] = sequence
                    if len(self.keys) > REMEMBERED_KEYS:
                        del self.keys[next(iter(self.keys))]
            for listener in list(self._listeners):
                if listener.namespace == event.namespace:
                    listener.apply(event)

    def _saw(self, sequence: int) -> None:
        self._early.add(sequence)
        while self.sequence + 1 in self._early:
            self.sequence += 1
            self._early.discard(self.sequence)
        if sequence <= self.sequence:
            self._early.discard(sequence)

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _deliver(self, client: Any) -> None:
        wake = self._wake
        assert wake is not None  # noqa: S101  # set before any session
        while True:
            wake.clear()
            while events := self.outbox.take():
                await self._send(client, events)
                self.outbox.sent()
            await wake.wait()

    async def _send(self, client: Any, events: list[Event]) -> None:
        sequence = await self._reserve(client, events)
        fences = self._fences(events)
        for start in range(0, len(fences), PARALLEL):
            async with asyncio.TaskGroup() as group:  # the first failure ends the others, before the client is closed
                for each in fences[start : start + PARALLEL]:
                    group.create_task(self._fence(client, sequence, *each))
        self._apply(sequence, events)  # again: a load may have read the old value from the second level meanwhile
        self.outbox.fenced()
        channel = self._names["events"]
        message = self._sealing.seal(encode_message(sequence, self._member, events), channel)
        there = self._all_there[sequence] = asyncio.Event()
        self._expected[sequence] = set()
        try:
            members = await client.run("EVAL", PUBLISH, 1, self._names["members"], channel, message, FORGET_MS)
            published = time.monotonic()
            waiting = {member.decode() for member in members} - {self._member}
            self._expected[sequence] = waiting - self._expected[sequence]
            if published < self._members_complete_at:
                await asyncio.sleep(published + self.lease - time.monotonic())
            elif self._expected[sequence]:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(there.wait(), published + self.lease - time.monotonic())
        finally:
            del self._all_there[sequence], self._expected[sequence]

    async def _reserve(self, client: Any, events: list[Event]) -> int:
        names = [self._names[name] for name in ("sequence", "epoch", "tags", "cleared")]
        kinds = {event.kind for event in events}
        kind = "clear" if "clear" in kinds else "tags"
        tags = [
            name
            for event in events
            if event.kind == "tag"
            for name in self._sealing.names((event.namespace, event.tag))
        ]
        sequence, epoch = await client.run("EVAL", RESERVE, 4, *names, secrets.token_hex(8), kind, *tags)
        if epoch.decode() != self.epoch:
            raise _MissedMessage
        return int(sequence)

    def _fences(self, events: list[Event]) -> list[tuple[str, Event]]:
        return [
            (name, event)
            for event in events
            for type_, value in event.keys
            for name in self._sealing.names((event.namespace, type_, value))
        ]

    async def _fence(self, client: Any, sequence: int, name: str, event: Event) -> None:
        entry, fence, overlay = (self.name_of(name, part) for part in ("entry", "fence", "overlay"))
        content, left = b"", 1
        if event.kind == "overlay":
            left = max(1, int((event.until - time.time()) * 1000))
            content = self._sealing.seal(encode_message(sequence, "", [event]), overlay)
        await client.run("EVAL", FENCE, 3, entry, fence, overlay, sequence, FENCE_MS, content, left)

    def name_of(self, name: str, part: str) -> str:
        """Return the server's name for a part of a key's data."""
        return f"{self._prefix}:{{{name}}}:{part}"

    def _acks(self, member: str) -> str:
        return f"{{{self._prefix}}}:acks:{member}"

    def _acknowledged(self, sequence: int, member: str) -> None:
        there = self._all_there.get(sequence)
        if there is None:
            return
        waiting = self._expected[sequence]
        if member in waiting:
            waiting.discard(member)
            if not waiting:
                there.set()
        else:  # before the list of members was restored
            waiting.add(member)

    def __repr__(self) -> str:
        return f"<Backplane {'available' if self.available else 'not available'}, {self.outbox.waiting} events waiting>"
