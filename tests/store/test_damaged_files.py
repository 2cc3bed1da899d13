"""Damaged data files: the right result or an error, never a wrong one, and the process survives."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import StoreError
from profile_enrich.store import CollectionSpec, LocalStore, RefreshSpec, StoredRecord, build_store, refresh_store
from profile_enrich.store.files import collection_writer
from profile_enrich.store.mirror_store import MirrorStore
from profile_enrich.store.shipping import publish_store
from profile_enrich.store.writes import delta

SIZE = 600
ROUNDS = int(os.environ.get("FLIP_ROUNDS", "40"))
"""`FLIP_ROUNDS=2000 pytest tests/store/test_damaged_files.py` flips more."""


def person(number: int) -> dict[str, Any]:
    tier, city = ["gold", "silver", "bronze"][number % 3], f"city {number % 7}"
    return {"id": f"u{number}", "mail": f"m{number}@x.example", "tier": tier, "city": city, "note": "x" * 80}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a layer above it."""
    path = tmp_path_factory.mktemp("sound") / "s"
    people = [person(number) for number in range(SIZE)]
    build_store(path, [CollectionSpec("Users", people, filterable=["mail", "tier", "city"])])
    refresh_store(path, [RefreshSpec("Users", [{**person(n), "tier": "gold"} for n in range(0, SIZE, 40)])])
    return path


EXPECTED = [{**person(number), **({"tier": "gold"} if number % 40 == 0 else {})} for number in range(SIZE)]


def answers(store: LocalStore, choose: random.Random) -> tuple[int, int]:
    """Check results; return how many were right and how many were errors."""
    right = wrong = 0
    for _ in range(25):
        number = choose.randrange(SIZE)
        expected = EXPECTED[number]
        asked: list[dict[str, str]] = [{"tier": expected["tier"], "city": expected["city"]}, {"mail": expected["mail"]}]
        try:
            record = store.get("Users", f"u{number}")
            assert record is not None
            assert record.attributes == expected
            right += 1
            for filters in asked:
                page = store.page("Users", filters, limit=1000, with_total=True)
                assert page.total == len(page.payloads) == sum(filters.items() <= each.items() for each in EXPECTED)
                for payload in map(json.loads, page.payloads):
                    found = payload["attributes"]
                    other = person(int(payload["id"][1:]))
                    assert found["mail"] == other["mail"]
                    assert filters.items() <= found.items()
                right += 1
        except StoreError as error:
            assert "is damaged" in str(error) or "cannot be read" in str(error)  # noqa: PT017  # either is right
            wrong += 1
    return right, wrong


def test_P10_flipped_bits_never_give_a_wrong_record(sound: Path, tmp_path: Path) -> None:
    damaged = 0
    for seed in range(ROUNDS):
        choose = random.Random(seed)
        path = tmp_path / str(seed)
        shutil.copytree(sound, path)
        file = choose.choice(sorted(path.glob("*.db")))
        content = bytearray(file.read_bytes())
        for _ in range(choose.choice([1, 8, 64])):
            content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        file.write_bytes(content)
        with LocalStore(path) as store:
            store.verify()
            right, wrong = answers(store, choose)
        assert right + wrong
        damaged += bool(wrong)
        shutil.rmtree(path)
    assert damaged


def misspelt(file: Path) -> bytes:
    """Return a data file whose index of the keys does not find "u567" any more: SQLite reports no error."""
    content = bytearray(file.read_bytes())
    for start in range(0, len(content), 2048):
        if content[start] in (2, 10):  # a page of an index
            content[start : start + 2048] = content[start : start + 2048].replace(b"u567", b"v567")
    return bytes(content)


