"""Events wait until they are acknowledged, in bounded memory."""

from __future__ import annotations

import pytest

from profile_enrich.cache.shared import outbox as module
from profile_enrich.cache.shared.backplane_events import Event, decode_message, encode_message
from profile_enrich.cache.shared.outbox import Batch, Outbox


def keys(*values: str, namespace: str = "ns") -> Event:
    return Event(kind="keys", namespace=namespace, keys=tuple(("id", value) for value in values))


def taken(outbox: Outbox) -> Batch:
    batch = outbox.take()
    assert batch is not None
    return batch


def test_an_acknowledgement_waits_for_what_was_put_before_and_not_for_more() -> None:
    outbox = Outbox()
    assert outbox.acknowledgement().done()
    outbox.put(keys("u1"))
    first = outbox.acknowledgement()
    batch = taken(outbox)
    assert batch.events == [keys("u1")]
    outbox.put(keys("u2"))
    second = outbox.acknowledgement()
    outbox.acknowledged(batch)
    assert (first.done(), second.done(), outbox.waiting) == (True, False, 1)
    outbox.acknowledged(taken(outbox))
    assert (second.done(), outbox.waiting) == (True, 0)


def test_S1_after_a_failure_a_message_is_repeated_with_all_later_ones() -> None:
    outbox = Outbox()
    batches = []
    for value in ("u1", "u2", "u3"):
        outbox.put(keys(value))
        batches.append(taken(outbox))
    outbox.put(keys("u4"))
    outbox.acknowledged(batches[0])
    outbox.acknowledged(batches[2])  # before an older one, whose repetition must not override it
    assert outbox.waiting == 3
    for _ in range(2):
        outbox.repeat()
        assert taken(outbox) is batches[1]
    outbox.repeat()
    again = [taken(outbox) for _ in range(3)]
    assert [batch.events for batch in again] == [[keys("u2")], [keys("u3")], [keys("u4")]]
    outbox.acknowledged(again[0])
    assert (outbox.take(), outbox.waiting) == (None, 2)


def test_S1_a_key_is_held_until_it_is_fenced_also_when_sending_is_repeated() -> None:
    outbox = Outbox()
    outbox.put(keys("u1"))
    assert outbox.holds(("ns", "id", "u1"))
    assert not outbox.holds(("ns", "id", "u2"))
    batch = taken(outbox)
    outbox.repeat()  # the first attempt failed
    assert taken(outbox) is batch
    outbox.fenced(batch)
    outbox.fenced(batch)
    assert not outbox.holds(("ns", "id", "u1"))
    outbox.put(Event(kind="tag", namespace="ns", tag="vip"))
    assert outbox.holds(("ns", "id", "u2"))


def test_S1_what_is_too_much_to_keep_becomes_one_clearing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 10)
    outbox = Outbox()
    for number in range(10):
        outbox.put(keys(f"u{number}", namespace=f"ns{number % 2}"))
    before = outbox.acknowledgement()
    outbox.put(keys("u11", namespace="ns0"))
    batch = taken(outbox)
    assert batch.events == [Event(kind="clear", namespace="ns0"), Event(kind="clear", namespace="ns1")]
    assert not before.done()
    outbox.fenced(batch)
    outbox.acknowledged(batch)
    assert (before.done(), outbox.waiting, outbox.holds(("ns0", "id", "u1"))) == (True, 0, False)


def test_a_message_comes_back_as_it_was() -> None:
    events = [
        keys("u1", "u2"),
        Event(kind="overlay", namespace="ns", keys=(("id", "u"),), attributes={"a": [1, {"b": None}]}, until=5.0),
    ]
    assert decode_message(encode_message("a:1", 7, "me", events)) == ("a:1", 7, "me", events)
    assert "u1" not in repr(events)
