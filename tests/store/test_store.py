"""Reading a store: lookups, pages, filters, cursors, generations, threads and forks."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError, CursorError, StoreError
from profile_enrich.store import CollectionSpec, LocalStore, build_store, drop_collections
from profile_enrich.store.files.manifest import FORMAT, _checksum

PEOPLE: list[dict[str, Any]] = [
    {"id": f"u{n}", "tier": ["gold", "silver", None][n % 3], "city": f"c{n % 7}", "even": n % 2 == 0, "n": n}
    for n in range(100)
]
FILTERS = ("tier", "city", "even", "id")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build_store(tmp_path / "s", [CollectionSpec("Users", PEOPLE, filterable=FILTERS), CollectionSpec("Other", PEOPLE)])
    return tmp_path / "s"


def ids(payloads: tuple[bytes, ...]) -> list[str]:
    return [json.loads(payload)["id"] for payload in payloads]


def test_collections_by_name_index_id_and_entity_id(path: Path) -> None:
    with LocalStore(path) as store:
        users = store.collection("Users")
        assert [item.name for item in store.collections()] == ["Users", "Other"]
        assert store.collection(1) == store.collection(users.index_id) == users == store.find_index(users.index_id)
        assert store.find("nobody") is store.find(99) is store.find_index("Users") is None
        with pytest.raises(StoreError, match=r"no collection 'nobody'; there are: 'Users', 'Other'"):
            store.get("nobody", "u1")
        assert store.generation == 1
        assert store.path == path
        assert "2 collections" in repr(store)
        assert "u1" not in repr(store.get(users, "u1"))


def test_get_finds_exactly_this_key(path: Path) -> None:
    with LocalStore(path) as store:
        record = store.get("Users", "u7")
        assert record is not None
        assert record.id == "u7"
        assert record.attributes == PEOPLE[7]
        for other in ("U7", " u7", "u7 ", "", "u7\0", "u%37", "\ud800", "u7' OR '1'='1"):
            assert store.get("Users", other) is None


@given(
    filters=st.dictionaries(
        st.sampled_from(FILTERS),
        st.sampled_from(
            ["gold", "silver", "bronze", "c0", "c3", "true", "false", "u6", "u11", "", "Gold", "gold ", "\ud800"]
        ),
        max_size=4,
    ),
    limit=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_pages_equal_a_plain_scan(filters: dict[str, str], limit: int) -> None:
    """The pages of every filter together equal a plain scan, in order, each record once."""
    expected = [row["id"] for row in PEOPLE if all(text_of(row[name]) == value for name, value in filters.items())]
    store = _shared_store()
    found: list[str] = []
    cursor = None
    while True:
        page = store.page("Users", filters, limit=limit, cursor=cursor, with_total=True)
        assert page.total == len(expected)
        assert len(page.payloads) <= limit
        found += ids(page.payloads)
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.payloads) == limit
    assert found == expected
    assert [record.id for record in store.search("Users", filters, limit=3)] == expected[:3]


def text_of(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_SHARED: list[LocalStore] = []


def _shared_store() -> LocalStore:
    return _SHARED[0]


@pytest.fixture(scope="module", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("shared") / "s"
    build_store(path, [CollectionSpec("Users", PEOPLE, filterable=FILTERS)])
    with LocalStore(path) as store:
        _SHARED.append(store)
        yield
        _SHARED.clear()


@pytest.mark.long
def test_filters_over_many_chunks_dense_and_sparse(tmp_path: Path) -> None:
    """Bitmaps, arrays and their mixtures, over more than one chunk of 65,536, with rows that were replaced."""
    size = 70_000
    rows = [
        {"id": str(n if n % 50 else 7), "half": n % 2, "rare": n % 997, "most": n % 10 > 0, "block": n // 1000}
        for n in range(size)
    ]
    build_store(tmp_path / "s", [CollectionSpec("Big", rows, filterable=["half", "rare", "most", "block"])])
    kept = [row for n, row in enumerate(rows) if (n % 50 and n != 7) or n == size - 50]
    with LocalStore(tmp_path / "s") as store:
        filters: Mapping[str, str]
        for filters in (
            {"half": "1"},
            {"half": "1", "most": "true"},
            {"half": "0", "most": "true", "rare": "5"},
            {"rare": "5", "block": "66"},
            {"rare": "5", "half": "1"},
            {"block": "69", "half": "0"},
            {"most": "false"},
        ):
            expected = [row for row in kept if all(text_of(row[name]) == value for name, value in filters.items())]
            assert store.page("Big", filters, limit=1, with_total=True).total == len(expected)
            found: list[str] = []
            cursor = None
            while len(found) < 3000:
                page = store.page("Big", filters, limit=1000, cursor=cursor)
                found += ids(page.payloads)
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert found == [row["id"] for row in expected[: len(found)]]
            assert cursor is not None or len(found) == len(expected)


def test_only_filterable_attributes_filter(path: Path) -> None:
    with LocalStore(path) as store:
        for call in (store.page, store.search):
            with pytest.raises(ConfigurationError, match="filterable are: tier, city, even, id") as caught:
                call("Users", {"planted": "x"})
            assert "planted" not in str(caught.value)
        with pytest.raises(ConfigurationError, match="filterable are: none"):
            store.page("Other", {"tier": "gold"})


@pytest.mark.parametrize("limit", [0, -1, 1001, 1.5, "5", None])
def test_the_limit_has_limits(path: Path, limit: Any) -> None:
    refused = pytest.raises(ConfigurationError, match="limit must be a whole number from 1 to 1000")
    with LocalStore(path) as store, refused:
        store.page("Users", limit=limit)


def test_P3_a_cursor_of_another_collection_filter_dialect_or_of_a_dropped_one_is_refused(path: Path) -> None:
    with LocalStore(path, check_every=0) as store:
        cursor = store.page("Users", {"tier": "gold", "even": "true"}, limit=5).next_cursor
        assert cursor is not None
        same = store.page("Users", {"even": "true", "tier": "gold"}, limit=7, cursor=cursor)
        assert len(same.payloads) == 7
        with pytest.raises(CursorError):
            store.page("Users", {"tier": "gold"}, cursor=cursor)
        with pytest.raises(CursorError):
            store.page("Users", {"tier": "gold", "even": "false"}, cursor=cursor)
        with pytest.raises(CursorError):
            store.page("Other", cursor=cursor)
        with pytest.raises(CursorError):
            store.page("Users", {"tier": "gold", "even": "true"}, cursor=cursor, dialect="census")
        drop_collections(path, ["Users"])
        build_store(path, [CollectionSpec("Users", PEOPLE, filterable=FILTERS)])
        with pytest.raises(CursorError, match="was dropped"):
            store.page("Users", {"tier": "gold", "even": "true"}, cursor=cursor)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_P3_a_changed_cursor_is_refused(data: st.DataObject) -> None:
    store = _shared_store()
    cursor = store.page("Users", limit=5).next_cursor
    assert cursor is not None
    at = data.draw(st.integers(0, len(cursor)))
    changed = data.draw(
        st.one_of(
            st.text(max_size=60),
            st.text("ABCabc019-_=", max_size=60),
            st.characters().map(lambda char: cursor[:at] + char + cursor[at + 1 :]),
            st.binary(min_size=33, max_size=33).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
            st.just(cursor[:at]),
            st.just(cursor + "="),
            st.just(cursor + "\n"),
        )
    )
    if changed == cursor:
        return
    with pytest.raises(CursorError) as caught:
        store.page("Users", cursor=changed)
    assert caught.value.__context__ is None


def test_P4_a_reader_notices_a_new_generation(path: Path) -> None:
    now = [0.0]
    with LocalStore(path, check_every=5, timer=lambda: now[0]) as store:
        other = store.collection("Other")
        assert store.get("Users", "u1") is not None
        build_store(path, [CollectionSpec("Users", [{"id": "new"}])])
        assert store.get("Users", "u1") is not None  # not checked yet: the old generation, complete
        assert store.page("Users", limit=1000).payloads
        now[0] = 5.0
        assert store.get("Users", "u1") is None
        assert store.get("Users", "new") is not None
        assert store.get(other, "u1") is not None
        assert store.generation == 2
        assert store.refresh() is False
        build_store(path, [CollectionSpec("Users", [{"id": "newer"}])])
        assert store.refresh() is True
        assert store.get("Users", "newer") is not None


def test_P4_a_build_between_reading_the_manifest_and_opening_the_file(path: Path) -> None:
    """The file of the old generation is gone before this reader opened it: it checks again and reads the new one."""
    with LocalStore(path, check_every=1000) as store:
        build_store(path, [CollectionSpec("Users", [{"id": "new"}])])
        assert store.get("Users", "new") is not None


def test_a_store_that_vanishes_goes_on_being_served(path: Path, tmp_path: Path) -> None:
    with LocalStore(path, check_every=0) as store:
        assert store.get("Users", "u1") is not None
        (path / "CURRENT").rename(tmp_path / "away")
        assert store.get("Users", "u2") is not None
        assert store.get("Other", "u2") is not None
        with pytest.raises(StoreError, match="no store"):
            store.refresh()


def test_damaged_stores_are_said(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        LocalStore(tmp_path / "nothing")
    for content, message in (
        (b"{", "not JSON"),
        (b"[]", "has format None"),
        (b'{"format": 99}', "has format 99"),
        (b'{"format": %d}' % FORMAT, "is incomplete"),
    ):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "CURRENT").write_bytes(content)
        with pytest.raises(StoreError, match=message) as caught:
            LocalStore(tmp_path / "bad")
        assert caught.value.__context__ is None
    (tmp_path / "bad" / "CURRENT").unlink()
    (tmp_path / "bad" / "CURRENT").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        LocalStore(tmp_path / "bad")

    with LocalStore(path) as store:
        for file in path.glob("*.db"):
            file.unlink()
        with pytest.raises(StoreError, match="a data file is missing"):
            store.get("Users", "u1")


def test_damaged_data_files_are_said(path: Path) -> None:
    good = path / "1-000001.db"
    copy = good.read_bytes()
    good.write_bytes(b"not a database" * 1000)
    with LocalStore(path) as store, pytest.raises(StoreError, match="cannot be read"):
        store.get("Users", "u1")
    good.write_bytes(copy)
    with sqlite3.connect(good) as connection:
        connection.execute("DROP TABLE record")
        connection.execute("ALTER TABLE value RENAME TO gone")
    connection.close()
    with LocalStore(path) as store:
        for call in (
            lambda: store.get("Users", "u1"),
            lambda: store.page("Users"),
            lambda: store.page("Users", {"tier": "gold"}),
            lambda: store.search("Users", {"tier": "gold"}),
        ):
            with pytest.raises(StoreError, match="cannot be read") as caught:
                call()
            assert caught.value.__context__ is None


def test_threads_have_connections_of_their_own(path: Path) -> None:
    failures: list[object] = []
    with LocalStore(path, check_every=0) as store:

        def work(offset: int) -> None:
            for number in range(300):
                wanted = f"u{(number + offset) % 100}"
                record = store.get("Users", wanted)
                if record is None or record.id != wanted:
                    failures.append(wanted)

        threads = [threading.Thread(target=work, args=(n * 13,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            build_store(path, [CollectionSpec("Users", PEOPLE, filterable=FILTERS)])
        for thread in threads:
            thread.join()
        assert not failures


def test_a_fork_opens_its_own_connections(path: Path) -> None:
    with LocalStore(path) as store:
        assert store.get("Users", "u1") is not None
        inherited = store._local
        store._after_fork()  # what the child does; a real fork would take the test runner's threads along
        assert store._local is not inherited
        assert store.get("Users", "u2") is not None
        for layer in inherited.layers.values():
            layer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_real_fork(path: Path) -> None:
    with LocalStore(path) as store:
        assert store.get("Users", "u1") is not None
        child = os.fork()
        if child == 0:
            os._exit(0 if store.get("Users", "u2") is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.get("Users", "u3") is not None


def test_closed_it_opens_anew(path: Path) -> None:
    store = LocalStore(path)
    assert store.get("Users", "u1") is not None
    store.close()
    assert store.get("Users", "u1") is not None
    store.close()


def test_a_store_can_be_moved(path: Path, tmp_path: Path) -> None:
    moved = tmp_path / "with space?&#%20"
    shutil.move(path, moved)
    with LocalStore(moved) as store:
        assert store.get("Users", "u1") is not None


def test_P2_P3_a_manifest_cannot_point_outside(path: Path) -> None:
    content = json.loads((path / "CURRENT").read_bytes())
    content["collections"][0]["files"] = [["../../etc/passwd", 1, "0"]]
    del content["checksum"]
    (path / "CURRENT").write_text(json.dumps({**content, "checksum": _checksum(content)}))
    with LocalStore(path) as store, pytest.raises(StoreError, match="a data file is missing"):
        store.get("Users", "u1")


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=30),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=8,
    ),
    st.text(min_size=1, max_size=50),
)
@settings(max_examples=60, deadline=None)
def test_any_record_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any], key: str
) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
        key.encode()
    except UnicodeEncodeError:
        return
    row["id"] = key
    path = tmp_path_factory.mktemp("any") / "s"
    build_store(path, [CollectionSpec("Any", [row], filterable=["id"])])
    with LocalStore(path) as store:
        record = store.get("Any", key)
        assert record is not None
        assert record.attributes == row
        payload = store.get_payload("Any", key, "amperity")
        assert payload is not None
        assert json.loads(payload)["id"] == key
        assert [found.id for found in store.search("Any", {"id": key})] == [key]
