"""Refreshing a store: what changes, what stays, cursors over refreshes, single records, changes since a generation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.store import (
    CollectionChanges,
    CollectionSpec,
    LocalStore,
    RefreshSpec,
    build_store,
    drop_collections,
    refresh_store,
)
from profile_enrich.store.index import builder as building
from profile_enrich.store.writes import delta

from ..server.paging import page_through

FILTERS = ("tier", "n")
Rows = list[dict[str, Any]]


def row(key: str, n: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": key, "tier": ["gold", "silver"][n % 2], "n": n, **more}


def _no_sync(_: int) -> None:
    """Replaces `os.fsync`: no test simulates a power loss."""


PEOPLE: Rows = [row(f"u{n}", n) for n in range(60)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build_store(tmp_path / "s", [CollectionSpec("Users", PEOPLE, filterable=FILTERS), CollectionSpec("Other", PEOPLE)])
    return tmp_path / "s"


def everything(store: LocalStore, filters: Mapping[str, str] | None = None, limit: int = 7) -> Rows:
    """All records, page by page."""
    found: Rows = []
    cursor = None
    while True:
        page = store.page("Users", filters, limit=limit, cursor=cursor, dialect="census", with_total=True)
        found += [json.loads(payload)["data"] for payload in page.payloads]
        cursor = page.next_cursor
        if cursor is None:
            assert page.total == len(found)
            return found


# --- against a model ------------------------------------------------------------------------------------------------

keys = st.integers(0, 25).map(lambda n: f"u{n}")
rows_of = st.dictionaries(keys, st.integers(0, 5), max_size=8).map(lambda d: [row(key, n) for key, n in d.items()])
step = st.one_of(
    st.tuples(st.just("upsert"), rows_of),
    st.tuples(st.just("whole"), rows_of.filter(bool)),
    st.tuples(st.just("build"), rows_of.filter(bool)),
    st.tuples(st.just("put"), rows_of.filter(bool)),
    st.tuples(st.just("delete"), st.lists(keys, max_size=5)),
)


@pytest.mark.long
@given(steps=st.lists(step, max_size=6), small=st.sampled_from([0, 256]), share=st.sampled_from([1, 1000]))
@settings(max_examples=20, deadline=None)
def test_P4_P5_any_sequence_of_refreshes_gives_what_a_dict_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], small: int, share: int
) -> None:
    """Lookups, pages, totals and changes after any refreshes equal those of a dict; records keep their order."""
    path = tmp_path_factory.mktemp("model") / "s"
    start = [row(f"u{n}", n) for n in range(0, 20, 2)]
    build_store(path, [CollectionSpec("Users", start, filterable=FILTERS)])
    model = {item["id"]: item for item in start}
    known: set[str] = set()
    with pytest.MonkeyPatch.context() as patch, LocalStore(path, check_every=0) as store:
        patch.setattr(os, "fsync", _no_sync)
        patch.setattr(delta, "_SMALL", small)
        patch.setattr(delta, "_GROWTH", 1)
        patch.setattr(delta, "_MERGE_FROM", share)
        patch.setattr(building, "COMMON", 3)
        for what, value in steps:
            before, generation = dict(model), store.generation
            order = [item["id"] for item in everything(store)]
            _apply(store, model, what, value)
            _compare(store, model)
            after = [item["id"] for item in everything(store)]
            stayed = [key for key in order if key in model]
            assert [key for key in after if key in set(stayed)] == stayed
            known |= set(order)
            fresh = [key for key in after if key not in known]
            assert all(after.index(old) < after.index(new) for old in stayed for new in fresh)
            changes = store.changes_since("Users", generation)
            if what == "build":
                assert changes is None
            elif changes is None:  # it merged twice
                assert share == 1
                assert what == "delete"
            else:
                assert set(changes.written) == {k for k, v in model.items() if before.get(k) != v}
                assert set(changes.deleted) == before.keys() - model.keys()


def _apply(store: LocalStore, model: dict[str, Any], what: str, value: Any) -> None:
    path = store.path
    if what == "upsert":
        refresh_store(path, [RefreshSpec("Users", value)])
        model.update((item["id"], item) for item in value)
    elif what == "whole":
        refresh_store(path, [RefreshSpec("Users", value, vanished="delete")], max_shrink=1.0)
        model.clear()
        model.update((item["id"], item) for item in value)
    elif what == "build":
        build_store(path, [CollectionSpec("Users", value, filterable=FILTERS)])
        model.clear()
        model.update((item["id"], item) for item in value)
    elif what == "put":
        for item in value:
            assert store.put_record("Users", item["id"], item) is (item["id"] not in model)
            model[item["id"]] = item
    else:
        for key in value[:2]:
            assert store.delete_record("Users", key) is (model.pop(key, None) is not None)
        refresh_store(path, [RefreshSpec("Users", deleted=value[2:])])
        for key in value[2:]:
            model.pop(key, None)


def _compare(store: LocalStore, model: Mapping[str, Any]) -> None:
    store.refresh()
    assert store.collection("Users").rows == len(model)
    for key in (f"u{n}" for n in range(26)):
        record = store.get("Users", key)
        assert (None if record is None else record.attributes) == model.get(key)
    filters: dict[str, str]
    for filters in ({}, {"tier": "gold"}, {"n": "3"}, {"tier": "gold", "n": "2"}, {"tier": "gold", "n": "3"}):
        expected = [v for v in model.values() if all(str(v[name]) == value for name, value in filters.items())]
        found = everything(store, filters)
        assert sorted(found, key=lambda v: v["id"]) == sorted(expected, key=lambda v: v["id"])


# --- one by one -----------------------------------------------------------------------------------------------------


def test_P5_paging_sees_each_stable_record_once_while_refreshes_run(path: Path) -> None:
    """Between any two pages the store is refreshed: fully, incrementally or by single records."""
    stable = {item["id"] for item in PEOPLE if item["n"] % 3}
    with LocalStore(path, check_every=0) as store:
        seen: list[str] = []
        cursor, turn = None, 0
        while True:
            page = store.page("Users", {"tier": "silver"}, limit=3, cursor=cursor, dialect="census")
            seen += [json.loads(payload)["data"]["id"] for payload in page.payloads]
            cursor = page.next_cursor
            if cursor is None:
                break
            turn += 1
            kept = [item for item in PEOPLE if item["id"] in stable or (item["n"] // 3) % 2 == turn % 2]
            if turn % 3 == 0:
                shuffled = sorted(kept, key=lambda item: hash((item["n"], turn)))
                build_store(path, [CollectionSpec("Users", shuffled, filterable=FILTERS)])
            elif turn % 3 == 1:
                refresh_store(path, [RefreshSpec("Users", [{**v, "n": v["n"] + 100} for v in kept], vanished="delete")])
            else:
                store.put_record("Users", f"new{turn}", row(f"new{turn}", 2))
        expected = [item["id"] for item in PEOPLE if item["id"] in stable and item["tier"] == "silver"]
        assert [key for key in seen if key in stable] == expected
        assert turn > 6


def test_a_whole_source_changes_only_what_is_different(path: Path) -> None:
    source = [{**item, "n": 1000} if item["n"] == 7 else item for item in PEOPLE if item["n"] != 9] + [row("new", 3)]
    report = refresh_store(path, [RefreshSpec("Users", source, vanished="delete")])
    (users,) = report.collections
    assert (users.read, users.inserted, users.updated, users.unchanged, users.deleted) == (60, 1, 1, 58, 1)
    assert report.generation == users.collection.generation == 2
    assert users.collection.rows == 60
    again = refresh_store(path, [RefreshSpec("Users", source, vanished="delete")])
    assert again.generation == 2
    assert again.collections[0].unchanged == 60
    with LocalStore(path) as store:
        assert store.changes_since("Users", 1) == CollectionChanges(2, ("u7", "new"), ("u9",))
        assert store.changes_since("Users", 1).keys == ("u7", "new", "u9")  # type: ignore[union-attr]  # said above
        assert store.changes_since("Users", 2) == CollectionChanges(2, (), ())
        assert store.changes_since("Users", 0) is None
        assert store.changes_since("Users", 1, limit=2) is None
        assert store.changes_since("Other", 1) == CollectionChanges(1, (), ())


def test_several_collections_become_visible_together(path: Path) -> None:
    specs = [RefreshSpec("Users", [row("u1", 3)]), RefreshSpec("Other", [row("u1", 3)], deleted=["u2"])]
    report = refresh_store(path, specs)
    assert report.generation == 2
    with LocalStore(path) as store:
        assert [item.generation for item in store.collections()] == [2, 2]
    with pytest.raises(StoreError, match="no collection 'Nobody'"):
        refresh_store(path, [RefreshSpec("Users", [row("u1", 5)]), RefreshSpec("Nobody", [])])
    with LocalStore(path) as store:
        assert store.generation == 2
        record = store.get("Users", "u1")
        assert record is not None
        assert record.attributes["n"] == 3
    assert len(list(path.glob("*.db"))) == 4


def test_tombstones(path: Path, tmp_path: Path) -> None:
    flags = [True, "yes", 1, "T", False, "no", 0, None, "", "perhaps"]
    source = [{**row(f"u{n}", n + 50), "gone": flag} for n, flag in enumerate(flags)]
    source += [{"id": "never", "gone": True}, {"gone": True}, {"id": "new", "tier": "gold"}]
    report = refresh_store(path, [RefreshSpec("Users", source, tombstone="gone")]).collections[0]
    assert (report.deleted, report.updated, report.inserted) == (4, 5, 1)
    assert report.rejected == {
        "its tombstone column is neither true nor false": 1,
        "the key is missing or empty": 1,
    }
    with LocalStore(path) as store:
        assert store.get("Users", "u0") is None
        record = store.get("Users", "u4")
        assert record is not None
        assert record.attributes == row("u4", 54)
        assert store.collection("Users").rows == 60 - 4 + 1
    file = tmp_path / "gone.txt"
    file.write_bytes(b"\xef\xbb\xbfu10\r\nu11\n\nnobody\n")
    assert refresh_store(path, [RefreshSpec("Users", deleted=file)]).collections[0].deleted == 2
    for content in (b"u12\n\xff", None):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        with pytest.raises(StoreError, match=r"gone\.txt cannot be read") as caught:
            refresh_store(path, [RefreshSpec("Users", deleted=file)])
        assert caught.value.__context__ is None
    with LocalStore(path) as store:
        assert store.get("Users", "u12") is not None


def test_the_last_of_several_rows_with_one_key_wins(path: Path) -> None:
    source = [row("u1", 70), row("new", 1), row("u1", 71), row("new", 2), row("u2", 72), row("u2", 2)]
    report = refresh_store(path, [RefreshSpec("Users", source)]).collections[0]
    assert (report.duplicates, report.inserted, report.updated, report.deleted) == (3, 1, 1, 0)
    with LocalStore(path) as store:
        assert [item["n"] for item in everything(store) if item["id"] in ("u1", "u2", "new")] == [71, 2, 2]
        with pytest.raises(StoreError, match="1 row has a key that an earlier row has; the first is row 2"):
            refresh_store(path, [RefreshSpec("Users", [row("u5", 1), row("u5", 2)])], on_duplicate="fail")
        assert store.generation == 2


def test_P5_duplicate_keys_in_a_rebuild_keep_their_place(path: Path) -> None:
    again = [row("u1", 80), *PEOPLE, row("u2", 82), row("new", 1), row("new", 2)]
    report = build_store(path, [CollectionSpec("Users", again, filterable=FILTERS)]).collections[0]
    assert (report.stored, report.duplicates, report.first_duplicate) == (61, 3, 3)
    with LocalStore(path) as store:
        found = everything(store)
        assert [item["id"] for item in found] == [item["id"] for item in PEOPLE] + ["new"]
        assert [item["n"] for item in found if item["id"] in ("u1", "u2", "new")] == [1, 82, 2]
    with pytest.raises(StoreError, match="2 rows have a key that an earlier row has; the first is row 3"):
        build_store(path, [CollectionSpec("Users", again[:-2], filterable=FILTERS)], on_duplicate="fail")


def test_a_csv_of_changes_keeps_text_as_text(tmp_path: Path) -> None:
    whole = tmp_path / "whole.csv"
    whole.write_text("id,zip,n,gone\n1,02134,1,x\n2,10001,2,x\n", "utf-8")
    spec = CollectionSpec("Users", whole, filterable=["zip"], fields=["id", "zip", "n"])
    build_store(tmp_path / "s", [spec])
    changed = tmp_path / "changed.csv"
    changed.write_text("id,zip,n,gone\n2,10002,7,no\n1,,1,yes\n", "utf-8")
    report = refresh_store(tmp_path / "s", [RefreshSpec("Users", changed, tombstone="gone")]).collections[0]
    assert (report.updated, report.deleted) == (1, 1)
    with LocalStore(tmp_path / "s") as store:
        assert everything(store, {"zip": "10002"}) == [{"id": "2", "zip": "10002", "n": 7}]
    for content, message in (("id,zip\n2,1\n", "no column 'n'"), ("id,zip,n\n2,1,1\n", "no column 'gone'")):
        changed.write_text(content, "utf-8")
        with pytest.raises(StoreError, match=message):
            refresh_store(tmp_path / "s", [RefreshSpec("Users", changed, tombstone="gone")])


def test_a_row_that_is_left_out_has_not_vanished(path: Path) -> None:
    source: Rows = [*PEOPLE[1:], {**PEOPLE[0], "tier": object()}, {"tier": "gold"}]
    report = refresh_store(path, [RefreshSpec("Users", source, vanished="delete")]).collections[0]
    assert (report.deleted, report.updated, sum(report.rejected.values())) == (0, 0, 2)
    assert report.first_rejected == 60


def _deep() -> dict[str, Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return {"id": "u0", "tier": deep}


def test_what_cannot_be_stored_is_said(path: Path) -> None:
    report = refresh_store(path, [RefreshSpec("Users", [_deep()])]).collections[0]
    assert report.rejected == {"the value of 'tier' does not fit the column's type, text": 1}
    with LocalStore(path) as store:
        for key, record, message in (
            ("u1", {"id": "planted"}, "its key column holds another key"),
            ("u1", {"n": object()}, "type object"),
            ("", {}, "missing or empty"),
            ("u0", _deep(), "nested too deeply"),
        ):
            with pytest.raises(ConfigurationError, match=message) as caught:
                store.put_record("Users", key, record)
            assert "planted" not in str(caught.value)
            assert caught.value.__context__ is None
        assert store.delete_record("Users", "\ud800") is store.delete_record("Users", "") is False
        assert store.generation == 1
        with pytest.raises(StoreError, match="no collection"):
            store.put_record("Nobody", "u1", {})


def test_specifications_that_contradict_themselves(path: Path) -> None:
    specs: Any
    for specs, message in (
        ([], "no collection"),
        ([RefreshSpec("Users", []), RefreshSpec("Users", [])], "two refreshes"),
        ([RefreshSpec("Users", [], vanished="no")], "vanished is"),  # type: ignore[arg-type]  # it is refused
        ([RefreshSpec("Users", vanished="delete")], "need a source"),
        ([RefreshSpec("Users", tombstone="gone")], "need a source"),
        ([RefreshSpec("Users", [], tombstone="tier")], "is a column of the collection"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            refresh_store(path, specs)
    with pytest.raises(ConfigurationError, match="on_duplicate"):
        refresh_store(path, [RefreshSpec("Users", [])], on_duplicate="first")  # type: ignore[arg-type]  # it is refused
    with pytest.raises(StoreError, match="Users would lose 60 of its 60 records"):
        refresh_store(path, [RefreshSpec("Users", [], vanished="delete")])
    with pytest.raises(StoreError, match="no column 'gone'"):
        refresh_store(path, [RefreshSpec("Users", PEOPLE, tombstone="gone")])


def test_a_record_may_bring_new_attributes(path: Path) -> None:
    with LocalStore(path) as store:
        assert store.put_record("Users", "u3", {"n": 3, "extra": {"deep": [1.50]}, "tier": None}) is False
        record = store.get("Users", "u3")
        assert record is not None
        assert record.attributes == {"id": "u3", "tier": None, "n": 3, "extra": {"deep": [1.5]}}
        assert [column.name for column in store.collection("Users").columns] == ["id", "tier", "n", "extra"]
        amperity = store.get_payload("Users", "u3", "amperity")
        assert amperity is not None
        assert json.loads(amperity)["attributes"] == {"id": "u3", "n": "3"}


@pytest.mark.long
def test_many_single_records_leave_few_files_and_the_base_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _no_sync)
    base = path / "1-000001.db"
    before = base.stat()
    with LocalStore(path, check_every=1000) as store:
        for number in range(270):
            store.put_record("Users", f"u{number % 90}", row(f"u{number % 90}", number + 1000))
        assert store.generation == 271
        assert store.collection("Users").rows == 90
        assert len(list(path.glob("1-*.db"))) == 2
        changes = store.changes_since("Users", 261)
        assert changes is not None
        assert len(changes.keys) == 10
        assert [item["n"] for item in everything(store)] == [*range(1180, 1270)]
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (
        base.stat().st_ino,
        base.stat().st_mtime_ns,
        base.stat().st_size,
    )


def test_layers_are_merged_when_they_have_grown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "_MERGE_FROM", 20)
    monkeypatch.setattr(delta, "_SMALL", 0)
    monkeypatch.setattr(delta, "_GROWTH", 0)
    merged: list[bool] = []
    with LocalStore(path, check_every=0) as store:
        for turn in range(6):
            changed = [row(f"u{n}", 100 + turn) for n in range(turn * 6, turn * 6 + 6)]
            report = refresh_store(path, [RefreshSpec("Users", changed, deleted=["u59"])])
            merged.append(report.collections[0].merged)
            changes = store.changes_since("Users", report.generation - 1)
            assert changes is not None
            assert set(changes.written) == {item["id"] for item in changed}
        assert merged == [False, False, False, True, False, False]
        assert store.changes_since("Users", 1) is None
        assert store.get("Users", "u59") is None
        for number in range(10):
            store.put_record("Users", f"u{number}", row(f"u{number}", number + 200))
        assert (path / f"1-{5:06}-base.db").exists(), "a single record never rewrites the base"
        assert len(everything(store, {"n": "105"})) == 6


def test_a_dropped_collection_starts_anew(path: Path) -> None:
    drop_collections(path, ["Users"])
    with pytest.raises(StoreError, match="no collection 'Users'"):
        refresh_store(path, [RefreshSpec("Users", PEOPLE)])
    with pytest.raises(StoreError, match="no store"):
        refresh_store(path / "nowhere", [RefreshSpec("Users", PEOPLE)])


def test_a_missing_data_file_is_said(path: Path) -> None:
    (path / "1-000001.db").unlink()
    with pytest.raises(StoreError, match="a data file is missing"):
        refresh_store(path, [RefreshSpec("Users", PEOPLE)])
    with LocalStore(path) as store, pytest.raises(StoreError, match="a data file is missing"):
        store.delete_record("Users", "u1")
    assert build_store(path, [CollectionSpec("Users", PEOPLE)]).collections[0].stored == 60


def test_progress_is_told(path: Path) -> None:
    told: list[tuple[str, int]] = []
    refresh_store(path, [RefreshSpec("Users", PEOPLE * 10)], progress=lambda at: told.append((at.collection, at.rows)))
    assert told[-1] == ("Users", 600)
    assert len(told) > 1


def test_deleting_what_has_vanished_needs_all_rows(path: Path, tmp_path: Path) -> None:
    spec = RefreshSpec("Users", PEOPLE, vanished="delete", rejects=tmp_path / "bad.jsonl")
    with pytest.raises(ConfigurationError, match="the record of a broken line, which is left out, would be deleted"):
        refresh_store(path, [spec])
    assert not (tmp_path / "bad.jsonl").exists()


@pytest.mark.long
def test_P5_over_http_too_and_while_the_refreshes_run(tmp_path: Path) -> None:
    """`make paging` does this with a million."""
    outcome = page_through(tmp_path, 4_000, 50)
    outcome.check()
    assert outcome.during > 10
