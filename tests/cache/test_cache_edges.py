"""Edge cases of the cache without a client: the fast path, overlays, simultaneous events."""

from __future__ import annotations

import threading

import pytest

from profile_enrich import Profile, Reason, Record, SourceConnectionError, Status
from profile_enrich.cache.cache import MAX_OVERLAYS, SWEPT_PER_WRITE, Entry, ProfileCache
from profile_enrich.cache.cache_policy import CachePolicy
from profile_enrich.cache.storage import NEVER
from profile_enrich.testing import ManualClock


def entry(value: object = 1, *, until: float = 1_000_000.0, tags: frozenset[str] = frozenset()) -> Entry:
    item = Entry(Record({"value": value}), fresh_until=until, stale_until=until, evict_at=until, tags=tags)
    item.view = Profile(item.record, status=Status.HIT)
    return item


def negative(until: float = 1_000_000.0) -> Entry:
    return Entry(None, fresh_until=until, stale_until=until, evict_at=until, reason=Reason.NOT_FOUND)


def put(cache: ProfileCache[str], key: str, item: Entry) -> bool:
    load = cache.begin(key)
    try:
        return cache.commit(load, item)
    finally:
        cache.end(load)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0.0)


@pytest.fixture
def cache(clock: ManualClock) -> ProfileCache[str]:
    return ProfileCache(timer=clock)


class CountedLock:
    """A lock that counts how often it is taken."""

    def __init__(self) -> None:
        self.taken = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class TestFresh:
    def test_answers_and_counts_while_an_entry_is_fresh(self, cache: ProfileCache[str]) -> None:
        item = entry(until=10.0)
        put(cache, "a", item)
        assert [cache.fresh("a", now) for now in (0.0, 9.9, 9.95)] == [item.view] * 3
        assert cache.hits == 3
        assert cache.fresh("a", 10.0) is None
        assert cache.fresh("b", 0.0) is None
        assert cache.hits == 3

    def test_leaves_what_carries_a_tag_to_get(self, cache: ProfileCache[str]) -> None:
        put(cache, "a", entry(tags=frozenset({"gold"})))
        assert cache.fresh("a", 0.0) is None
        assert cache.get("a", 0.0) is not None

    def test_leaves_what_is_unknown_to_get(self, cache: ProfileCache[str]) -> None:
        put(cache, "a", negative())
        assert cache.fresh("a", 0.0) is None
        assert cache.hits == 0

    def test_an_overlay_stands_in_the_way_of_its_own_key_only(self, cache: ProfileCache[str]) -> None:
        put(cache, "a", entry())
        put(cache, "b", entry())
        cache.overlay("b", Record({"value": 2}), 100.0)
        assert cache.fresh("a", 0.0) is not None
        assert cache.fresh("b", 0.0) is None


class TestBounds:
    def test_the_defaults_are_those_that_are_documented(self, cache: ProfileCache[str]) -> None:
        assert (cache._known.max_entries, cache._known.store.maxsize) == (50_000, 256 * 2**20)
        assert (cache._unknown.max_entries, cache._unknown.store.maxsize) == (10_000, 10_000)
        assert (cache._overlays.max_entries, cache._overlays.store.maxsize) == (MAX_OVERLAYS, MAX_OVERLAYS)
        assert cache.max_entry_bytes == 2**20

    def test_L8_an_entry_of_just_the_largest_size_is_kept(self, clock: ManualClock) -> None:
        """L8: a value of exactly the limit is not oversize."""
        item = entry("x" * 1_000)
        cache: ProfileCache[str] = ProfileCache(policy=CachePolicy(max_entry_bytes=item.size), timer=clock)
        put(cache, "a", item)
        assert cache.get("a", 0.0) is item
        assert cache.bytes == item.size

    def test_L8_without_being_told_how_much_a_sweep_is_short(
        self, cache: ProfileCache[str], clock: ManualClock
    ) -> None:
        """L8: 500 of each kind."""
        for index in range(600):
            put(cache, f"a{index}", entry(until=10.0))
        clock.advance(10.0)
        assert cache.sweep() == 500

    def test_L8_a_round_of_sweeping_sees_the_longest_of_the_lists(self, cache: ProfileCache[str]) -> None:
        """L8: expired entries of each kind are found."""
        for index in range(3):
            put(cache, f"known{index}", entry())
        assert cache.sweep_span == 6
        for index in range(4):
            put(cache, f"unknown{index}", negative())
        assert cache.sweep_span == 8
        for index in range(5):
            cache.overlay(f"laid{index}", Record({"value": 1}), 10.0)
        assert cache.sweep_span == 10

    def test_L8_each_write_sweeps_a_little(self, cache: ProfileCache[str], clock: ManualClock) -> None:
        """L8: later writes remove expired entries."""
        for round_ in range(2):
            for index in range(20):
                put(cache, f"a{index}", entry(until=clock() + 10.0))
            clock.advance(10.0)
            for index in range(20):
                if round_:
                    cache.overlay(f"b{index}", Record({"value": 2}), clock() + 100.0)
                else:
                    put(cache, f"b{index}", negative())
                assert cache.entries >= 20 - SWEPT_PER_WRITE * (index + 1)
            assert cache.entries == 0


