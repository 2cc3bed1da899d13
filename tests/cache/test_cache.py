"""The cache without a client: bounds, tokens, invalidation, sweeping."""

from __future__ import annotations

import random
from typing import Any

import pytest
from cachetools import LFUCache, LRUCache, TLRUCache, TTLCache
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from profile_enrich import ConfigurationError, Profile, Reason, Record, SourceConnectionError
from profile_enrich.cache.cache import MAX_TAGS, Entry, ProfileCache
from profile_enrich.cache.cache_policy import CachePolicy
from profile_enrich.testing import ManualClock


def entry(value: object = 1, *, until: float = 1_000_000.0, tags: frozenset[str] = frozenset()) -> Entry:
    return Entry(Record({"value": value}), fresh_until=until, stale_until=until, evict_at=until, tags=tags)


def negative(until: float = 1_000_000.0) -> Entry:
    return Entry(None, fresh_until=until, stale_until=until, evict_at=until, reason=Reason.NOT_FOUND)


def put(cache: ProfileCache[str], key: str, item: Entry) -> bool:
    item.view = None if item.record is None else Profile(item.record)
    load = cache.begin(key)
    try:
        return cache.commit(load, item)
    finally:
        cache.end(load)


def value_of(cache: ProfileCache[str], key: str, now: float = 0.0) -> Any:
    item = cache.get(key, now)
    return None if item is None or item.record is None else item.record.attributes["value"]


def test_keeps_what_it_is_given_until_its_time() -> None:
    cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
    put(cache, "a", entry(1, until=10.0))
    assert value_of(cache, "a", 9.9) == 1
    assert value_of(cache, "a", 10.0) is None
    assert cache.entries == 0, "expired entries are dropped when they are read"


