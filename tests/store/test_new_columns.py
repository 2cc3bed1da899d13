"""A refresh from a source that has columns which the collection lacks."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from profile_enrich.errors import StoreError
from profile_enrich.store import (
    CollectionSpec,
    LocalStore,
    RefreshSpec,
    SqlQuery,
    Stream,
    build_store,
    refresh_store,
)
from profile_enrich.store.writes.refresh_from_sources import refresh_from_sources


def _csv(path: Path) -> Path:
    (path / "new.csv").write_text("id,tier,city\nu1,gold,Oslo\nu2,silver,Rome\n")
    return path / "new.csv"


def _jsonl(path: Path) -> Path:
    (path / "new.jsonl").write_text('{"id": "u1", "tier": "gold"}\n{"id": "u2", "tier": "x", "city": "Rome"}\n')
    return path / "new.jsonl"


def _parquet(path: Path) -> Path:
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 'u1' AS id, 'gold' AS tier, 'Oslo' AS city) TO '{path / 'new.parquet'}'")
    return path / "new.parquet"


def _query(path: Path) -> SqlQuery:
    with contextlib.closing(sqlite3.connect(path / "new.db")) as database:
        database.execute("CREATE TABLE IF NOT EXISTS users AS SELECT 'u1' AS id, 'gold' AS tier, 'Oslo' AS city")
        database.commit()
    return SqlQuery(f"sqlite:///{path / 'new.db'}", "SELECT * FROM users")


def _rows(_: Path) -> list[dict[str, str]]:
    return [{"id": "u1", "tier": "gold", "city": "Oslo"}]


def _stream(path: Path) -> Stream:
    return Stream(io.BytesIO(_csv(path).read_bytes()), "csv")


@pytest.mark.parametrize("made", [_csv, _jsonl, _parquet, _query, _rows, _stream])
def test_E8_a_new_column_is_not_ignored_without_a_word(tmp_path: Path, made: Callable[[Path], Any]) -> None:
    store = tmp_path / "s"
    build_store(store, [CollectionSpec("Users", [{"id": "u1", "tier": "silver"}])])
    with pytest.raises(StoreError, match=r"has the column 'city', which the collection 'Users' lacks; a full build"):
        refresh_store(store, [RefreshSpec("Users", made(tmp_path))])
    with LocalStore(store) as opened:
        assert opened.generation == 1
    report = refresh_store(store, [RefreshSpec("Users", made(tmp_path), new_columns="ignore")])
    assert report.collections[0].updated == 1
    with LocalStore(store) as opened:
        record = opened.get("Users", "u1")
        assert record is not None
        assert record.attributes == {"id": "u1", "tier": "gold"}


def test_E8_columns_that_were_left_out_on_purpose_stay_out(tmp_path: Path) -> None:
    spec = CollectionSpec("Users", _csv(tmp_path), fields=["tier"])
    build_store(tmp_path / "s", [spec])
    report = refresh_from_sources(tmp_path / "s", [spec], changed_only=True)
    assert report is not None
    all_of_it = replace(spec, fields=None)
    with pytest.raises(StoreError, match="'city'"):
        refresh_from_sources(tmp_path / "s", [all_of_it], changed_only=True)
    refresh_from_sources(tmp_path / "s", [all_of_it], changed_only=True, new_columns="ignore")
    refresh_from_sources(tmp_path / "s", [all_of_it])
    with LocalStore(tmp_path / "s") as opened:
        assert {column.name for column in opened.collection("Users").columns} == {"id", "tier", "city"}