class TestLoads:
    def test_one_may_think_better_of_its_answer(self, cache: ProfileCache[str]) -> None:
        cache.begin("a")
        load = cache.begin("a")
        assert cache.commit(load, entry(1)) is True
        better = entry(2)
        assert cache.commit(load, better) is True
        assert cache.get("a", 0.0) is better
        cache.defer(load, until=9.0, error=SourceConnectionError())
        assert better.retry_at == 9.0
        cache.discard(load)
        assert cache.get("a", 0.0) is None

    def test_L6_an_older_load_does_not_bring_back_who_a_newer_one_did_not_find(self, cache: ProfileCache[str]) -> None:
        """L6: a superseded load never changes the newer result, also if that is "not found"."""
        older, newer = cache.begin("a"), cache.begin("a")
        assert cache.commit(newer, negative()) is True
        assert cache.commit(older, entry()) is False
        assert (cache.entries, cache.negative_entries) == (0, 1)

    def test_L6_what_must_not_be_kept_takes_an_older_no_with_it(self, cache: ProfileCache[str]) -> None:
        """L6: a `no-store` result removes an older "not found"."""
        put(cache, "a", negative())
        cache.discard(cache.begin("a"))
        assert cache.get("a", 0.0) is None

    def test_L6_after_an_invalidation_a_load_discards_and_defers_nothing(self, cache: ProfileCache[str]) -> None:
        """L6: invalidation wins, also over `no-store` results and failures."""
        load = cache.begin("a")
        cache.invalidate("a")
        put(cache, "a", entry())
        late = cache.begin("a")
        cache.invalidate("b")
        cache.discard(load)
        cache.defer(load, until=9.0, error=SourceConnectionError())
        item = cache.get("a", 0.0)
        assert item is not None
        assert (item.retry_at, item.error) == (0.0, None)
        cache.end(late)
        cache.discard(late)
        cache.defer(late, until=9.0, error=SourceConnectionError())
        assert cache.get("a", 0.0) is item
        assert (item.retry_at, item.error) == (0.0, None)

    def test_L5_a_load_that_failed_says_until_when_none_should_follow(self, cache: ProfileCache[str]) -> None:
        """L5: throttled."""
        error = SourceConnectionError()
        cache.defer(cache.begin("a"), until=9.0, error=error)
        put(cache, "a", entry())
        cache.defer(cache.begin("a"), until=9.0, error=error)
        item = cache.get("a", 0.0)
        assert item is not None
        assert (item.retry_at, item.error) == (9.0, error)

    @pytest.mark.parametrize("answer", ["discarded", "oversize", "larger than all"])
    def test_L6_an_older_load_is_superseded_by_an_answer_that_was_not_kept(
        self, clock: ManualClock, answer: str
    ) -> None:
        """L6: a superseded load never changes the newer result, also if that is `no-store`."""
        cache: ProfileCache[str] = ProfileCache(max_bytes=8_000, policy=CachePolicy(max_entry_bytes=6_000), timer=clock)
        older, newer = cache.begin("a"), cache.begin("a")
        if answer == "discarded":
            cache.discard(newer)
        else:
            cache.commit(newer, entry("x" * (7_000 if answer == "oversize" else 10_000)))
        cache.end(newer)
        assert cache.commit(older, entry("old")) is False
        assert cache.get("a", 0.0) is None
        cache.end(older)
        assert cache._answered == {}
        assert put(cache, "a", entry()) is True

    def test_L6_an_older_load_stands_where_the_newer_one_failed(self, cache: ProfileCache[str]) -> None:
        """L6: a failure is not a result."""
        older, newer = cache.begin("a"), cache.begin("a")
        cache.defer(newer, until=9.0, error=SourceConnectionError())
        cache.end(newer)
        assert cache.commit(older, entry()) is True


