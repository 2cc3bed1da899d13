"""Backplane: distributes invalidations to all processes and acknowledges them.

Each message has a sequence number, and each process renews a lease with a heartbeat that also reads the last number: a
missed message is detected at the next heartbeat, and the first level is then cleared. An event is acknowledged when
every process with a lease has applied it. A stopped or disconnected process serves only entries loaded within the
length of a lease, so waiting for one lease is equivalent to its acknowledgement. A server that was flushed or restarted
begins a new epoch of sequence numbers, in which nothing from before is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
import threading
import time
from concurrent.futures import Future, InvalidStateError
from typing import Any

from ..._utils.fork import reset_after_fork
from .backplane_events import Event, Listener, decode_message
from .connection import Connections
from .event_delivery import Delivery, ack_channel, begin_epoch, profile_name
from .outbox import Outbox
from .scripts import HEARTBEAT, STATE
from .sealing import Sealing

__all__ = ["Backplane"]

logger = logging.getLogger("profile_enrich")

REMEMBERED_KEYS = 10_000
"""Invalidated keys that a process remembers."""

LONGEST_MESSAGE = 2**20
"""The largest message, in bytes."""


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
        self._attempt: Future[None] = Future()
        self._numbered: str | None = None
        """The epoch of the numbers below."""
        self.epoch: str | None = None
        """The same, unless the server's state is still being read: entries of this epoch are trusted."""
        self.sequence = 0
        """The last sequence number without missed messages."""
        self.tags: dict[str, int] = {}
        self.keys: dict[tuple[str, str, str], int] = {}
        """The last keys that were invalidated, with the sequence numbers: a replica that takes over may lack them."""
        self.cleared = 0
        self.missed = 0
        """How often the first level was cleared because of a missed message."""
        self._early: set[tuple[str, int]] = set()

    # --- from any thread --------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the lease is valid, so that the second level may be read."""
        return time.monotonic() < self._until

    async def connected(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the first connection.

        Until it is made, the other processes do not know this one, and do not wait for its acknowledgement.
        """
        await asyncio.wait((asyncio.wrap_future(self._attempt),), timeout=timeout)
        self._attempted()  # later lookups do not wait again

    @property
    def connecting(self) -> bool:
        """Whether the first connection of this process is being made."""
        return not self._attempt.done()

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
                self._attempt = Future()
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
            listener.after_fork()

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
            self._attempted()
            pause = 0.05 if self._heard else min(2 * pause, 1.0)
            if not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        self._until = 0.0
        self._thread = self._loop = self._wake = None

    def _attempted(self) -> None:
        with contextlib.suppress(InvalidStateError):  # by another thread
            self._attempt.set_result(None)

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
            await subscription.subscribe(self._names["events"], ack_channel(self._prefix, self._member))
            confirmed = 0
            async with asyncio.timeout(self.lease):
                while confirmed < 2:
                    message = await subscription.get_message(timeout=self.lease)
                    confirmed += message is not None and message["type"] == "subscribe"
            await self._heartbeat(client, first=True)
            self._attempted()
            delivery = self._delivery(client)
            wake = self._wake
            assert wake is not None  # noqa: S101  # set before any session
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(work)
                    for work in (
                        self._listen(client, subscription, delivery),
                        self._beat(client),
                        delivery.run(wake),
                    )
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
        if self.epoch is None or epoch != self.epoch:  # None: an adoption was interrupted
            await self._adopt(client, epoch, sequence)
        elif sequence < seen:  # a failover or restart lost acknowledged events
            epoch = await begin_epoch(client, self._names, epoch, self.sequence)
            await self._adopt(client, epoch, self.sequence)
        elif sequence > self.sequence:
            if not first:
                await self._catch_up(sequence)
            if sequence > self.sequence:
                await self._adopt(client, epoch, sequence)
        self._until, self._heard = began + self.lease, True
        for listener in list(self._listeners):
            listener.connected_until(self._until)

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
        self._distrust()
        if epoch != self._numbered:
            self._numbered, self.keys, self.tags, self.cleared = epoch, {}, {}, 0
        self.sequence = sequence
        # Messages of this epoch that arrive meanwhile may be later than the state.
        tags, cleared = await client.run("EVAL", STATE, 2, self._names["tags"], self._names["cleared"])
        for tag, number in zip(tags[::2], tags[1::2], strict=True):
            self.tags[tag.decode()] = max(int(number), self.tags.get(tag.decode(), 0))
        self.cleared = max(int(cleared or 0), self.cleared)
        self._early = {each for each in self._early if each[0] == epoch and each[1] > self.sequence}
        self._advance()
        for listener in list(self._listeners):
            listener.drop()
        self.epoch = epoch  # the last of all: other threads read it first

    def _distrust(self) -> None:
        """Trust no entry on the server until its state was read again."""
        self.missed += self.epoch is not None
        self.epoch = None

    async def _listen(self, client: Any, subscription: Any, delivery: Delivery) -> None:
        own_acks = ack_channel(self._prefix, self._member).encode()
        while True:
            message = await subscription.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is None or message["type"] != "message":
                continue
            channel = message["channel"].decode()
            data = self._sealing.open(message["data"], channel, LONGEST_MESSAGE)
            if data is None:
                continue  # written with another secret
            if message["channel"] == own_acks:
                epoch, number, member = data.decode().rsplit(" ", 2)
                delivery.acknowledged(epoch, int(number), member)
                continue
            epoch, sequence, origin, events = decode_message(data)
            if origin != self._member:
                self._apply(epoch, sequence, events)
                ack = ack_channel(self._prefix, origin)
                text = f"{epoch} {sequence} {self._member}"
                await client.run("PUBLISH", ack, self._sealing.seal(text.encode(), ack))
            self._saw(epoch, sequence)

    def _apply(self, epoch: str, sequence: int, events: list[Event]) -> None:
        if epoch != self._numbered:
            self._distrust()  # its number cannot be compared
        for event in events:
            if epoch != self._numbered:
                pass
            elif event.kind == "tag":
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

    def _saw(self, epoch: str, sequence: int) -> None:
        if epoch != self._numbered or sequence > self.sequence:
            self._early.add((epoch, sequence))
            self._advance()

    def _advance(self) -> None:
        while (following := (self._numbered or "", self.sequence + 1)) in self._early:
            self._early.discard(following)
            self.sequence += 1

    def _delivery(self, client: Any) -> Delivery:
        return Delivery(
            client,
            outbox=self.outbox,
            sealing=self._sealing,
            names=self._names,
            prefix=self._prefix,
            member=self._member,
            lease=self.lease,
            apply=self._apply,
            position=lambda: (self._numbered, self.sequence),
        )

    def name_of(self, name: str, part: str) -> str:
        """Return the server's name for a part of a key's data."""
        return profile_name(self._prefix, name, part)

    def __repr__(self) -> str:
        return f"<Backplane {'available' if self.available else 'not available'}, {self.outbox.waiting} events waiting>"
