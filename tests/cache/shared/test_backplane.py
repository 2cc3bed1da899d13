"""Which entries a process serves while it resynchronises, and after it was stopped or forked."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from profile_enrich import MemorySource, ProfileClient, SharedCache
from profile_enrich.cache.shared.backplane_events import Event

pytest.importorskip("redis")


class Server:
    """Replies to the script that reads the state when the test allows it."""

    def __init__(self) -> None:
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def run(self, *_: object) -> Any:
        self.asked.set()
        await self.answer.wait()
        return [[b"old tag", b"3", b"new tag", b"1"], b"2"]


@pytest.fixture
def client() -> ProfileClient:
    shared = SharedCache("redis://127.0.0.1:9/0", insecure_plaintext=True)
    return ProfileClient(MemorySource({"u1": {"tier": "gold"}}, name="vendor"), shared=shared)


def backplane_of(client: ProfileClient) -> Any:
    assert client._shared is not None
    return client._shared._backplane


async def test_S1_a_message_that_arrives_with_the_state_is_not_lost(client: ProfileClient) -> None:
    backplane, server = backplane_of(client), Server()
    backplane.epoch = backplane._numbered = "one:1"
    backplane.sequence, backplane.tags, backplane.keys = 90, {"old tag": 80}, {("ns", "id", "u1"): 85}
    adoption = asyncio.create_task(backplane._adopt(server, "two:2", 5))
    await server.asked.wait()
    trusted = backplane.epoch
    (name,) = backplane._sealing.names(("ns", "new tag"))
    backplane._apply("two:2", 6, [Event(kind="tag", namespace="ns", tag="new tag")])
    backplane._saw("two:2", 6)
    backplane._apply("one:1", 91, [Event(kind="keys", namespace="ns", keys=(("id", "u2"),))])
    backplane._saw("one:1", 7)
    server.answer.set()
    await adoption
    assert (trusted, backplane.epoch) == (None, "two:2")
    assert (backplane.sequence, backplane.cleared, backplane.keys) == (6, 2, {})
    assert (backplane.tags["old tag"], backplane.tags[name]) == (3, 6)


async def test_S1_a_number_of_another_epoch_hides_no_gap(client: ProfileClient) -> None:
    backplane = backplane_of(client)
    backplane.epoch = backplane._numbered = "two:2"
    backplane.sequence = 2
    backplane._saw("one:1", 3)
    assert backplane.sequence == 2
    backplane._saw("two:2", 4)
    backplane._saw("two:2", 3)
    assert backplane.sequence == 4


async def test_S1_after_a_message_of_another_epoch_nothing_is_trusted(client: ProfileClient) -> None:
    backplane = backplane_of(client)
    backplane.epoch = backplane._numbered = "one:1"
    backplane.sequence = 50
    backplane._apply("two:2", 3, [Event(kind="keys", namespace="ns", keys=(("id", "u1"),))])
    assert (backplane.epoch, backplane.missed, backplane.sequence) == (None, 1, 50)


async def test_S1_a_key_invalidated_while_a_process_connects_is_not_read_from_the_server(client: ProfileClient) -> None:
    backplane, level = backplane_of(client), client._shared
    assert level is not None
    assert level.connecting
    namespace = level.namespace
    waiting = asyncio.create_task(level.connected((namespace, "id", "u1")))
    other = asyncio.create_task(level.connected((namespace, "id", "u2")))
    await asyncio.sleep(0)
    backplane.outbox.put(Event(kind="keys", namespace=namespace, keys=(("id", "u1"),)))
    backplane._until = math.inf
    backplane._attempted()
    assert (await waiting, await other, level.connecting) == (False, True, False)


async def test_S1_a_process_stopped_while_it_notes_its_lease_gets_no_longer_one(
    client: ProfileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]

    def read_and_stop() -> float:
        clock[0] += 5.0
        return clock[0] - 5.0

    level = client._shared
    assert level is not None
    monkeypatch.setattr(level, "_timer", read_and_stop)
    monkeypatch.setattr(time, "monotonic", read_and_stop)
    level.connected_until(101.0)
    assert level._cache.connected_until < clock[0]


async def test_S1_a_forked_child_keeps_nothing_that_others_may_change(client: ProfileClient) -> None:
    async with client:
        assert (await client.get("u1"))["tier"] == "gold"
        assert client.peek("u1") is not None
        level, backplane = client._shared, backplane_of(client)
        assert level is not None
        level.connected_until(math.inf)
        assert client.peek("u1") is not None
        backplane.join(level)
        for listener in backplane._listeners:
            listener.after_fork()
        assert client.peek("u1") is None
        assert level._cache.connected_until == -math.inf