class TestInvalidating:
    def test_it_says_whether_there_was_something(self, cache: ProfileCache[str]) -> None:
        put(cache, "known", entry())
        put(cache, "unknown", negative())
        cache.overlay("laid", Record({"value": 1}), 10.0)
        assert [cache.invalidate(key) for key in ("known", "unknown", "laid", "none")] == [True, True, True, False]
        assert [cache.invalidate(key) for key in ("known", "unknown", "laid")] == [False] * 3
        assert cache.overlay_of("laid", 0.0) is None

    def test_L6_a_tag_drops_what_came_just_before(self, cache: ProfileCache[str]) -> None:
        """L6: a tag invalidation removes entries that were stored just before it."""
        for key in "abc":
            put(cache, key, entry(tags=frozenset({"gold"})))
        cache.invalidate_tag("gold")
        assert [cache.get(key, 0.0) for key in "abc"] == [None] * 3

    def test_L6_a_tag_that_is_invalidated_again_is_the_newest(
        self, cache: ProfileCache[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L6: the least recently invalidated tag is dropped first."""
        monkeypatch.setattr("profile_enrich.cache.cache.MAX_TAGS", 2)
        for tag in ("x", "y", "x"):
            cache.invalidate_tag(tag)
        put(cache, "a", entry(tags=frozenset({"x"})))
        cache.invalidate_tag("z")
        assert set(cache._tags) == {"x", "z"}
        assert cache.get("a", 0.0) is not None, "it is newer than all dropped invalidations"

    def test_L6_clearing_forgets_tags_and_lets_new_answers_in(
        self, cache: ProfileCache[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L6: later loads are stored, regardless of earlier invalidations."""
        monkeypatch.setattr("profile_enrich.cache.cache.MAX_TAGS", 1)
        for tag in ("x", "y"):
            cache.invalidate_tag(tag)
        cache.clear()
        assert (cache._tags, cache._tags_before) == ({}, NEVER)
        put(cache, "a", entry(tags=frozenset({"x", "y"})))
        assert cache.get("a", 0.0) is not None

    def test_L6_rekeying_moves_what_was_laid_over_and_drops_the_rest_of_both(self, cache: ProfileCache[str]) -> None:
        """L6: running loads of either key are not stored."""
        for key in ("visitor", "alice", "bob"):
            put(cache, key, entry())
        cache.overlay("visitor", Record({"basket": 3}), 10.0)
        cache.overlay("alice", Record({"basket": 9}), 10.0)
        loads = [cache.begin("visitor"), cache.begin("alice"), cache.begin("bob")]
        cache.rekey("visitor", "alice")
        assert [cache.is_current(load) for load in loads] == [False, False, True]
        assert [cache.get(key, 0.0) is None for key in ("visitor", "alice", "bob")] == [True, True, False]
        laid = cache.overlay_of("alice", 9.9)
        assert laid is not None
        assert dict(laid.attributes) == {"basket": 3}
        assert cache.overlay_of("alice", 10.0) is None
        assert cache.overlay_of("visitor", 0.0) is None
        cache.rekey("bob", "alice")
        assert cache.overlay_of("alice", 0.0) is None, "without an overlay of the old key there is none now"


class TestOverlays:
    def test_where_none_is_kept_asking_for_one_takes_no_lock(
        self, cache: ProfileCache[str], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock = CountedLock()
        put(cache, "a", entry())
        monkeypatch.setattr(cache, "_lock", lock)
        assert cache.overlay_of("a", 0.0) is None
        assert lock.taken == 0
        cache.overlay("a", Record({"value": 2}), 10.0)
        assert cache.overlay_of("a", 0.0) is not None
        assert lock.taken == 2
        clock.advance(10.0)
        cache.sweep()
        assert cache.overlay_of("a", 10.0) is None
        assert lock.taken == 3, "the ended loop was removed"

    def test_one_that_has_ended_adds_nothing_to_the_next(self, cache: ProfileCache[str], clock: ManualClock) -> None:
        cache.overlay("a", Record({"tier": "gold"}), 10.0)
        clock.advance(10.0)
        cache.overlay("a", Record({"basket": 3}), 20.0)
        laid = cache.overlay_of("a", 15.0)
        assert laid is not None
        assert dict(laid.attributes) == {"basket": 3}
        assert cache.overlay_of("a", 20.0) is None


class TestForks:
    def test_A9_a_lock_that_was_held_in_the_parent_is_not_held_in_the_child(self, cache: ProfileCache[str]) -> None:
        """A9: a forked child starts with its own lock."""
        cache._lock.acquire()
        cache.renew_lock()
        assert put(cache, "a", entry()) is True


class TestIsolation:
    @pytest.mark.parametrize("stored", [True, False])
    def test_after_the_lease_entries_and_loads_are_used_until_the_isolated_ttl_is_over(
        self, stored: bool, cache: ProfileCache[str], clock: ManualClock
    ) -> None:
        clock.advance(100.0)
        cache.connected_until, cache.isolated_ttl = 105.0, 10.0
        load = cache.begin("a")
        if stored:
            cache.commit(load, entry())
        for now, used in ((104.0, True), (105.0, True), (109.5, True), (110.0, False)):
            clock.advance(now - clock())
            assert (cache.get("a", now) is not None if stored else cache.may_be_joined(load)) is used
        cache.end(load)

    def test_the_lease_ends_at_its_time(self, cache: ProfileCache[str]) -> None:
        put(cache, "a", entry())
        cache.connected_until = 5.0
        assert cache.fresh("a", 4.9) is not None
        assert cache.fresh("a", 5.0) is None
        assert cache.get("a", 5.0) is None


def test_two_overlays_keep_the_namespace_of_the_source(cache: ProfileCache[str]) -> None:
    for attribute in ("basket", "tier"):
        record = Record({attribute: 1}, source="crm")
        record.namespace = "crm/people"
        cache.overlay("a", record, 10.0)
    laid = cache.overlay_of("a", 0.0)
    assert laid is not None
    assert (sorted(laid.attributes), laid.namespace, laid.source) == (["basket", "tier"], "crm/people", "crm")
