"""One suite for every writable store: the guarantees that a server relies on."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from profile_enrich.errors import ConfigurationError, CursorError, StoreBusy, StoreError
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.store import CollectionSpec, LocalStore, ProfileStore, RefreshSpec, build_store
from tests.store.backends import Backend, LocalBackend, PostgresBackend

ODD = ["a/b ?&#+%é\n..", "ü", "'; DROP TABLE x; --", '"', "\\", "=x", "#x", "%s", "x" * 2000, "\U0001f600"]
PEOPLE: list[dict[str, Any]] = [
    {
        "id": f"u{n}",
        "tier": ["gold", "silver", None][n % 3],
        "city": f"c{n % 7}",
        "even": n % 2 == 0,
        "n": n,
        "ratio": n / 4,
        "tags": [n, {"a": "ö"}],
    }
    for n in range(100)
] + [{"id": key, "tier": key, "city": None, "even": None, "n": -1, "ratio": 1e21, "tags": {}} for key in ODD]
FILTERS = ("tier", "city", "even", "id", "n")


@pytest.fixture(params=["local", "postgres", "pgbouncer"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "local":
        return LocalBackend(tmp_path)
    return PostgresBackend(request.getfixturevalue(request.param).dsn())


@pytest.fixture
def store(backend: Backend) -> Generator[ProfileStore]:
    backend.build([CollectionSpec("Users", PEOPLE, filterable=FILTERS, description="People")])
    with backend.open() as opened:
        yield opened


def ids(payloads: tuple[bytes, ...]) -> list[str]:
    return [json.loads(payload)["id"] for payload in payloads]


def text_of(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def walk(store: ProfileStore, filters: dict[str, str] | None = None, limit: int = 7) -> list[str]:
    found, cursor = [], None
    while True:
        page = store.page("Users", filters, limit=limit, cursor=cursor)
        found += ids(page.payloads)
        cursor = page.next_cursor
        if cursor is None:
            return found


def wait_for(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_D1_payloads_are_byte_for_byte_those_of_the_local_store(store: ProfileStore, tmp_path: Path) -> None:
    build_store(tmp_path / "other", [CollectionSpec("Users", PEOPLE, filterable=FILTERS, description="People")])
    with LocalStore(tmp_path / "other") as local:
        here, there = store.collection("Users"), local.collection("Users")
        assert (here.id, here.index_id, here.columns, here.filterable, here.index_fields, here.rows, here.key) == (
            (there.id, there.index_id, there.columns, there.filterable, there.index_fields, there.rows, there.key)
        )
        for row in PEOPLE:
            assert store.get("Users", row["id"]) == local.get("Users", row["id"])
            for dialect in ("census", "amperity"):
                expected = local.get_payload("Users", row["id"], dialect)
                assert store.get_payload(1, row["id"], dialect) == expected


def test_D1_finds_exactly_this_key(store: ProfileStore) -> None:
    for other in ("U7", " u7", "u7 ", "", "u7\0", "u%37", "\ud800", "u7' OR '1'='1", "é" * 3000):
        assert store.get("Users", other) is None
        assert store.get_payload("Users", other, "amperity") is None
        assert store.search("Users", {"id": other}) == []
        page = store.page("Users", {"id": other}, with_total=True)
        assert (page.payloads, page.total, page.next_cursor) == ((), 0, None)
    with pytest.raises(StoreError, match="no collection 'nobody'; there are: 'Users'"):
        store.get("nobody", "u1")
    assert store.find(99) is store.find("Nobody") is store.find_index("Users") is None
    assert "gold" not in repr(store) + repr(store.get("Users", "u0"))


def test_D1_pages_of_any_filter_are_what_a_plain_scan_finds(store: ProfileStore) -> None:
    rng = random.Random(7)
    for _ in range(60):
        chosen = rng.sample(FILTERS, rng.randrange(4))
        filters = {name: text_of(rng.choice(PEOPLE)[name]) or "gold" for name in chosen}
        expected = [r["id"] for r in PEOPLE if all(text_of(r[name]) == value for name, value in filters.items())]
        limit = rng.randrange(1, 40)
        assert walk(store, filters, limit) == expected
        assert store.page("Users", filters, limit=1, with_total=True).total == len(expected)
        assert [record.id for record in store.search("Users", filters, limit=3)] == expected[:3]


def test_D1_page_tokens_are_bound_to_collection_and_filter(store: ProfileStore) -> None:
    token = store.page("Users", {"tier": "gold"}, limit=2).next_cursor
    assert token is not None
    assert len(store.page("Users", {"tier": "gold"}, limit=2, cursor=token).payloads) == 2
    for filters, changed in (
        ({"tier": "silver"}, token),
        ({}, token),
        ({"tier": "gold"}, token[:-1] + ("A" if token[-1] != "A" else "B")),
        ({"tier": "gold"}, "x"),
        ({"tier": "gold"}, "é"),
    ):
        with pytest.raises(CursorError):
            store.page("Users", filters, limit=2, cursor=changed)
    with pytest.raises(ConfigurationError, match="not filterable"):
        store.page("Users", {"tags": "x"})
    for limit in (0, 1001):
        with pytest.raises(ConfigurationError, match="limit must be a whole number from 1 to 1000"):
            store.page("Users", limit=limit)


def test_D2_a_refresh_writes_what_is_different_and_says_so(backend: Backend, store: ProfileStore) -> None:
    before, order = store.generation, walk(store)
    changed = [{**row, "tier": "new"} if row["id"] in ("u3", "u9") else row for row in PEOPLE if row["id"] != "u5"]
    report = backend.refresh([RefreshSpec("Users", [*changed, {"id": "later", "tier": "gold"}], vanished="delete")])
    one = report.collections[0]
    assert (one.read, one.inserted, one.updated, one.deleted, one.unchanged) == (110, 1, 2, 1, 107)
    wait_for(lambda: store.refresh() or store.generation == report.generation)
    assert store.generation == report.generation == before + 1
    assert walk(store) == [key for key in order if key != "u5"] + ["later"]
    assert store.collection("Users").rows == len(PEOPLE)
    changes = store.changes_since("Users", before)
    assert changes is not None
    assert (sorted(changes.written), changes.deleted, changes.generation) == (
        ["later", "u3", "u9"],
        ("u5",),
        before + 1,
    )
    again = backend.refresh([RefreshSpec("Users", [*changed, {"id": "later", "tier": "gold"}], vanished="delete")])
    assert again.generation == report.generation  # nothing changed: no new generation
    again = backend.refresh(
        [
            RefreshSpec(
                "Users", [{"id": "u1", "gone": "yes"}, {"id": "u2", "gone": "no"}], tombstone="gone", deleted=["u4"]
            )
        ]
    )
    assert (again.collections[0].deleted, again.collections[0].updated) == (2, 1)
    wait_for(lambda: store.refresh() or store.get("Users", "u1") is None)
    assert store.get("Users", "u4") is None


def test_D2_a_rebuild_keeps_places_and_announces_a_reset(backend: Backend, store: ProfileStore) -> None:
    order, before = walk(store), store.generation
    token = store.page("Users", limit=10).next_cursor
    mixed = PEOPLE[:]
    random.Random(1).shuffle(mixed)
    backend.build([CollectionSpec("Users", [{"id": "first", "n": 1}, *mixed], filterable=("n",))])
    wait_for(lambda: store.refresh() or store.generation > before)
    assert walk(store) == [*order, "first"]
    assert ids(store.page("Users", limit=10, cursor=token).payloads) == order[10:20]
    assert store.changes_since("Users", before) is None
    assert store.collection("Users").filterable == ("n",)


def test_D2_duplicates_rejects_and_shrinking(backend: Backend, store: ProfileStore) -> None:
    rows = [*PEOPLE, {"id": "u1", "tier": "last"}, {"id": None}, {"id": ""}]
    report = backend.build([CollectionSpec("Users", rows, filterable=FILTERS)])
    one = report.collections[0]
    assert (one.read, one.stored, one.duplicates, one.first_duplicate) == (113, 110, 1, 111)
    assert one.rejected == {"the key is missing or empty": 2}
    wait_for(lambda: store.refresh() or store.generation == report.generation)
    record = store.get("Users", "u1")
    assert record is not None
    assert record.attributes == {"id": "u1", "tier": "last"}
    assert walk(store)[:3] == ["u0", "u1", "u2"]
    with pytest.raises(StoreError, match="earlier row"):
        backend.build([CollectionSpec("Users", rows)], on_duplicate="fail")
    with pytest.raises(StoreError, match=r"no rows|would lose"):
        backend.refresh([RefreshSpec("Users", [], vanished="delete")])
    with pytest.raises(StoreError, match="'Nobody'"):
        backend.refresh([RefreshSpec("Nobody", [])])
    assert store.collection("Users").rows == 110


def test_D2_a_value_of_another_type_than_its_column_is_left_out(backend: Backend, store: ProfileStore) -> None:
    change: list[dict[str, Any]] = [{"id": "u1", "n": "text"}, {"id": "u2", "n": 7}]
    report = backend.refresh([RefreshSpec("Users", change)]).collections[0]
    assert (report.updated, sum(report.rejected.values()), report.first_rejected) == (1, 1, 1)
    rebuilt = backend.build([CollectionSpec("Users", [*PEOPLE, {"id": "x", "n": "text"}], filterable=FILTERS)])
    assert (rebuilt.collections[0].stored, sum(rebuilt.collections[0].rejected.values())) == (len(PEOPLE), 1)


def test_D2_what_is_deleted_by_name_is_counted_and_not_guarded(backend: Backend, store: ProfileStore) -> None:
    named = [f"u{n}" for n in range(60)]
    report = backend.refresh([RefreshSpec("Users", deleted=[*named, "nobody", "\ud800"])]).collections[0]
    assert (report.deleted, report.asked_deletes, report.unmatched_deletes) == (60, 62, 2)
    with pytest.raises(StoreError, match="would lose 50 of its 50 records"):
        backend.refresh([RefreshSpec("Users", [{"id": "other"}], vanished="delete")])


def test_D3_single_records(store: ProfileStore) -> None:
    before = store.generation
    assert store.put_record("Users", "new", {"tier": "gold", "more": [1]})
    assert not store.put_record("Users", "u1", {"tier": "platinum", "n": 5})
    record = store.get("Users", "new")
    assert record is not None
    assert record.attributes == {"id": "new", "tier": "gold", "more": [1]}
    assert ids(store.page("Users", {"tier": "platinum"}).payloads) == ["u1"]
    assert walk(store)[-1] == "new"
    assert store.delete_record("Users", "u2")
    assert not store.delete_record("Users", "u2")
    assert not store.delete_record("Users", "\ud800")
    assert store.get("Users", "u2") is None
    changes = store.changes_since("Users", before)
    assert changes is not None
    assert (sorted(changes.written), changes.deleted) == (["new", "u1"], ("u2",))
    assert store.changes_since("Users", store.generation + 5) is None or store.namespace.startswith("store:")
    assert "more" in [column.name for column in store.collection("Users").columns]
    for wrong in ({"id": "other"}, {"x": "\ud800"}, {"x": object()}):
        with pytest.raises(ConfigurationError, match="cannot be stored"):
            store.put_record("Users", "new", wrong)


@pytest.mark.long
def test_D2_pages_show_each_record_once_while_refreshes_run(backend: Backend, store: ProfileStore) -> None:
    """Paging while every record is rewritten and rebuilt: no record is missing or repeated."""
    stop = threading.Event()
    problems: list[str] = []

    def read() -> None:
        while not stop.is_set():
            seen = walk(store, limit=9)
            if len(seen) != len(set(seen)) or not {row["id"] for row in PEOPLE} <= set(seen):
                problems.append(f"{len(seen)} seen, {len(set(seen))} different")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for version in range(6):
            rows = [{**row, "n": 1_000 + version} for row in PEOPLE]
            if version % 2:
                backend.build([CollectionSpec("Users", rows, filterable=FILTERS)])
            else:
                backend.refresh([RefreshSpec("Users", rows)])
            with contextlib.suppress(StoreBusy):
                store.put_record("Users", f"new{version}", {"tier": "gold"})
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert problems == []


async def test_D1_the_server_answers_the_same_over_every_store(store: ProfileStore, tmp_path: Path) -> None:
    build_store(tmp_path / "other", [CollectionSpec("Users", PEOPLE, filterable=FILTERS, description="People")])
    secret = "the-secret-of-the-key"
    head = {"amperity-tenant": "default", "api-version": "2025-07-31", "authorization": f"Bearer {secret}"}
    index = store.collection("Users").index_id
    targets = [
        "/api/v1/entities",
        "/api/v1/entities/1/record?record_id=u7",
        "/api/v1/entities/1/record?record_id=a%2Fb+%3F%26%23%2B%25%C3%A9%0A..",
        "/api/v1/entities/1/record?record_id=nobody",
        "/api/v1/entities/9/record?record_id=u7",
        f"/api/indexes/{index}/profiles/u7",
        f"/api/indexes/{index}/profiles?filter[tier]=gold&with_total=true&limit=40",
        f"/api/indexes/{index}/profiles?filter[tags]=gold",
        f"/api/indexes/{index}/profiles?next_token=x",
    ]
    with LocalStore(tmp_path / "other") as local:
        answers = []
        for each in (store, local):
            api = ProfileAPI(each, keys=[ApiKey.from_secret(secret, admin=True)])
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=api), base_url="http://t", headers=head
            ) as client:
                got = [await client.get(target) for target in targets]
                got.append(await client.post("/api/x/entities/1/records", json={"ids": ["u1", "x", "u1"]}))
                answers.append([(r.status_code, r.content if r.status_code == 200 else b"") for r in got])
                if each is store:
                    put = "/api/v1/entities/1/record?record_id=u7"
                    assert (await client.put(put, json={"tier": "x"})).status_code == 200
                    assert (await client.get(put)).json() == {"data": {"id": "u7", "tier": "x"}}
                    assert (await client.delete(put)).status_code == 204
                    assert (await client.get(put)).status_code == 404
            api.close()
    assert answers[0] == answers[1]
