"""Every filter's records and totals equal DuckDB's, on random data with layers and deletions."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import pytest

from profile_enrich.errors import StoreError
from profile_enrich.store import CollectionSpec, LocalStore, RefreshSpec, build_store, delete_record, refresh_store
from profile_enrich.store.files import collection_reader
from profile_enrich.store.index.builder import PostingsBuilder
from profile_enrich.store.index.matching import count
from profile_enrich.store.writes import delta

COLUMNS = ("mail", "city", "tier", "opted_in")
"""Near-unique with a common value, a long tail, few values, two values; each with nulls."""


def people(choose: random.Random, ids: Iterator[int] | range) -> list[dict[str, Any]]:
    return [
        {
            "id": f"u{number}",
            "mail": choose.choice([f"m{number}@x.example", "info@x.example", None]),
            "city": f"city {int(choose.paretovariate(0.7)) % 300}",
            "tier": choose.choice(["gold", "silver", "bronze", "é", None]),
            "opted_in": choose.random() < 0.9,
        }
        for number in ids
    ]


@pytest.mark.long
@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
def test_every_filter_and_total_is_that_of_duckdb(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(seed)
    monkeypatch.setattr(delta, "_SMALL", 10)  # so that layers are not merged
    people_now = {row["id"]: row for row in people(choose, range(9_000))}
    path = tmp_path / "s"
    spec = CollectionSpec("Users", list(people_now.values()), filterable=["id", *COLUMNS])
    if seed % 2:  # in bulk by DuckDB
        file = tmp_path / "users.csv"
        rows = list(people_now.values())
        names = list(rows[0])
        lines = [",".join("" if row[name] is None else str(row[name]).lower() for name in names) for row in rows]
        file.write_text("\n".join([",".join(names), *lines]), encoding="utf-8")
        spec = CollectionSpec("Users", file, filterable=["id", *COLUMNS], types={"opted_in": "boolean"})
    build_store(path, [spec])
    for size in (3_000, 700, 150):
        first = choose.randrange(9_000)
        changed = people(choose, range(first, first + size))
        deleted = choose.sample(sorted(people_now), size // 3)
        refresh_store(path, [RefreshSpec("Users", changed, deleted=deleted)])
        people_now.update({row["id"]: row for row in changed})
        for key in deleted:
            people_now.pop(key, None)
    gone = choose.choice(sorted(people_now))
    delete_record(path, "Users", gone)
    del people_now[gone]
    check(path, people_now, choose)


def check(path: Path, expected: dict[str, dict[str, Any]], choose: random.Random) -> None:
    table = duckdb.connect()
    names = ("id", *COLUMNS)
    table.execute(f"CREATE TABLE users ({', '.join(f'{name} VARCHAR' for name in names)})")
    texts = [
        [text if isinstance(text := row[name], str | None) else json.dumps(text) for name in names]
        for row in expected.values()
    ]
    columns = [list(column) for column in zip(*texts, strict=True)]
    table.execute(f"INSERT INTO users SELECT {', '.join(['unnest(?)'] * len(names))}", columns)
    with LocalStore(path, index_cache=choose.choice([0, 20_000, 1 << 20])) as store:
        assert store.collection("Users").rows == len(expected)
        for how_many in (1, 2, 3, 4):
            for chosen in combinations(COLUMNS, how_many):
                for _ in range(6):
                    row = choose.choice(texts)
                    filters = {name: text for name in chosen if (text := row[names.index(name)]) is not None}
                    if filters:
                        compare(store, table, filters)
        compare(store, table, {"tier": "nobody"})
        compare(store, table, {"id": texts[0][0] or "", "opted_in": "true"})


def compare(store: LocalStore, table: duckdb.DuckDBPyConnection, filters: dict[str, str]) -> None:
    where = " AND ".join(f"{name} = ${name}" for name in filters)
    expected = {row[0] for row in table.execute(f"SELECT id FROM users WHERE {where}", filters).fetchall()}
    found, cursor = list[str](), None
    while True:
        page = store.page("Users", filters, limit=1000, cursor=cursor, with_total=True)
        found += [json.loads(payload)["id"] for payload in page.payloads]
        cursor = page.next_cursor
        assert page.total == len(expected), filters
        if cursor is None:
            break
    assert len(found) == len(expected)
    assert set(found) == expected, filters


def test_a_total_is_counted_once_a_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def counting(*arguments: Any) -> int:
        counted.append(1)
        return count(*arguments)

    monkeypatch.setattr(collection_reader, "count", counting)
    rows = [{"id": f"u{n}", "tier": ("gold", "silver")[n % 2]} for n in range(100)]
    build_store(tmp_path / "s", [CollectionSpec("Users", rows, filterable=["tier"])])
    with LocalStore(tmp_path / "s", check_every=0) as store:
        for _ in range(3):
            assert store.page("Users", {"tier": "gold"}, limit=1, with_total=True).total == 50
        assert len(counted) == 1
        delete_record(tmp_path / "s", "Users", "u2")
        assert store.page("Users", {"tier": "gold"}, limit=1, with_total=True).total == 49


def test_a_collection_that_ran_out_of_docids_is_said() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        builder = PostingsBuilder(connection, 1)
        builder.extend([(1 << 32) - 1], [["gold"]])
        with pytest.raises(StoreError, match="at most 4,294,967,295 docids"):
            builder.extend([1 << 32], [["gold"]])
