"""Delivery of this process's events to all others: send them, and wait until they are applied everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any

from .backplane_events import Event, encode_message
from .connection import PARALLEL
from .outbox import Batch, Outbox
from .scripts import FENCE, PUBLISH, RESERVE, ROTATE
from .sealing import Sealing

__all__ = ["FENCE_MS", "FORGET_MS", "Delivery", "MissedMessage", "ack_channel", "begin_epoch", "profile_name"]

FENCE_MS = 600_000
"""Milliseconds for which an invalidation rejects results of earlier loads: longer than any load."""

FORGET_MS = 60_000
"""Milliseconds after which a lost process is forgotten."""

UNLISTED = ""
"""Stands for the processes that a server may have lost from its list; they cannot answer."""

UNACKNOWLEDGED = 64
"""Messages that may wait for their acknowledgement at the same time."""


class MissedMessage(Exception):
    """Another epoch began, or a message was lost."""


class _Acks:
    """The acknowledgements of one message; they may arrive before the list of those who have to send them."""

    def __init__(self, message: tuple[str, int]) -> None:
        self.message = message
        self.received: set[str] = set()
        self.expected: set[str] | None = None
        self.until = 0.0
        """When the leases of all who have not answered are over, on the monotonic clock."""
        self.complete = asyncio.Event()

    def check(self) -> None:
        if self.expected is not None and self.expected <= self.received:
            self.complete.set()


class Delivery:
    """The sending half of the backplane, for one connection.

    A message is published when the second level returns no old value any more, and acknowledged when each process with
    a lease has applied it, or has none any more. A server that lost the list of processes cannot say who has a lease:
    for as long as it would have remembered a lost process, each acknowledgement takes the length of a lease.

    Args:
        client: the client of the server.
        outbox: the events to send.
        sealing: encrypts messages.
        names: the names of the backplane's data on the server.
        prefix: the prefix of all names.
        member: the name of this process.
        lease: the length of a process's lease, in seconds.
        apply: applies events to this process.
        position: returns the epoch that this process knows, and the last sequence number that it has seen.
    """

    def __init__(
        self,
        client: Any,
        *,
        outbox: Outbox,
        sealing: Sealing,
        names: dict[str, str],
        prefix: str,
        member: str,
        lease: float,
        apply: Callable[[str, int, list[Event]], None],
        position: Callable[[], tuple[str | None, int]],
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._sealing = sealing
        self._names = names
        self._prefix = prefix
        self._member = member
        self._lease = lease
        self._apply = apply
        self._position = position
        self._acks: dict[tuple[str, int], _Acks] = {}

    async def run(self, wake: asyncio.Event) -> None:
        """Send what is in the outbox, and again whenever `wake` is set.

        Raises:
            MissedMessage: another epoch began. Events without acknowledgement stay in the outbox.
            Exception: the connection failed, likewise.
        """
        self._outbox.repeat()
        slots = asyncio.Semaphore(UNACKNOWLEDGED)
        async with asyncio.TaskGroup() as waiting:
            while True:
                wake.clear()
                while batch := self._outbox.take():
                    await slots.acquire()
                    # One after another, because an overlay and an invalidation of one key must not change places.
                    acks = await self._send(batch)
                    task = waiting.create_task(self._wait(batch, acks))
                    task.add_done_callback(lambda _: slots.release())
                await wake.wait()

    def acknowledged(self, epoch: str, sequence: int, member: str) -> None:
        """Note that a process has applied a message."""
        if acks := self._acks.get((epoch, sequence)):
            acks.received.add(member)
            acks.check()

    async def _send(self, batch: Batch) -> _Acks:
        epoch, sequence = await self._reserve(batch.events)
        fences = self._fences(batch.events)
        for start in range(0, len(fences), PARALLEL):
            async with asyncio.TaskGroup() as group:  # the first failure ends the others, before the client is closed
                for each in fences[start : start + PARALLEL]:
                    group.create_task(self._fence(sequence, *each))
        # Again: a load may have read the old value from the second level meanwhile.
        self._apply(epoch, sequence, batch.events)
        self._outbox.fenced(batch)
        channel = self._names["events"]
        message = self._sealing.seal(encode_message(epoch, sequence, self._member, batch.events), channel)
        acks = self._acks[epoch, sequence] = _Acks((epoch, sequence))
        keys = (self._names["members"], self._names["epoch"])
        published = await self._client.run("EVAL", PUBLISH, 2, *keys, channel, message, FORGET_MS, epoch)
        acks.until = time.monotonic() + self._lease
        if published is None:
            raise MissedMessage
        age, members = published
        acks.expected = {member.decode() for member in members} - {self._member}
        if age < FORGET_MS:
            acks.expected.add(UNLISTED)
        acks.check()
        return acks

    async def _wait(self, batch: Batch, acks: _Acks) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(acks.complete.wait(), acks.until - time.monotonic())
        del self._acks[acks.message]
        self._outbox.acknowledged(batch)

    async def _reserve(self, events: list[Event]) -> tuple[str, int]:
        names = [self._names[name] for name in ("sequence", "epoch", "tags", "cleared")]
        kind = "clear" if any(event.kind == "clear" for event in events) else "tags"
        tags = [
            name
            for event in events
            if event.kind == "tag"
            for name in self._sealing.names((event.namespace, event.tag))
        ]
        sequence, epoch = await self._client.run("EVAL", RESERVE, 4, *names, secrets.token_hex(8), kind, *tags)
        known, seen = self._position()
        if epoch.decode() != known:
            raise MissedMessage
        if sequence <= seen:  # a failover lost the last numbers
            await begin_epoch(self._client, self._names, epoch.decode(), seen)
            raise MissedMessage
        return epoch.decode(), int(sequence)

    def _fences(self, events: list[Event]) -> list[tuple[str, Event]]:
        return [
            (name, event)
            for event in events
            for type_, value in event.keys
            for name in self._sealing.names((event.namespace, type_, value))
        ]

    async def _fence(self, sequence: int, name: str, event: Event) -> None:
        entry, fence, overlay = (profile_name(self._prefix, name, part) for part in ("entry", "fence", "overlay"))
        content, left = b"", 1
        if event.kind == "overlay":
            left = max(1, int((event.until - time.time()) * 1000))
            content = self._sealing.seal(encode_message("", sequence, "", [event]), overlay)
        await self._client.run("EVAL", FENCE, 3, entry, fence, overlay, sequence, FENCE_MS, content, left)


async def begin_epoch(client: Any, names: dict[str, str], lost: str, sequence: int) -> str:
    """Begin a new epoch, unless another process has, on a server that lost numbers up to this one. Return its name."""
    keys = [names[name] for name in ("epoch", "sequence", "tags", "cleared")]
    epoch: bytes = await client.run("EVAL", ROTATE, 4, *keys, lost, secrets.token_hex(8), sequence)
    return epoch.decode()


def ack_channel(prefix: str, member: str) -> str:
    """Return the channel of acknowledgements for a process."""
    return f"{{{prefix}}}:acks:{member}"


def profile_name(prefix: str, name: str, part: str) -> str:
    """Return the server's name for a part of a key's data."""
    return f"{prefix}:{{{name}}}:{part}"