def eventually(store: LocalStore) -> StoredRecord | None:
    """Read until no file has to be verified any more."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(StoreError):
            return store.get("Users", "u567")
        time.sleep(0.01)
    raise AssertionError("not readable again")


def test_P10_a_record_whose_index_page_is_damaged_is_an_error_until_the_file_is_restored(
    sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    file = min(path.glob("*.db"))
    content, facts = file.read_bytes(), file.stat()
    with LocalStore(path, check_every=0) as store, caplog.at_level(logging.ERROR, "profile_enrich.store"):
        assert store.get("Users", "nobody") is None
        file.write_bytes(misspelt(file))
        for record_id in ("u567", "nobody"):
            with pytest.raises(StoreError, match="is damaged"):
                store.get("Users", record_id)
        with pytest.raises(StoreError, match="is damaged"):
            store.get_many("Users", ["u1", "u567"])
        with pytest.raises(StoreError, match="is damaged"):
            store.delete_record("Users", "u567")
        assert store.get("Users", "u1") is not None
        assert store.verify() is False
        assert "its digest does not match" in caplog.text
        file.write_bytes(content)
        assert eventually(store) is not None
        assert store.get("Users", "nobody") is None
        # Damage by the disk does not change the file's times.
        file.write_bytes(misspelt(file))
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with LocalStore(path) as store:
        assert store.get("Users", "u567") is None, "as far as is known yet"
        assert store.verify() is False
        with pytest.raises(StoreError, match="is damaged"):
            store.get("Users", "u567")
        with pytest.raises(StoreError, match="is damaged"):
            store.page("Users")


def test_P10_an_older_version_of_a_record_is_not_found_in_the_place_of_a_damaged_one(
    sound: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    layer = max(path.glob("*.db"))
    with sqlite3.connect(layer) as connection:
        connection.execute("DELETE FROM record WHERE key = 'u40'")  # and so from the index, not from the posting lists
    connection.close()
    with LocalStore(path) as store:
        with pytest.raises(StoreError, match="is damaged"):
            store.get("Users", "u40")
        with pytest.raises(StoreError, match="is damaged"):
            store.get_many("Users", ["u40"])


def test_P10_a_damaged_file_is_neither_merged_nor_published(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    base, layer = sorted(path.glob("*.db"))
    changes = [RefreshSpec("Users", [person(number) for number in range(0, SIZE, 40)])]
    content = layer.read_bytes()
    layer.write_bytes(content + b"x")
    with pytest.raises(StoreError, match=r"000002\.db is damaged"):
        refresh_store(path, changes)
    layer.write_bytes(content)
    base.write_bytes(misspelt(base))
    monkeypatch.setattr(delta, "_MERGE_FROM", 0)
    monkeypatch.setattr(delta, "_MERGE_SHARE", 0)
    with pytest.raises(StoreError, match=r"000001\.db is damaged"):
        refresh_store(path, changes)
    with pytest.raises(StoreError, match=r"000001\.db is damaged"):
        publish_store(path, str(tmp_path / "bucket"), key=b"the key of the manifests")
    assert sorted(path.glob("*.db")) == [base, layer]


def test_P10_a_file_that_was_rebuilt_or_removed_in_the_meantime_is_complete(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    with LocalStore(path, check_every=3600) as store:
        assert store.get("Users", "nobody") is None
        build_store(path, [CollectionSpec("Users", [person(1)])])  # deletes the files that this one has open
        assert store.get("Users", "nobody") is None
        assert store.get("Users", "u7") is not None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_P10_a_file_that_is_truncated_while_it_is_served_ends_nothing(
    sound: Path, tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    with LocalStore(path) as store:
        assert answers(store, random.Random(1))[1] == 0
        file = min(path.glob("*.db"))
        os.truncate(file, int(file.stat().st_size * share))
        with caplog.at_level(logging.ERROR, "profile_enrich.store"):
            for seed in range(8):
                answers(store, random.Random(seed))
        with LocalStore(path) as opened_later:
            assert answers(opened_later, random.Random(2))[1] > 0
    assert "person" not in caplog.text
    assert "u1" not in [word for record in caplog.records for word in record.getMessage().split()]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc, as Linux has it")
@pytest.mark.parametrize("damage", ["no database", "no SQL", "other columns"])
def test_a_file_that_cannot_be_opened_is_closed_at_once(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.db"
    failure: type[Exception] = StoreError
    opens: Any = MirrorStore
    if damage == "no database":
        file.write_bytes(b"not a database" * 1000)
    elif damage == "other columns":
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE meta (other)")
    else:
        monkeypatch.setattr(collection_writer, "_SCHEMA", damage)
        failure, opens = sqlite3.Error, lambda file: collection_writer.CollectionWriter(file, 1)
    with pytest.raises(failure) as caught:
        opens(file)
    assert caught.tb is not None  # its frames hold the connection, so that the garbage collector does not close it
    opened = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert file not in opened
