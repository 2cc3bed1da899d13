"""The cache under threads, and reads without its lock."""

from __future__ import annotations

import random
import sys
import threading
import time

import pytest
from cachetools import LFUCache
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import Record
from profile_enrich.cache.cache import ProfileCache
from profile_enrich.cache.cache_policy import CachePolicy
from profile_enrich.cache.storage import MOST_CHANCES, Entry, SecondChanceCache
from profile_enrich.testing import ManualClock
from tests.cache.test_cache import entry, negative, put


@pytest.mark.long
def test_L9_is_safe_under_threads() -> None:
    """L9: the cache is safe under threads."""
    cache: ProfileCache[str] = ProfileCache(
        max_entries=50, policy=CachePolicy(max_negative_entries=20), timer=time.monotonic
    )
    failures: list[BaseException] = []
    until = time.monotonic() + 1.0

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while time.monotonic() < until:
                key = f"k{rng.randrange(100)}"
                step = rng.randrange(6)
                if step == 0:
                    cache.invalidate(key)
                elif step == 5:
                    view = cache.fresh(key, time.monotonic())
                    assert view is None or view["value"] == key
                elif step == 1:
                    put(cache, key, negative(time.monotonic() + 0.001))
                elif step == 2:
                    cache.sweep(10)
                elif step == 3:
                    put(cache, key, entry(key, until=time.monotonic() + rng.random() / 100))
                else:
                    item = cache.get(key, time.monotonic())
                    assert item is None or item.record is None or item.record.attributes["value"] == key
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cache.entries <= 50


def test_L11_each_fresh_answer_is_counted_also_under_threads() -> None:
    """L11: counters miss no event, even if they are read concurrently."""
    cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
    put(cache, "a", entry("a"))

    def work() -> None:
        for _ in range(2_000):
            assert cache.fresh("a", 0.0) is not None
            assert cache.fresh("b", 0.0) is None

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert cache.hits <= 8_000
    assert [cache.hits, cache.hits] == [8_000, 8_000]
    assert cache.fresh("a", 2_000_000.0) is None


def test_an_overlaid_or_tagged_key_is_never_answered_the_short_way() -> None:
    cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
    put(cache, "a", entry("a"))
    put(cache, "b", entry("b", tags=frozenset({"gold"})))
    assert cache.fresh("a", 0.0) is not None
    assert cache.fresh("b", 0.0) is None
    cache.overlay("a", Record({"points": 5}), 10.0)
    assert cache.fresh("a", 0.0) is None


def test_a_cache_handed_in_is_read_with_the_lock_only() -> None:
    cache: ProfileCache[str] = ProfileCache(policy=CachePolicy(storage=LFUCache(maxsize=10)), timer=ManualClock(0.0))
    put(cache, "a", entry("a"))
    assert cache.fresh("a", 0.0) is None
    assert cache.get("a", 0.0) is not None


@pytest.mark.parametrize(
    "gone", ["invalidate", "clear", "discard", "negative", "evicted", "oversize", "overlaid", "rekeyed"]
)
def test_L6_what_is_gone_is_not_in_the_lock_free_index(gone: str) -> None:
    """L6: after an invalidation no later get sees the old entry, also without the lock."""
    cache: ProfileCache[str] = ProfileCache(
        max_entries=2, policy=CachePolicy(max_entry_bytes=10_000), timer=ManualClock(0.0)
    )
    put(cache, "a", entry("a"))
    assert cache.fresh("a", 0.0) is not None
    if gone == "invalidate":
        cache.invalidate("a")
    elif gone == "clear":
        cache.clear()
    elif gone == "discard":
        load = cache.begin("a")
        cache.discard(load)
        cache.end(load)
    elif gone == "negative":
        put(cache, "a", negative())
    elif gone == "evicted":
        for key in "bcd":
            put(cache, key, entry(key))
    elif gone == "oversize":
        put(cache, "a", entry("x" * 20_000))
    elif gone == "overlaid":
        cache.overlay("a", Record({"points": 5}), 10.0)
    else:
        cache.rekey("visitor", "a")
    assert cache.fresh("a", 0.0) is None


