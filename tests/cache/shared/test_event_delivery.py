"""Messages to other processes, and their acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from profile_enrich.cache.shared import event_delivery as module
from profile_enrich.cache.shared.backplane_events import Event
from profile_enrich.cache.shared.event_delivery import Delivery, MissedMessage
from profile_enrich.cache.shared.outbox import Outbox
from profile_enrich.cache.shared.scripts import PUBLISH, RESERVE, ROTATE
from profile_enrich.cache.shared.sealing import Plaintext

EPOCH = "now:1"
LONG = module.FORGET_MS + 1
LEASE = 30.0


class Server:
    """Replies to the scripts of a delivery."""

    def __init__(self) -> None:
        self.sequence = 4
        self.epoch = EPOCH
        self.age = LONG
        self.flushed = False
        self.published = asyncio.Event()
        self.rotated: list[object] = []

    async def run(self, *words: str | bytes | int) -> object:
        if words[1] == RESERVE:
            self.sequence += 1
            return [self.sequence, self.epoch.encode()]
        if words[1] == ROTATE:
            self.rotated = [words[-3], words[-1]]
            return b"next:2"
        if words[1] == PUBLISH:
            self.published.set()
            return None if self.flushed else [self.age, [b"me", b"other"]]
        return 1


def delivery_of(server: Server, outbox: Outbox, lease: float = LEASE) -> Delivery:
    return Delivery(
        server,
        outbox=outbox,
        sealing=Plaintext(),
        names={name: name for name in ("sequence", "epoch", "tags", "cleared", "members", "events")},
        prefix="p",
        member="me",
        lease=lease,
        apply=lambda *_: None,
        position=lambda: (EPOCH, 4),
    )


Start = Callable[..., Delivery]


@pytest.fixture
def outbox() -> Outbox:
    outbox = Outbox()
    outbox.put(Event(kind="keys", namespace="ns", keys=(("id", "u1"),)))
    return outbox


@pytest.fixture
async def start(outbox: Outbox) -> AsyncGenerator[Start]:
    tasks: list[asyncio.Task[None]] = []

    def start(server: Server, lease: float = LEASE) -> Delivery:
        delivery = delivery_of(server, outbox, lease)
        tasks.append(asyncio.create_task(delivery.run(asyncio.Event())))
        return delivery

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_S1_an_acknowledgement_counts_for_its_own_message_only(start: Start, outbox: Outbox) -> None:
    server = Server()
    delivery = start(server)
    await server.published.wait()
    await asyncio.sleep(0)
    for epoch, sequence, member in (("before:1", 5, "other"), (EPOCH, 4, "other"), (EPOCH, 5, "third")):
        delivery.acknowledged(epoch, sequence, member)
    for _ in range(5):
        await asyncio.sleep(0)
    assert outbox.waiting == 1
    delivery.acknowledged(EPOCH, 5, "other")
    await asyncio.wait_for(asyncio.wrap_future(outbox.acknowledgement()), 20)
    assert outbox.waiting == 0


@pytest.mark.parametrize("when", ["before the number", "before the message", "a replica lacks the last numbers"])
async def test_S1_a_message_is_not_published_in_another_epoch_than_its_number(outbox: Outbox, when: str) -> None:
    server = Server()
    if when == "before the number":
        server.epoch = "next:2"
    elif when == "before the message":
        server.flushed = True  # the server lost the list of processes that must acknowledge
    else:
        server.sequence = 3
    with pytest.raises(ExceptionGroup) as raised:
        await delivery_of(server, outbox).run(asyncio.Event())
    assert raised.group_contains(MissedMessage)
    assert (server.published.is_set(), outbox.waiting) == (when == "before the message", 1)
    assert server.rotated == ([EPOCH, 4] if when == "a replica lacks the last numbers" else [])
    outbox.repeat()
    assert outbox.take() is not None


async def test_S1_a_young_epoch_may_lack_processes_so_a_lease_is_waited_for(start: Start, outbox: Outbox) -> None:
    server = Server()
    server.age = module.FORGET_MS - 1
    delivery = start(server, lease=0.2)
    await server.published.wait()
    delivery.acknowledged(EPOCH, 5, "other")
    for _ in range(5):
        await asyncio.sleep(0)
    assert outbox.waiting == 1
    await asyncio.wait_for(asyncio.wrap_future(outbox.acknowledgement()), 20)
