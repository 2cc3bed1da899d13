"""Posting lists: what several values share, whatever their densities, beside Python's sets."""

from __future__ import annotations

import random
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import combinations, islice

import pytest

from profile_enrich.store.index.bitmap_cache import SHIFT, Bitmaps
from profile_enrich.store.index.builder import chunked
from profile_enrich.store.index.posting_lists import LOW, MANY, ListTerm, Mask, Term, count, lows_of, matching, pack

CHUNKS = 3
# How many docids of a chunk; with which it may be an array or a bitmap, and found in an array in either way.
DENSITIES = (1, 3, 40, MANY - 1, MANY, 5000, 60_000)


@pytest.fixture(scope="module")
def lists() -> dict[str, list[int]]:
    """Docids of many values; the uneven one is dense in one chunk and rare in another, and lacks the middle one."""
    choose = random.Random(7)
    found = {
        str(size): sorted(
            docid for chunk in range(CHUNKS) for docid in choose.sample(range(chunk << 16, (chunk + 1) << 16), size)
        )
        for size in DENSITIES
    }
    found["uneven"] = sorted(
        [*choose.sample(range(1 << 16), 9000), *choose.sample(range(2 << 16, 3 << 16), 30), (3 << 16) - 1]
    )
    found["edges"] = [edge for chunk in range(CHUNKS) for edge in (chunk << 16, (chunk << 16) + LOW)]
    return {name: sorted(set(docids)) for name, docids in found.items()}


@pytest.fixture(scope="module")
def terms(lists: dict[str, list[int]]) -> Iterator[dict[str, Term]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE post (id INTEGER PRIMARY KEY, data BLOB)")
        connection.execute("CREATE TABLE record (docid INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO record VALUES (?)", (max(map(max, lists.values())),))
        bitmaps = Bitmaps(connection, most=3)
        made: dict[str, Term] = {}
        for vid, (name, docids) in enumerate(lists.items(), 1):
            rows = [((vid << SHIFT) + chunk, pack(lows)) for chunk, lows in chunked(docids)]
            connection.executemany("INSERT INTO post VALUES (?, ?)", rows)
            made[name] = Term(connection, bitmaps, vid, len(docids))
            made[f"listed {name}"] = ListTerm(connection, bitmaps, docids)
        yield made


def shared(sets: dict[str, frozenset[int]], names: Sequence[str]) -> list[int]:
    first, *others = [sets[name.removeprefix("listed ")] for name in names]
    return sorted(first.intersection(*others))


@pytest.mark.parametrize("how_many", [1, 2, 3])
def test_what_values_share(lists: dict[str, list[int]], terms: dict[str, Term], how_many: int) -> None:
    sets = {name: frozenset(docids) for name, docids in lists.items()}
    names = [*lists, "listed 3", "listed 40"]
    for chosen in combinations(names, how_many):
        expected, given = shared(sets, chosen), [terms[name] for name in chosen]
        assert count(given) == len(expected), chosen
        for after in (-1, 0, 5000, (1 << 16) - 1, 1 << 16, (2 << 16) + 40_000, CHUNKS << 16):
            there = [docid for docid in expected if docid > after]
            assert list(islice(matching(given, after), 300)) == there[:300], (chosen, after)


def test_what_newer_layers_speak_of_is_hidden(lists: dict[str, list[int]], terms: dict[str, Term]) -> None:
    sets = {name: frozenset(docids) for name, docids in lists.items()}
    for hidden in (["3"], ["5000"], ["40", "uneven"], ["edges", "60000"]):
        mask = Mask([terms[name] for name in hidden])
        gone = frozenset[int]().union(*[sets[name] for name in hidden])
        for chosen in combinations(lists, 2):
            expected = [docid for docid in shared(sets, chosen) if docid not in gone]
            given = [terms[name] for name in chosen]
            assert count(given, mask) == len(expected), (hidden, chosen)
            assert list(matching(given, 700, mask)) == [docid for docid in expected if docid > 700]
        for name in lists:
            assert count([terms[name]], mask) == len(sets[name] - gone)


@pytest.mark.parametrize("size", [0, 1, MANY - 1, MANY, 2047, 2048, 40_000, 65_536])
def test_a_chunk_is_read_as_it_was_written(size: int) -> None:
    lows = array("H", sorted(random.Random(size).sample(range(1 << 16), size)))
    data = pack(lows)
    assert len(data) == (8192 if size >= MANY else 2 * size)
    assert lows_of(data, dense=size >= MANY) == lows