class TestBounds:
    @pytest.mark.long
    def test_L8_entries_and_bytes_stay_bounded_after_many_ids(self) -> None:
        """L8: entries *and* bytes stay under their limits, and the sweeper's list does not outgrow them."""
        cache: ProfileCache[str] = ProfileCache(max_entries=1_000, max_bytes=1_000_000, timer=ManualClock(0.0))
        for index in range(30_000):
            put(cache, f"id{index}", entry("x" * random.randrange(200)))
            assert cache.entries <= 1_000
            assert cache.bytes <= 1_000_000
        assert cache.entries > 300
        assert cache.sweep_span < 2 * 2 * 1_000

    def test_L8_what_is_read_without_the_lock_is_not_evicted_first(self) -> None:
        """L8: entries that were not used recently are evicted first, and a fresh hit counts as use."""
        cache: ProfileCache[str] = ProfileCache(max_entries=2, timer=ManualClock(0.0))
        put(cache, "a", entry("a"))
        put(cache, "b", entry("b"))
        assert cache.fresh("a", 0.0) is not None
        put(cache, "c", entry("c"))
        assert [value_of(cache, key) for key in "abc"] == ["a", None, "c"]

    def test_L8_the_list_of_slots_does_not_grow_with_invalidations(self) -> None:
        """L8: the cache stays bounded if one key is stored and removed repeatedly."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        for _ in range(10_000):
            put(cache, "a", entry())
            cache.invalidate("a")
        assert cache.sweep_span < 10

    def test_L8_an_oversize_value_is_not_kept_and_displaces_the_older_one(self) -> None:
        """L8: an oversize value is served, not stored, and displaces any older one."""
        cache: ProfileCache[str] = ProfileCache(policy=CachePolicy(max_entry_bytes=5_000), timer=ManualClock(0.0))
        put(cache, "a", entry("small"))
        assert put(cache, "a", entry("x" * 10_000)) is True
        assert cache.get("a", 0.0) is None

    def test_L8_a_value_larger_than_the_whole_cache_displaces_the_older_one(self) -> None:
        """L8: likewise when only `max_bytes` forbids it."""
        cache: ProfileCache[str] = ProfileCache(max_bytes=5_000, timer=ManualClock(0.0))
        put(cache, "a", entry("small"))
        put(cache, "a", entry("x" * 10_000))
        assert cache.get("a", 0.0) is None
        assert cache.bytes == 0

    def test_L7_unknown_ids_evict_no_known_profile(self) -> None:
        """L7: negative entries have a quota of their own."""
        cache: ProfileCache[str] = ProfileCache(
            max_entries=100, policy=CachePolicy(max_negative_entries=50), timer=ManualClock(0.0)
        )
        for index in range(100):
            put(cache, f"known{index}", entry(index))
        for index in range(20_000):
            put(cache, f"made-up{index}", negative())
        assert cache.negative_entries == 50
        assert [value_of(cache, f"known{index}") for index in range(100)] == list(range(100))

    def test_a_key_is_known_or_unknown_never_both(self) -> None:
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        put(cache, "a", entry())
        put(cache, "a", negative())
        assert (cache.entries, cache.negative_entries) == (0, 1)
        put(cache, "a", entry(2))
        assert (cache.entries, cache.negative_entries) == (1, 0)

    def test_the_least_recently_used_goes_first(self) -> None:
        cache: ProfileCache[str] = ProfileCache(max_entries=2, timer=ManualClock(0.0))
        put(cache, "a", entry())
        put(cache, "b", entry())
        cache.get("a", 0.0)
        put(cache, "c", entry())
        assert [value_of(cache, key) for key in "abc"] == [1, None, 1]

    @pytest.mark.parametrize("store", [LRUCache(maxsize=2), LFUCache(maxsize=2)])
    def test_takes_a_cachetools_cache_of_the_users_own(self, store: Any) -> None:
        cache: ProfileCache[str] = ProfileCache(policy=CachePolicy(storage=store), timer=ManualClock(0.0))
        for key in "abc":
            put(cache, key, entry())
        assert cache.entries == 2
        assert cache.bytes == 2
        assert cache.sweep(100) == 0

    @pytest.mark.parametrize(
        ("store", "complaint"),
        [
            (TTLCache(2, 1), "storage: TTLCache and TLRUCache drop what could be served stale"),
            (
                TLRUCache(2, lambda *_: 1),
                "storage: TTLCache and TLRUCache drop what could be served stale",
            ),
            ({}, "storage must be a cachetools cache such as LRUCache"),
        ],
    )
    def test_refuses_a_store_that_could_not_serve_stale(self, store: Any, complaint: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{complaint}"):
            CachePolicy(storage=store)

    @pytest.mark.parametrize("name", ["max_entries", "max_bytes", "max_entry_bytes", "max_negative_entries"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
    def test_refuses_bounds_that_are_none(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"^{name} must be"):
            ProfileCache(**{name: value}) if name in ("max_entries", "max_bytes") else CachePolicy(**{name: value})


class TestTokens:
    def test_L6_an_invalidation_during_a_load_wins(self) -> None:
        """L6: after `invalidate(key)` during a load, no later get sees that load's result."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        load = cache.begin("a")
        assert cache.is_current(load)
        cache.invalidate("a")
        assert not cache.is_current(load)
        assert cache.commit(load, entry()) is False
        assert cache.get("a", 0.0) is None
        cache.end(load)
        assert put(cache, "a", entry(2)) is True

    def test_L6_other_keys_are_not_touched(self) -> None:
        """L6: an invalidation affects one key."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        load = cache.begin("a")
        assert cache.invalidate("b") is False
        assert cache.commit(load, entry()) is True

    def test_L6_clearing_during_a_load_wins(self) -> None:
        """L6: … or clear."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        put(cache, "b", entry())
        put(cache, "c", negative())
        load = cache.begin("a")
        cache.clear()
        assert cache.commit(load, entry()) is False
        assert (cache.entries, cache.negative_entries, cache.sweep_span) == (0, 0, 0)

    def test_L6_an_older_load_does_not_touch_a_newer_answer(self) -> None:
        """L6: a superseded load, successful or failed, never changes the newer entry."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        older, newer = cache.begin("a"), cache.begin("a")
        assert cache.commit(newer, entry("new")) is True
        assert cache.commit(older, entry("old")) is False
        assert cache.commit(older, negative()) is False
        cache.defer(older, until=99.0, error=SourceConnectionError())
        cache.discard(older)
        item = cache.get("a", 0.0)
        assert item is not None
        assert (value_of(cache, "a"), item.retry_at, item.error) == ("new", 0.0, None)

    def test_a_load_that_has_ended_stores_nothing(self) -> None:
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        load = cache.begin("a")
        cache.end(load)
        cache.end(load)
        assert cache.commit(load, entry()) is False

    def test_what_must_not_be_kept_takes_the_older_answer_with_it(self) -> None:
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        put(cache, "a", entry("old"))
        cache.discard(cache.begin("a"))
        assert cache.get("a", 0.0) is None

    def test_no_trace_of_a_key_is_left_when_its_loads_have_ended(self) -> None:
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        loads = [cache.begin("a"), cache.begin("a")]
        cache.invalidate("a")
        for load in loads:
            cache.end(load)
        assert cache._loads == {}
        assert cache._invalidated == {}


class TestTags:
    def test_L6_a_tag_drops_all_that_carry_it(self) -> None:
        """L6: … or a tag."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        put(cache, "a", entry(tags=frozenset({"gold", "eu"})))
        put(cache, "b", entry(tags=frozenset({"eu"})))
        put(cache, "c", entry())
        cache.invalidate_tag("gold")
        assert [value_of(cache, key) for key in "abc"] == [None, 1, 1]
        put(cache, "a", entry(tags=frozenset({"gold"})))
        assert value_of(cache, "a") == 1

    def test_L6_a_tag_wins_over_a_load_under_way(self) -> None:
        """L6: also for the tag of a load that has not completed."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        load = cache.begin("a")
        cache.invalidate_tag("gold")
        assert cache.commit(load, entry(tags=frozenset({"gold"}))) is False

    def test_L8_tags_are_bounded_and_err_on_the_safe_side(self) -> None:
        """L8: bounded. Dropping a record of an invalidation invalidates everything older."""
        cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
        put(cache, "a", entry(tags=frozenset({"first"})))
        put(cache, "b", entry())
        for index in range(MAX_TAGS + 1):
            cache.invalidate_tag(str(index))
        assert len(cache._tags) == MAX_TAGS
        assert [value_of(cache, key) for key in "ab"] == [None, 1]
        put(cache, "a", entry(2, tags=frozenset({"first"})))
        assert value_of(cache, "a") == 2


class TestSweeping:
    def test_L8_what_has_expired_goes_although_nothing_asks_for_it(self) -> None:
        """L8: expired personal data is dropped within a bounded time."""
        clock = ManualClock(0.0)
        cache: ProfileCache[str] = ProfileCache(timer=clock)
        for index in range(1_000):
            put(cache, f"a{index}", entry(until=10.0 if index % 2 else 100.0))
            put(cache, f"n{index}", negative(until=10.0))
        clock.advance(10.0)
        dropped = sum(cache.sweep(100) for _ in range(cache.sweep_span // 100))
        assert dropped == 1_500
        assert (cache.entries, cache.negative_entries) == (500, 0)

    @pytest.mark.long
    def test_L8_no_sweep_takes_long_when_everything_expires_together(self) -> None:
        """L8: a sweep runs in slices, and each checks at most the given number of entries."""
        clock = ManualClock(0.0)
        cache: ProfileCache[str] = ProfileCache(max_entries=100_000, timer=clock)
        for index in range(20_000):
            put(cache, f"a{index}", entry(until=10.0))
        clock.advance(10.0)
        assert cache.sweep(500) == 500
        assert put(cache, "b", entry())
        assert cache.entries >= 20_000 - 500 - 8


def test_A18_reprs_show_no_keys_and_no_values() -> None:
    """A18: no personal data in reprs."""
    cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
    put(cache, "alice", entry("secret"))
    text = repr(cache) + repr(cache.get("alice", 0.0))
    assert "alice" not in text
    assert "secret" not in text


class CacheMachine(RuleBasedStateMachine):
    """The cache compared with a plain model: a dictionary, a clock and numbered loads."""

    keys = st.sampled_from(["a", "b", "c"])
    loads: Bundle[Any] = Bundle("loads")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(0.0)
        self.cache: ProfileCache[str] = ProfileCache(timer=self.clock)
        self.model: dict[str, tuple[int, float, int | None, frozenset[str]]] = {}
        self.started = 0
        self.killed: set[int] = set()
        self.open: dict[int, str] = {}
        self.tag_times: dict[int, str] = {}
        self.step = 0

    @rule(target=loads, key=keys)
    def begin(self, key: str) -> Any:
        self.started += 1
        self.open[self.started] = key
        return self.started, key, self.cache.begin(key), self._tick()

    @rule(load=loads, value=st.none() | st.integers(0, 9), life=st.integers(1, 5), tag=st.sampled_from(["", "x", "y"]))
    def commit(self, load: Any, value: int | None, life: int, tag: str) -> None:
        number, key, token, began = load
        tags = frozenset({tag} if tag and value is not None else set())
        until = self.clock() + life
        item = negative(until) if value is None else entry(value, until=until, tags=tags)
        allowed = (
            number in self.open
            and number not in self.killed
            and not any(when > began and name in tags for when, name in self.tag_times.items())
            and (key not in self.model or self._gone(key) or self.model[key][0] <= number)
        )
        # An expired or tag-invalidated entry may still be stored: it can only block older loads.
        done = self.cache.commit(token, item)
        if allowed and not done:
            assert key in self.model
            assert self.model[key][0] > number
        if not allowed:
            assert not done
        if done:
            self.model[key] = (number, until, value, tags)
            self._model_tag_reset(key)

    def _model_tag_reset(self, key: str) -> None:
        self.stamped = getattr(self, "stamped", {})
        self.stamped[key] = self._tick()

    def _tick(self) -> int:
        self.step += 1
        return self.step

    def _gone(self, key: str) -> bool:
        _, until, _, tags = self.model[key]
        return until <= self.clock() or self._tagged_out(key, tags)

    def _tagged_out(self, key: str, tags: frozenset[str]) -> bool:
        return any(when > self.stamped[key] and name in tags for when, name in self.tag_times.items())

    @rule(load=loads)
    def end(self, load: Any) -> None:
        self.cache.end(load[2])
        self.open.pop(load[0], None)

    @rule(key=keys)
    def invalidate(self, key: str) -> None:
        self.cache.invalidate(key)
        self.model.pop(key, None)
        self.killed |= {number for number, name in self.open.items() if name == key}

    @rule(tag=st.sampled_from(["x", "y"]))
    def invalidate_tag(self, tag: str) -> None:
        self.cache.invalidate_tag(tag)
        self.tag_times[self._tick()] = tag

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()
        self.killed |= set(self.open)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.integers(1, 5))
    def sweep(self, limit: int) -> None:
        self.cache.sweep(limit)

    @invariant()
    def reads_are_those_of_the_model(self) -> None:
        for key in ("a", "b", "c"):
            item = self.cache.get(key, self.clock())
            if key not in self.model or self._gone(key):
                assert item is None
            else:
                assert item is not None
                value = None if item.record is None else item.record.attributes["value"]
                assert value == self.model[key][2]


TestCacheAgainstModel = CacheMachine.TestCase
TestCacheAgainstModel.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
