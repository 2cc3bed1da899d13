"""Builds of collections: stored and rejected rows, and the state after a kill (P4)."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.store import BuildProgress, CollectionSpec, LocalStore, build_store, drop_collections
from profile_enrich.store.files.manifest import locked


def build(path: Path, rows: list[dict[str, Any]], **options: Any) -> LocalStore:
    build_store(path / "s", [CollectionSpec("Users", rows, **options)])
    return LocalStore(path / "s")


class Level(IntEnum):
    HIGH = 3


def test_values_keep_their_types(tmp_path: Path) -> None:
    """Census records keep their own types; Amperity attributes are strings, null left out."""
    row = {
        "id": "1",
        "text": 'q"ü\n\x00',
        "big": 2**70,
        "price": Decimal("12.50"),
        "huge": Decimal("1E+3"),
        "ratio": 0.1,
        "nan": float("nan"),
        "no_number": Decimal("NaN"),
        "yes": True,
        "none": None,
        "at": dt.datetime(2018, 1, 14, 15, 53, 16),
        "utc": dt.datetime(2018, 1, 14, 15, 53, 16, tzinfo=dt.UTC),
        "day": dt.date(2018, 1, 14),
        "clock": dt.time(1, 2, 3),
        "span": dt.timedelta(hours=1),
        "uuid": UUID(int=1),
        "raw": b"\xff",
        "mutable": bytearray(b"\xff"),
        "list": [1, "a", None, {"b": (2,)}],
        "map": MappingProxyType({"a": {1}}),
        "enum": Level.HIGH,
    }
    with build(tmp_path, [row]) as store:
        record = store.get("Users", "1")
        assert record is not None
        assert record.attributes == {
            "id": "1",
            "text": 'q"ü\n\x00',
            "big": 2**70,
            "price": 12.5,
            "huge": 1000,
            "ratio": 0.1,
            "nan": None,
            "no_number": None,
            "yes": True,
            "none": None,
            "at": "2018-01-14 15:53:16",
            "utc": "2018-01-14 15:53:16+00:00",
            "day": "2018-01-14",
            "clock": "01:02:03",
            "span": "1:00:00",
            "uuid": "00000000-0000-0000-0000-000000000001",
            "raw": "/w==",
            "mutable": "/w==",
            "list": [1, "a", None, {"b": [2]}],
            "map": {"a": [1]},
            "enum": 3,
        }
        payload = store.get_payload("Users", "1")
        assert payload is not None
        assert b'"price":12.50' in payload
        amperity = store.get_payload("Users", "1", "amperity")
        assert amperity is not None
        body = json.loads(amperity)
        assert body["id"] == "1"
        assert body["index_id"] == store.collection("Users").index_id
        assert all(isinstance(value, str) for value in body["attributes"].values())
        assert {"none", "nan", "no_number"}.isdisjoint(body["attributes"])
        assert body["attributes"]["price"] == "12.50"
        assert body["attributes"]["yes"] == "true"
        assert json.loads(body["attributes"]["list"]) == [1, "a", None, {"b": [2]}]
        kinds = {column.name: column.type for column in store.collection("Users").columns}
        assert kinds["big"] == "integer"
        assert kinds["price"] == kinds["ratio"] == "number"
        assert kinds["yes"] == "boolean"
        assert kinds["list"] == kinds["map"] == "json"
        assert kinds["none"] == kinds["at"] == "text"


def test_column_types_of_mixed_values(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "n": 1, "m": 1, "o": None},
        {"id": "2", "n": 1.5, "m": "x", "o": 2},
        {"id": "3", "n": None},
    ]
    with build(tmp_path, rows) as store:
        kinds = {column.name: column.type for column in store.collection("Users").columns}
    assert kinds == {"id": "text", "n": "number", "m": "json", "o": "integer"}


def test_rows_that_cannot_be_stored_are_counted_not_quoted(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    rows: list[dict[str, Any]] = [
        {"id": "good"},
        {"id": ""},
        {"id": None},
        {"name": "no key"},
        {"id": 1.5},
        {"id": True},
        {"id": "é" * 1025},
        {"id": "surrogate", "x": "\ud800"},
        {"id": "object", "x": object()},
        {"id": "deep", "x": deep},
        {"id": "large", "x": "x" * (1 << 20)},
        {"id": 7},
        {"id": UUID(int=5)},
    ]
    report = build_store(tmp_path / "s", [CollectionSpec("Users", rows)]).collections[0]
    assert (report.read, report.stored, report.first_rejected) == (13, 3, 2)
    assert report.rejected == {
        "the key is missing or empty": 3,
        "the key is neither text nor an integer": 2,
        "the key is longer than 2,048 bytes": 1,
        "it holds a lone surrogate, which is not valid Unicode": 1,
        "a value is of type object, which JSON does not have": 1,
        "it is nested too deeply": 1,
        "it is larger than 1 MiB": 1,
    }
    with LocalStore(tmp_path / "s") as store:
        assert store.get("Users", "7") is not None
        assert store.get("Users", "00000000-0000-0000-0000-000000000005") is not None


def test_duplicate_keys(tmp_path: Path) -> None:
    rows = [{"id": key, "n": number} for number, key in enumerate(["a", "b", "a", "c", "b", "a"], 1)]
    spec = CollectionSpec("Users", rows, filterable=["n"])
    report = build_store(tmp_path / "s", [spec]).collections[0]
    assert (report.read, report.stored, report.duplicates, report.first_duplicate) == (6, 3, 3, 3)
    with LocalStore(tmp_path / "s") as store:
        record = store.get("Users", "a")
        assert record is not None
        assert record.attributes["n"] == 6
        page = store.page("Users", limit=10, with_total=True)
        assert len(page.payloads) == page.total == 3
        for gone in "123":  # no filter finds or counts a replaced row
            assert store.page("Users", {"n": gone}, with_total=True).total == 0
            assert store.search("Users", {"n": gone}) == []
        assert store.page("Users", {"n": "6"}, with_total=True).total == 1
    with pytest.raises(StoreError, match=r"3 rows have a key that an earlier row has; the first is row 3\.") as caught:
        build_store(tmp_path / "s", [spec], on_duplicate="fail")
    assert caught.value.__context__ is None
    with LocalStore(tmp_path / "s") as store:
        assert store.generation == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "1 to 200 printable"),
        ({"name": "a\nb"}, "1 to 200 printable"),
        ({"filterable": "tier"}, "not one string"),
        ({"filterable": ["a", "a"]}, "twice"),
        ({"index_fields": [str(n) for n in range(31)]}, "at most 30 fields"),
        ({"fields": ["a"], "filterable": ["b"]}, "must also be among fields"),
        ({"index_fields": ["a"], "filterable": ["b"]}, "must also be among index_fields"),
        ({"delimiter": ";;"}, "one character"),
        ({"encoding": "ebcdic"}, "is not a text encoding"),
        ({"description": "\ud800"}, "valid Unicode"),
        ({"source": {"id": "1"}}, "path or an iterable"),
        ({"source": 5}, "path or an iterable"),
    ],
)
def test_specifications_that_contradict_themselves(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    spec = CollectionSpec(**{"name": "Users", "source": [{"id": "1", "a": "x", "b": "y"}], **options})
    with pytest.raises(ConfigurationError, match=message):
        build_store(tmp_path / "s", [spec])


def test_arguments_are_checked(tmp_path: Path) -> None:
    spec = CollectionSpec("Users", [{"id": "1"}])
    with pytest.raises(ConfigurationError, match="on_duplicate"):
        build_store(tmp_path / "s", [spec], on_duplicate="first")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ConfigurationError, match="no collection"):
        build_store(tmp_path / "s", [])
    with pytest.raises(ConfigurationError, match="two collections are named"):
        build_store(tmp_path / "s", [spec, spec])
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match=r"the store .*/file/s: the directory .*/file is not a directory"):
        build_store(tmp_path / "file" / "s", [spec])
    with pytest.raises(StoreError, match="holds other files"):
        build_store(tmp_path, [spec])


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": "1", "tier": "gold"}]
    wrong: list[dict[str, Any]] = [{"key": "email"}, {"filterable": ["email"]}, {"index_fields": ["email"]}]
    for options in wrong:
        with pytest.raises(StoreError, match=r"no column 'email' .*; its columns are: id, tier"):
            build(tmp_path, rows, **options)
    with pytest.raises(StoreError, match=r"no column 'email', a field of the collection;"):
        build(tmp_path, rows, fields=["email"])


def test_fields_are_selected_in_order_and_the_key_is_kept(tmp_path: Path) -> None:
    with build(tmp_path, [{"a": 1, "id": "x", "b": 2, "c": 3}], fields=["c", "a"]) as store:
        record = store.get("Users", "x")
        assert record is not None
        assert list(record.attributes.items()) == [("id", "x"), ("c", 3), ("a", 1)]


def test_more_than_thirty_columns(tmp_path: Path) -> None:
    """An Amperity index has at most 30 fields: a collection with more has no Amperity view, which is reported."""
    rows = [{"id": str(n), **{f"c{m}": m for m in range(31)}} for n in range(600)]
    report = build_store(tmp_path / "s", [CollectionSpec("Wide", rows)]).collections[0]
    assert report.collection.index_fields is None
    assert "only the Census view" in report.warnings[0]
    with LocalStore(tmp_path / "s") as store:
        assert store.get("Wide", "5") is not None
        assert store.get_payload("Wide", "5", "amperity") is None
        with pytest.raises(ConfigurationError, match="no Amperity view"):
            store.page("Wide")
        assert len(store.page("Wide", dialect="census").payloads) == 25
    build_store(tmp_path / "s", [CollectionSpec("Wide", rows, index_fields=["c1", "id"])])
    with LocalStore(tmp_path / "s") as store:
        payload = store.get_payload("Wide", "5", "amperity")
        assert payload is not None
        assert json.loads(payload)["attributes"] == {"id": "5", "c1": "1"}


def test_too_many_names_are_data(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="more than 2,000"):
        build(tmp_path, [{"id": "1", **{f"c{m}": m for m in range(2001)}}])


def test_no_rows(tmp_path: Path) -> None:
    report = build_store(tmp_path / "s", [CollectionSpec("Users", [])]).collections[0]
    assert report.warnings == ("no record was stored",)
    with LocalStore(tmp_path / "s") as store:
        assert store.get("Users", "1") is None
        assert store.page("Users", with_total=True).total == 0


def test_ids_are_stable_over_rebuilds_and_never_reused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    rows = [{"id": "1"}]
    build_store(path, [CollectionSpec("A", rows), CollectionSpec("B", rows)])
    with LocalStore(path) as store:
        first = {item.name: item for item in store.collections()}
    build_store(path, [CollectionSpec("B", rows, description="new")])
    drop_collections(path, ["B"])
    report = build_store(path, [CollectionSpec("C", rows), CollectionSpec("A", rows)])
    with LocalStore(path) as store:
        now = {item.name: item for item in store.collections()}
    assert set(now) == {"A", "C"}
    assert now["C"].id == 3
    assert (now["A"].id, now["A"].index_id, now["A"].created_at) == (1, first["A"].index_id, first["A"].created_at)
    assert now["A"].updated_at > first["A"].updated_at
    assert now["A"].generation == report.generation == 4
    with pytest.raises(StoreError, match="no collection 'B'"):
        drop_collections(path, ["B"])


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[BuildProgress] = []
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": n} for n in range(600)])], progress=seen.append)
    assert seen[0].rows < 600
    assert seen[-1] == BuildProgress("Users", 600, 600)


def test_P4_a_failed_build_leaves_the_old_data_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "s"
    build_store(path, [CollectionSpec("Users", [{"id": "old"}])])
    before = sorted(file.name for file in path.iterdir())

    def rows() -> Iterator[Mapping[str, Any]]:
        yield {"id": "new"}
        raise RuntimeError("the user's iterable failed")

    broken: list[Any] = [{"id": "new"}, []]
    with pytest.raises(RuntimeError):
        build_store(path, [CollectionSpec("Users", rows())])
    with pytest.raises(StoreError, match="row 2 is not a mapping but of type list"):
        build_store(path, [CollectionSpec("Users", broken)])
    assert sorted(file.name for file in path.iterdir()) == before
    with LocalStore(path) as store:
        assert store.get("Users", "old") is not None
        assert store.get("Users", "new") is None


_KILLED = """
import os, signal, sys, time
from pathlib import Path
from profile_enrich.store import CollectionSpec, build_store
def rows():
    for n in range(10**9):
        if n == 3000:
            print("writing", flush=True)
            time.sleep(30)
        yield {"id": str(n)}
