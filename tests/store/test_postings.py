"""Posting lists: intersections for all densities equal those of Python's sets."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import combinations, islice

import pytest

from profile_enrich.store.checksum import DamagedData
from profile_enrich.store.index import builder as building
from profile_enrich.store.index.bitmaps import SEGMENT_BITS
from profile_enrich.store.index.builder import PostingsBuilder
from profile_enrich.store.index.matching import HiddenDocids, count, matching
from profile_enrich.store.index.postings import PostingCache, PostingList, PostingReader, listed

SEGMENTS = 3
SEGMENT = 1 << SEGMENT_BITS
DENSITIES = (1, 3, 40, 600, 5000, 45_000, 60_000)


@pytest.fixture(scope="module")
def lists() -> dict[str, list[int]]:
    """Docids of many values; the uneven one is dense in one segment and rare in another, and lacks the middle one."""
    choose = random.Random(7)
    found = {
        str(size): sorted(
            docid
            for segment in range(SEGMENTS)
            for docid in choose.sample(range(segment * SEGMENT, (segment + 1) * SEGMENT), size)
        )
        for size in DENSITIES
    }
    found["uneven"] = sorted(
        [*choose.sample(range(SEGMENT), 9000), *choose.sample(range(2 * SEGMENT, 3 * SEGMENT), 30), 3 * SEGMENT - 1]
    )
    found["edges"] = [edge for n in range(SEGMENTS) for edge in (n * SEGMENT, (n + 1) * SEGMENT - 1)]
    return {name: sorted(set(docids)) for name, docids in found.items()}


@pytest.fixture(scope="module")
def connection(lists: dict[str, list[int]]) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        connection.execute("CREATE TABLE record (docid INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO record VALUES (?)", (SEGMENTS * SEGMENT - 1,))
        builder = PostingsBuilder(connection, len(lists))
        values: dict[int, list[str | None]] = {}
        for column, docids in enumerate(lists.values()):
            for docid in docids:
                values.setdefault(docid, [None] * len(lists))[column] = "yes"
        order = sorted(values)
        for start in range(0, len(order), 4096):
            some = order[start : start + 4096]
            builder.extend(some, [values[docid] for docid in some])
        builder.finish(live=False)
        yield connection


@pytest.fixture
def reader(connection: sqlite3.Connection) -> PostingReader:
    return PostingReader(connection, "1-000001.db", PostingCache())


def found(reader: PostingReader, lists: dict[str, list[int]], names: Sequence[str]) -> list[PostingList]:
    """Return the posting lists; `listed N` is not read from the file."""
    postings: list[PostingList] = []
    for name in names:
        plain = name.removeprefix("listed ")
        read = reader.find(list(lists).index(plain), "yes")
        posting = listed(0, "", lists[plain]) if plain != name else read
        assert posting is not None
        postings.append(posting)
    return postings


def shared(lists: dict[str, list[int]], names: Sequence[str]) -> list[int]:
    first, *others = [frozenset(lists[name.removeprefix("listed ")]) for name in names]
    return sorted(first.intersection(*others))


@pytest.mark.long
@pytest.mark.parametrize("how_many", [1, 2, 3])
def test_what_values_share(reader: PostingReader, lists: dict[str, list[int]], how_many: int) -> None:
    for chosen in combinations([*lists, "listed 3", "listed 40"], how_many):
        expected, postings = shared(lists, chosen), found(reader, lists, chosen)
        assert count(reader, postings) == len(expected), chosen
        for after in (-1, 0, 5000, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 40_000, SEGMENTS * SEGMENT):
            rest = [docid for docid in expected if docid > after]
            assert list(islice(matching(reader, postings, after), 300)) == rest[:300], (chosen, after)


@pytest.mark.long
def test_what_newer_layers_hold_is_hidden(reader: PostingReader, lists: dict[str, list[int]]) -> None:
    for hidden in (["3"], ["5000"], ["40", "uneven"], ["edges", "60000"]):
        mask = HiddenDocids([(reader, posting) for posting in found(reader, lists, hidden)])
        gone = frozenset[int]().union(*[lists[name] for name in hidden])
        for chosen in [*combinations(lists, 2), *combinations(lists, 1)]:
            expected = [docid for docid in shared(lists, chosen) if docid not in gone]
            postings = found(reader, lists, chosen)
            assert count(reader, postings, mask) == len(expected), (hidden, chosen)
            assert list(matching(reader, postings, 700, mask)) == [docid for docid in expected if docid > 700]


@pytest.mark.parametrize("after", [-1, 5000, SEGMENT - 1, 2 * SEGMENT + 40_000])
@pytest.mark.parametrize("limit", [1, 25, 1000])
def test_a_page_of_common_values(reader: PostingReader, lists: dict[str, list[int]], after: int, limit: int) -> None:
    """The first docids of the rarer value fill a page of 25, not one of 1,000."""
    expected = [docid for docid in shared(lists, ["45000", "60000"]) if docid > after]
    postings = found(reader, lists, ["60000", "45000"])
    assert [posting.whole for posting in postings] == [None, None]
    assert list(islice(matching(reader, postings, after), limit)) == expected[:limit]
    mask = HiddenDocids([(reader, posting) for posting in found(reader, lists, ["5000"])])
    visible = sorted({*expected}.difference(lists["5000"]))
    assert list(islice(matching(reader, postings, after, mask), limit)) == visible[:limit]


def test_a_list_that_is_used_stays_in_the_cache() -> None:
    cache = PostingCache(1000)
    first, second, third = (PostingList(0, value, 1) for value in ("1", "2", "3"))
    cache.add("file", first, 400)
    cache.add("file", second, 400)
    assert cache.get("file", 0, "1") is first
    cache.add("file", third, 400)
    assert [cache.get("file", 0, value) for value in "123"] == [first, None, third]
    assert cache.used_bytes == 802


def test_a_full_page_reads_no_further_segment(connection: sqlite3.Connection, lists: dict[str, list[int]]) -> None:
    """A page of a common value decodes one segment; a deep page starts in its own."""
    reader = PostingReader(connection, "1-000001.db", PostingCache())
    (posting,) = found(reader, lists, ["60000"])
    assert len(list(islice(matching(reader, [posting], 0), 25))) == 25
    assert list(posting.segments) == [0]
    assert len(list(islice(matching(reader, [posting], 2 * SEGMENT), 25))) == 25
    assert list(posting.segments) == [0, 2]


@pytest.mark.long
@pytest.mark.parametrize(
    "max_bytes", [pytest.param(0, marks=pytest.mark.long), 4_000, pytest.param(70_000, marks=pytest.mark.long), 1 << 30]
)
def test_the_cache_is_bounded_and_changes_no_answer(
    connection: sqlite3.Connection, lists: dict[str, list[int]], max_bytes: int
) -> None:
    cache, content = PostingCache(max_bytes), connection.serialize()
    problems: list[str] = []

    def work(seed: int) -> None:
        choose = random.Random(seed)
        with closing(sqlite3.connect(":memory:")) as own:  # each thread has its own, as in a store
            own.deserialize(content)
            reader = PostingReader(own, "1-000001.db", cache)
            for _ in range(60):
                names = choose.sample(list(lists), 2)
                if count(reader, found(reader, lists, names)) != len(shared(lists, names)):
                    problems.append(str(names))
                if cache.used_bytes > max_bytes:
                    problems.append(f"{cache.used_bytes} bytes")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    cache.forget(set())
    assert cache.used_bytes == 0


@pytest.mark.parametrize("held", [50, 100_000])
def test_docids_in_any_order_and_common_values_in_a_near_unique_column(
    held: int, small_segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docids that jump between segments, merged bitmap pieces, unique values that become common."""
    monkeypatch.setattr(building, "_HELD", held)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        builder = PostingsBuilder(connection, 3)
        order = [(n * 7) % 3001 for n in range(3001)]
        for start in range(0, 3001, 40):
            some = order[start : start + 40]
            rows = [(str(n % 2), f"m{n}" if n % 2 else "none", None if n % 5 else f"f{n % 1000}") for n in some]
            builder.extend([n * 100 for n in some], rows)
        builder.finish(live=False)
        connection.execute("CREATE TABLE record (docid INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO record VALUES (300000)")
        reader = PostingReader(connection, "f", PostingCache())
        for values, expected in (
            (("1", None, None), [n for n in range(3001) if n % 2]),
            ((None, "none", None), [n for n in range(3001) if not n % 2]),
            ((None, "m77", None), [77]),
            ((None, None, "f70"), [70, 1070, 2070]),
            (("0", "none", "f5"), []),
            (("0", None, "f10"), [10, 1010, 2010]),
        ):
            asked = [reader.find(column, value) for column, value in enumerate(values) if value is not None]
            postings = [posting for posting in asked if posting is not None]
            assert len(postings) == len(asked)
            assert list(matching(reader, postings, 0)) == [n * 100 for n in expected if n]
            assert count(reader, postings) == len(expected)
            assert list(matching(reader, postings, 150_000)) == [n * 100 for n in expected if n > 1500]
        assert reader.find(1, "nobody") is None
        assert connection.execute("SELECT count(*) FROM unique_value WHERE column_id = 1").fetchone() == (1500,)
        assert connection.execute("SELECT count(*) FROM value WHERE column_id = 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE posting SET bitmap = CAST(x'00' || substr(bitmap, 2) AS BLOB)",
        "UPDATE posting SET bitmap = x''",
        "UPDATE value SET value_id = value_id + 1",
        "UPDATE value SET records = records + 1",
        "UPDATE unique_value SET docid = docid + 1",
        "DELETE FROM posting",
    ],
)
def test_P10_damage_is_an_error_and_never_another_answer(damage: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE record (docid INTEGER PRIMARY KEY)")
        builder = PostingsBuilder(connection, 2)
        builder.extend(range(1, 301), [(str(n % 3), f"m{n}") for n in range(300)])
        builder.finish(live=True)
        connection.execute(damage)
        reader = PostingReader(connection, "f", PostingCache())
        wrong = 0
        for column, value, expected in ((0, "1", range(2, 301, 3)), (1, "m7", [8])):
            try:
                posting = reader.find(column, value)
                assert posting is not None
                assert list(matching(reader, [posting], 0)) == list(expected)
            except DamagedData:
                wrong += 1
        assert wrong == 1
