"""Equal short strings of several records are one object, for a bounded time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from profile_enrich import Record
from profile_enrich._utils import string_pool
from profile_enrich._utils.string_pool import MAX_LENGTH, MAX_STRINGS, StringPool, shared_strings


def loaded(**attributes: object) -> Record:
    return Record(json.loads(json.dumps(attributes)))


@pytest.fixture(autouse=True)
def _empty_pool() -> None:
    shared_strings.clear()


def test_L8_equal_short_strings_are_held_and_counted_once() -> None:
    """L8: the byte count is the memory in use."""
    first, second = loaded(tier="gold tier", tags=["new one"]), loaded(tier="gold tier", tags=["new one"])
    assert first.attributes["tier"] is second.attributes["tier"]
    assert first.attributes["tags"][0] is second.attributes["tags"][0]
    assert second.size < first.size


def test_long_strings_are_not_kept() -> None:
    text = "x" * (MAX_LENGTH + 1)
    first, second = loaded(note=text), loaded(note=text)
    assert first.attributes["note"] is not second.attributes["note"]
    assert text not in shared_strings.current()


def test_L8_the_pool_is_bounded_in_number_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """L8: the pool may hold personal data."""
    now = [1000.0]
    clock: Any = type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})
    monkeypatch.setattr(string_pool, "time", clock)
    pool = StringPool()
    pool.current()["Ann"] = "Ann"
    assert "Ann" in pool.current()
    now[0] += string_pool.SECONDS
    assert pool.current() == {}
    pool.current().update({str(number): str(number) for number in range(MAX_STRINGS)})
    assert pool.current() == {}