build_store(Path(sys.argv[1]), [CollectionSpec("Users", rows())])
"""


def test_P4_kill_during_a_build(tmp_path: Path) -> None:
    """A killed build leaves the old generation readable, frees the lock, and the next build removes its file."""
    path = tmp_path / "s"
    build_store(path, [CollectionSpec("Users", [{"id": "old"}])])
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        with pytest.raises(StoreError, match="another build"):
            build_store(path, [CollectionSpec("Users", [{"id": "other"}])])
        process.send_signal(signal.SIGKILL)
    assert len(list(path.glob("*.db"))) == 2
    with LocalStore(path) as store:
        assert store.get("Users", "old") is not None
    build_store(path, [CollectionSpec("Users", [{"id": "new"}])])
    assert len(list(path.glob("*.db"))) == 1


def test_one_build_at_a_time(tmp_path: Path) -> None:
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "1"}])])
    with locked(tmp_path / "s"), pytest.raises(StoreError, match="another build"):
        build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "1"}])])


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "1"}])])
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "s").iterdir() if file.name != "LOCK")


def test_what_the_system_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    build_store(path, [CollectionSpec("Users", [{"id": "old"}])])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        build_store(path, [CollectionSpec("Users", [{"id": "new"}])])
    monkeypatch.undo()
    with LocalStore(path) as store:
        assert store.get("Users", "old") is not None
    assert len(list(path.glob("*.db"))) == 1


def test_the_lock_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "s" / "LOCK").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be"):
        build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "1"}])])


def test_a_failed_first_build_leaves_no_directory(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("id,a\nu1\n")
    for path in (tmp_path / "s", tmp_path / "there"):
        if path.name == "there":
            path.mkdir()
        with pytest.raises(StoreError):
            build_store(path, [CollectionSpec("U", tmp_path / "u.csv")])
        assert path.exists() == (path.name == "there")
    build_store(tmp_path / "s", [CollectionSpec("U", [{"id": "u1"}])])
    with pytest.raises(StoreError):
        build_store(tmp_path / "s", [CollectionSpec("U", tmp_path / "u.csv")])
    assert (tmp_path / "s" / "LOCK").exists()