class TestSecondChance:
    def cache(self, maxsize: int = 3) -> SecondChanceCache[str]:
        return SecondChanceCache(maxsize)

    def test_what_was_used_stays_once_more(self) -> None:
        cache = self.cache()
        for key in "abc":
            cache[key] = entry(key)
        assert cache["a"].used
        cache["d"] = entry("d")
        assert sorted(cache) == ["a", "c", "d"]
        cache["e"] = entry("e")
        assert sorted(cache) == ["a", "d", "e"], "c was the oldest; a had moved to the end of the queue"
        cache["f"] = entry("f")
        assert sorted(cache) == ["d", "e", "f"], "and has had its second chance"

    def test_L8_when_all_were_used_an_eviction_is_short_all_the_same(self) -> None:
        """L8: each call is short."""
        cache: SecondChanceCache[int] = SecondChanceCache(1_000)
        items = [entry() for _ in range(1_000)]
        for number, item in enumerate(items):
            cache[number] = item
            item.used = True
        assert cache.popitem() == (MOST_CHANCES, items[MOST_CHANCES])
        assert len(cache) == 999
        assert [item.used for item in items] == [False] * MOST_CHANCES + [True] * (1_000 - MOST_CHANCES)

    def test_an_empty_one_has_nothing_to_give(self) -> None:
        with pytest.raises(KeyError, match="the cache is empty"):
            self.cache().popitem()

    def test_what_does_not_fit_at_all_leaves_nothing_lock_free_index(self) -> None:
        cache: SecondChanceCache[str] = SecondChanceCache(2_000, lambda item: item.size)
        small = entry("a")
        cache["a"] = small
        cache.lock_free_index["a"] = small
        with pytest.raises(ValueError, match="too large"):
            cache["a"] = entry("x" * 2_000)
        assert cache.lock_free_index == {}

    @given(st.lists(st.tuples(st.sampled_from("rwdop"), st.integers(0, 9), st.integers(1, 6))))
    def test_what_is_lock_free_index_is_in_it_and_the_same(self, steps: list[tuple[str, int, int]]) -> None:
        sizes: dict[int, int] = {}
        cache: SecondChanceCache[int] = SecondChanceCache(12, lambda item: sizes[id(item)])
        kept: list[Entry] = []  # kept alive, so that no two share an id
        for step, key, size in steps:
            if step == "w":
                item = entry(key)
                kept.append(item)
                sizes[id(item)] = size
                cache[key] = item
            elif step == "o" and key in cache:
                cache.lock_free_index[key] = cache[key]
            elif step == "d":
                cache.pop(key, None)
            elif step == "p" and len(cache):
                cache.popitem()
            elif step == "r" and key in cache:
                assert cache[key].used
            assert all(cache.lock_free_index[name] is cache[name] for name in cache.lock_free_index)
            assert cache.currsize == sum(sizes[id(item)] for item in cache.values()) <= 12


def test_L9_readers_without_the_lock_never_meet_a_writer_that_evicts() -> None:
    """L9: safe under threads, also if threads switch after every few instructions."""
    cache: ProfileCache[str] = ProfileCache(max_entries=20, timer=ManualClock(0.0))
    wrong: list[object] = []
    stop = threading.Event()

    def read(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not stop.is_set():
                key = f"k{rng.randrange(40)}"
                view = cache.fresh(key, 0.0)
                if view is not None and view["value"] != key:
                    wrong.append(key)
        except BaseException as error:
            wrong.append(error)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        for number in range(3_000):
            put(cache, f"k{number % 40}", entry(f"k{number % 40}"))
            if number % 7 == 0:
                cache.invalidate(f"k{number % 40}")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(before)
    assert wrong == []
    assert cache.entries <= 20


def test_L6_what_is_loaded_under_an_overlay_is_not_read_past_it() -> None:
    """L6: only this key is affected; the others are still served."""
    cache: ProfileCache[str] = ProfileCache(timer=ManualClock(0.0))
    cache.overlay("a", Record({"value": "newer"}), 100.0)
    put(cache, "a", entry("older"))
    put(cache, "b", entry("b"))
    assert cache.fresh("a", 0.0) is None
    overlay = cache.overlay_of("a", 0.0)
    assert overlay is not None
    assert overlay.attributes == {"value": "newer"}
    assert cache.fresh("b", 0.0) is not None


def test_a_sweep_counts_what_it_drops_of_every_kind() -> None:
    clock = ManualClock(0.0)
    cache: ProfileCache[str] = ProfileCache(timer=clock)
    put(cache, "known", entry(until=1.0))
    put(cache, "unknown", negative(1.0))
    cache.overlay("changed", Record({}), 1.0)
    assert cache.sweep() == 0
    clock.advance(2.0)
    assert cache.sweep() == 3
    assert cache.sweep() == 0
