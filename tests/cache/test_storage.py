"""The cache's storage: slots, sweeping and eviction."""

from __future__ import annotations

from cachetools import LRUCache

from profile_enrich.cache.storage import NEVER, CacheStorage, Entry
from tests.cache.test_cache import entry, negative


class TestReprs:
    def test_an_entry_says_what_it_is_and_how_large(self) -> None:
        item = entry()
        assert repr(item) == f"<Entry known, {item.size} bytes>"
        assert repr(negative()) == "<Entry negative, 200 bytes>"


class TestCacheStorage:
    def storage(self, max_entries: int = 100) -> CacheStorage[str]:
        return CacheStorage(LRUCache(maxsize=100), max_entries)

    def test_sweeping_goes_on_where_it_stopped(self) -> None:
        storage = self.storage()
        for key, until in zip("abcde", (10.0, 10.0, 5.0, 10.0, 5.0), strict=True):
            assert storage.put(key, entry(until=until)) is True
        assert storage.sweep(0.0, 2) == 0
        assert storage.sweep(5.0, 2) == 2, "c, and then e, which replaced it"
        assert sorted(storage.store) == ["a", "b", "d"]
        assert storage.sweep(5.0, 1) == 0
        assert storage.sweep(10.0, 1) == 1, "at the end the sweep starts over, with a"
        assert sorted(storage.store) == ["b", "d"]
        assert storage.sweep(10.0, 100) == 2
        assert (len(storage.store), storage.slots) == (0, 0)
        assert storage.sweep(10.0, 100) == 0

    def test_L8_slots_of_what_is_gone_are_given_up(self) -> None:
        """L8: the list of slots stays bounded if one key is stored and removed repeatedly."""
        storage = self.storage()
        for _ in range(50):
            storage.put("a", entry(until=5.0))
            assert storage.remove("a") is True
            assert storage.remove("a") is False
        storage.put("a", entry(until=5.0))
        assert storage.slots == 51
        assert storage.sweep(0.0, 51) == 0
        assert storage.slots == 1
        assert storage.peek("a") is not None

    def test_a_new_answer_keeps_the_slot_of_the_old_one(self) -> None:
        storage = self.storage()
        storage.put("a", entry(until=5.0))
        storage.put("a", entry(until=9.0))
        assert storage.slots == 1
        assert storage.sweep(5.0, 10) == 0
        assert storage.sweep(9.0, 10) == 1

    def test_only_a_new_key_takes_the_place_of_another(self) -> None:
        storage = self.storage(2)
        for key in "abaa":
            storage.put(key, entry())
        assert sorted(storage.store) == ["a", "b"]
        storage.put("c", entry())
        assert sorted(storage.store) == ["a", "c"]

    def test_a_glance_is_no_use(self) -> None:
        storage = self.storage(2)
        storage.put("a", entry())
        storage.put("b", entry())
        assert storage.peek("a") is not None
        assert storage.peek("c") is None
        storage.put("c", entry())
        assert sorted(storage.store) == ["b", "c"]

    def test_what_is_larger_than_all_of_it_is_not_kept(self) -> None:
        storage: CacheStorage[str] = CacheStorage(LRUCache(maxsize=100, getsizeof=lambda item: item.size), 100)
        assert storage.put("a", entry()) is False
        assert (len(storage.store), storage.slots) == (0, 0)

    def test_after_clearing_sweeping_begins_at_the_front(self) -> None:
        storage = self.storage()
        for key in "abc":
            storage.put(key, entry())
        storage.sweep(0.0, 2)
        storage.clear()
        assert (len(storage.store), storage.slots) == (0, 0)
        storage.put("a", entry(until=5.0))
        storage.put("b", entry(until=9.0))
        assert storage.sweep(5.0, 1) == 1

    def test_a_new_entry_has_no_history(self) -> None:
        item = Entry(None, fresh_until=1.0, stale_until=2.0, evict_at=3.0)
        assert (item.fresh_until, item.stale_until, item.evict_at) == (1.0, 2.0, 3.0)
        assert (item.record, item.reason, item.error, item.validators, item.view, item.slot) == (None,) * 6
        assert (item.stamp, item.retry_at, item.tags) == (NEVER, 0.0, frozenset())
