"""The shelf under the cache by itself: seats, sweeping, what takes the place of what."""

from __future__ import annotations

from cachetools import LRUCache

from profile_enrich.cache.storage import NEVER, CacheStorage, Entry
from tests.cache.test_cache import entry, negative


class TestReprs:
    def test_an_entry_says_what_it_is_and_how_large(self) -> None:
        item = entry()
        assert repr(item) == f"<Entry known, {item.size} bytes>"
        assert repr(negative()) == "<Entry negative, 200 bytes>"


class TestShelf:
    def shelf(self, max_entries: int = 100) -> CacheStorage[str]:
        return CacheStorage(LRUCache(maxsize=100), max_entries)

    def test_sweeping_goes_on_where_it_stopped(self) -> None:
        shelf = self.shelf()
        for key, until in zip("abcde", (10.0, 10.0, 5.0, 10.0, 5.0), strict=True):
            assert shelf.put(key, entry(until=until)) is True
        assert shelf.sweep(0.0, 2) == 0
        assert shelf.sweep(5.0, 2) == 2, "c, and then e, which took its place"
        assert sorted(shelf.store) == ["a", "b", "d"]
        assert shelf.sweep(5.0, 1) == 0
        assert shelf.sweep(10.0, 1) == 1, "at the end it begins anew, with a"
        assert sorted(shelf.store) == ["b", "d"]
        assert shelf.sweep(10.0, 100) == 2
        assert (len(shelf.store), shelf.seats) == (0, 0)
        assert shelf.sweep(10.0, 100) == 0

    def test_L8_seats_of_what_is_gone_are_given_up(self) -> None:
        """L8: the list of seats stays bounded, also when one key comes and goes for ever."""
        shelf = self.shelf()
        for _ in range(50):
            shelf.put("a", entry(until=5.0))
            assert shelf.remove("a") is True
            assert shelf.remove("a") is False
        shelf.put("a", entry(until=5.0))
        assert shelf.seats == 51
        assert shelf.sweep(0.0, 51) == 0
        assert shelf.seats == 1
        assert shelf.glance("a") is not None

    def test_a_new_answer_keeps_the_seat_of_the_old_one(self) -> None:
        shelf = self.shelf()
        shelf.put("a", entry(until=5.0))
        shelf.put("a", entry(until=9.0))
        assert shelf.seats == 1
        assert shelf.sweep(5.0, 10) == 0
        assert shelf.sweep(9.0, 10) == 1

    def test_only_a_new_key_takes_the_place_of_another(self) -> None:
        shelf = self.shelf(2)
        for key in "abaa":
            shelf.put(key, entry())
        assert sorted(shelf.store) == ["a", "b"]
        shelf.put("c", entry())
        assert sorted(shelf.store) == ["a", "c"]

    def test_a_glance_is_no_use(self) -> None:
        shelf = self.shelf(2)
        shelf.put("a", entry())
        shelf.put("b", entry())
        assert shelf.glance("a") is not None
        assert shelf.glance("c") is None
        shelf.put("c", entry())
        assert sorted(shelf.store) == ["b", "c"]

    def test_what_is_larger_than_all_of_it_is_not_kept(self) -> None:
        shelf: CacheStorage[str] = CacheStorage(LRUCache(maxsize=100, getsizeof=lambda item: item.size), 100)
        assert shelf.put("a", entry()) is False
        assert (len(shelf.store), shelf.seats) == (0, 0)

    def test_after_clearing_sweeping_begins_at_the_front(self) -> None:
        shelf = self.shelf()
        for key in "abc":
            shelf.put(key, entry())
        shelf.sweep(0.0, 2)
        shelf.clear()
        assert (len(shelf.store), shelf.seats) == (0, 0)
        shelf.put("a", entry(until=5.0))
        shelf.put("b", entry(until=9.0))
        assert shelf.sweep(5.0, 1) == 1

    def test_a_new_entry_has_no_history(self) -> None:
        item = Entry(None, soft=1.0, hard=2.0, drop=3.0)
        assert (item.soft, item.hard, item.drop) == (1.0, 2.0, 3.0)
        assert (item.record, item.reason, item.error, item.validators, item.view, item.seat) == (None,) * 6
        assert (item.stamp, item.retry_at, item.tags) == (NEVER, 0.0, frozenset())
