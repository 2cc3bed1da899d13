"""Source configurations of collections as plain data, and the status of the last refresh."""

from __future__ import annotations

import io
import json
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError, StoreBusy, StoreError
from profile_enrich.store import CollectionSpec, LocalStore, SqlQuery, Stream, build_store
from profile_enrich.store.build_reports import BuildReport, RefreshReport
from profile_enrich.store.files.manifest import locked
from profile_enrich.store.inputs.source_config import (
    forget,
    read_recipe,
    spec_from_table,
    spec_to_table,
    specs_from_tables,
    write_recipe,
)
from profile_enrich.store.writes import refresh_from_sources as from_sources
from profile_enrich.store.writes.refresh_from_sources import refresh_from_sources
from profile_enrich.store.writes.refresh_process import main
from profile_enrich.store.writes.refresh_status import is_refreshing, note_refresh, read_last_refresh

SECRET = "planted-password"

names = st.text(min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    name=names,
    key=names,
    filterable=st.lists(names, max_size=3),
    fields=st.none() | st.lists(names, max_size=3),
    types=st.dictionaries(names, st.sampled_from(["text", "integer"]), max_size=2),
    delimiter=st.none() | st.sampled_from([";", "\t"]),
    description=st.text(max_size=5),
    form=st.none() | st.sampled_from(["csv", "jsonl"]),
    rejects=st.booleans(),
    sql=st.booleans(),
)
def test_a_specification_survives_the_way_through_a_file(
    name: str, key: str, sql: bool, rejects: bool, form: Any, **options: Any
) -> None:
    source: Any = SqlQuery("postgresql://u:p@h/d", "SELECT 1") if sql else Path("/data/u.csv")
    spec = CollectionSpec(
        name, source, key=key, format=form, rejects=Path("/data/bad.jsonl") if rejects else None, **options
    )
    table = json.loads(json.dumps(spec_to_table(spec, keep_password=True)))
    assert spec_from_table(name, table, Path("/elsewhere")) == spec


def test_paths_are_relative_to_the_file_that_says_them() -> None:
    (spec,) = specs_from_tables({"U": {"source": "u.csv", "rejects": "bad.jsonl"}}, Path("/etc/profiles"))
    assert (spec.source, spec.rejects) == (Path("/etc/profiles/u.csv"), Path("/etc/profiles/bad.jsonl"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("users.csv", r"\[collections.U\] must be a table"),
        ({"sorce": "u.csv"}, "unknown entry 'sorce'; the entries are: source, sql"),
        ({"source": 5}, "source must be text"),
        ({"source": "u.csv", "filterable": "email"}, "filterable must be a list of column names"),
        ({"source": "u.csv", "fields": [1]}, "fields must be a list of column names"),
        ({"source": "u.csv", "types": ["a"]}, "types must be a table"),
        ({"key": "id"}, "needs source = FILE, or sql = QUERY"),
        ({"source": "u.csv", "sql": "SELECT", "url": "x"}, "and not both"),
        ({"sql": "SELECT"}, "sql and url belong together"),
        ({"source": "u.csv", "url": "x"}, "sql and url belong together"),
    ],
)
def test_a_table_that_is_wrong_is_said_by_its_entry(table: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        specs_from_tables({"U": table}, Path())


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"postgresql://u:{SECRET}@h/d", "env:PROFILE_ENRICH_SQL_URL"),
        (f"postgresql://h/d?user=u&password={SECRET}", "env:PROFILE_ENRICH_SQL_URL"),
        (f"postgresql://h/d?PASSWORD={SECRET}", "env:PROFILE_ENRICH_SQL_URL"),
        (f"snowflake://h/d?token={SECRET}", "env:PROFILE_ENRICH_SQL_URL"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("env:CRM", "env:CRM"),
        ("sqlite:////data/crm.db", "sqlite:////data/crm.db"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///crm.db?mode=ro", f"sqlite:///{Path.cwd() / 'crm.db'}?mode=ro"),
    ],
)
def test_a_password_is_not_kept(tmp_path: Path, url: str, kept: str) -> None:
    assert write_recipe(tmp_path, [CollectionSpec("U", SqlQuery(url, "SELECT 1"))]) == []
    text = (tmp_path / "SOURCES").read_text()
    assert SECRET not in text
    assert json.loads(text)["collections"]["U"]["url"] == kept
    assert stat.S_IMODE((tmp_path / "SOURCES").stat().st_mode) == 0o600


def test_what_can_be_read_only_once_is_not_kept(tmp_path: Path) -> None:
    first = CollectionSpec("A", "a.csv")
    assert write_recipe(tmp_path, [first, CollectionSpec("B", "b.csv")]) == []
    assert write_recipe(tmp_path, [CollectionSpec("A", [{"id": 1}])]) == ["A"]
    assert [spec.name for spec in read_recipe(tmp_path)] == ["B"]
    with pytest.raises(ConfigurationError, match="'S' was built from a stream, which can be read only once"):
        spec_to_table(CollectionSpec("S", Stream(io.BytesIO(), "csv")), keep_password=True)
    forget(tmp_path, ["B", "never there"])
    assert read_recipe(tmp_path) == []


def test_a_damaged_recipe_is_said(tmp_path: Path) -> None:
    assert read_recipe(tmp_path) == []
    (tmp_path / "SOURCES").write_text("[]")
    with pytest.raises(StoreError, match="SOURCES is damaged; delete it") as caught:
        read_recipe(tmp_path)
    assert caught.value.__context__ is None
    (tmp_path / "SOURCES").unlink()
    (tmp_path / "SOURCES").mkdir()
    with pytest.raises(StoreError, match="SOURCES cannot be read"):
        read_recipe(tmp_path)


def test_the_note_of_the_last_refresh_counts_failures(tmp_path: Path) -> None:
    began = datetime.now(UTC)
    assert read_last_refresh(tmp_path) is None
    assert note_refresh(tmp_path, began, "no file").failures == 1
    assert note_refresh(tmp_path, began, "no file").failures == 2
    done = note_refresh(tmp_path, began, None)
    assert (done.failures, done.error, done.succeeded_at) == (0, None, done.finished_at)
    failed = note_refresh(tmp_path, began, "again")
    assert failed.succeeded_at == done.succeeded_at
    assert read_last_refresh(tmp_path) == failed
    assert not list(tmp_path.glob("*.new"))
    (tmp_path / "REFRESHED").write_text("{}")
    assert read_last_refresh(tmp_path) is None


# --- refreshing from the sources --------------------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users.csv"
    file.write_text("id,n\n1,a\n2,b\n")
    return file


@pytest.fixture
def store(tmp_path: Path, users: Path) -> Path:
    specs = [CollectionSpec("U", users)]
    build_store(tmp_path / "s", specs)
    write_recipe(tmp_path / "s", specs)
    return tmp_path / "s"


def keys(store: Path) -> set[str]:
    with LocalStore(store) as opened:
        return {record.id for record in opened.search("U", {}, limit=100)}


def test_a_refresh_needs_nothing_said_again(store: Path, users: Path) -> None:
    users.write_text("id,n\n2,b\n3,c\n")
    report = refresh_from_sources(store, max_shrink=1.0)
    assert isinstance(report, BuildReport)
    assert report.generation == 2
    assert keys(store) == {"2", "3"}
    last = read_last_refresh(store)
    assert last is not None
    assert last.error is None


@pytest.mark.parametrize(("vanished", "left"), [("keep", {"1", "2", "3"}), ("delete", {"2", "3"})])
def test_a_refresh_of_what_changed_finds_it_out(store: Path, users: Path, vanished: Any, left: set[str]) -> None:
    users.write_text("id,n\n2,b\n3,c\n")
    report = refresh_from_sources(store, changed_only=True, vanished=vanished, max_shrink=1.0)
    assert isinstance(report, RefreshReport)
    assert (report.collections[0].inserted, report.collections[0].unchanged) == (1, 1)
    assert keys(store) == left


def test_what_has_vanished_cannot_be_told_from_what_is_broken(store: Path, users: Path) -> None:
    spec = CollectionSpec("U", users, rejects=store.parent / "bad.jsonl")
    with pytest.raises(ConfigurationError, match="the record of a broken line, which is left out, would be deleted"):
        refresh_from_sources(store, [spec], changed_only=True, vanished="delete")
    with pytest.raises(ConfigurationError, match="needs changed_only=True"):
        refresh_from_sources(store, vanished="delete")
    assert read_last_refresh(store) is None


def test_a_failed_refresh_is_noted_and_leaves_the_old_data(store: Path, users: Path) -> None:
    users.unlink()
    for failures in (1, 2):
        with pytest.raises(StoreError, match="is not there"):
            refresh_from_sources(store)
        last = read_last_refresh(store)
        assert last is not None
        assert (last.error, last.failures) == (f"{users} is not there", failures)
    assert keys(store) == {"1", "2"}


@pytest.mark.parametrize(
    ("error", "noted"),
    [(KeyboardInterrupt(), "it was interrupted"), (RuntimeError(SECRET), "it failed in an unexpected way")],
)
def test_an_unexpected_end_is_noted_without_its_text(
    store: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, noted: str
) -> None:
    def end(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(from_sources, "build_store", end)
    with pytest.raises(type(error)):
        refresh_from_sources(store)
    last = read_last_refresh(store)
    assert last is not None
    assert last.error == noted


def test_a_refresh_that_another_process_has_done_is_not_done_again(store: Path) -> None:
    before = datetime.now(UTC)
    assert refresh_from_sources(store, since=before) is not None
    assert refresh_from_sources(store, since=before) is None
    assert refresh_from_sources(store, since=datetime.now(UTC) + timedelta(seconds=1)) is not None


def test_two_refreshes_or_builds_do_not_overlap(store: Path) -> None:
    with locked(store), pytest.raises(StoreBusy, match="another build"):
        refresh_from_sources(store)
    connection = sqlite3.connect(store / "REFRESHING", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    assert is_refreshing(store)
    with pytest.raises(StoreBusy, match="another process is refreshing") as caught:
        refresh_from_sources(store)
    connection.close()
    assert not is_refreshing(store)
    assert caught.value.__context__ is None
    assert read_last_refresh(store) is None  # it did not fail, because it did not start
    (store / "REFRESHING").unlink()
    (store / "REFRESHING").mkdir()
    assert not is_refreshing(store)  # an attempt to refresh reports it
    with pytest.raises(StoreError, match="cannot be locked"):
        refresh_from_sources(store)


def test_a_store_whose_sources_are_not_known_says_so(store: Path, tmp_path: Path) -> None:
    forget(store, ["U"])
    with pytest.raises(ConfigurationError, match=r"the sources of the store .* are unknown"):
        refresh_from_sources(store)
    with pytest.raises(StoreError, match="there is no store"):
        refresh_from_sources(tmp_path / "nowhere")


# --- the process that does it -----------------------------------------------------------------------------------------


def ask(store: Path, **more: Any) -> dict[str, Any]:
    order = {"path": str(store), "collections": None, "since": None, "changed_only": False, "vanished": "keep"}
    stdout = io.StringIO()
    main(
        io.StringIO(json.dumps({**order, "on_duplicate": "last", "max_shrink": 0.2, **more}) + "\n"),
        stdout,
        watch=False,
    )
    answer: dict[str, Any] = json.loads(stdout.getvalue())
    return answer


def test_the_process_says_how_it_went(store: Path, users: Path) -> None:
    began = datetime.now(UTC).isoformat()
    assert ask(store) == {"outcome": "done", "error": None, "failures": 0}
    assert ask(store, since=began)["outcome"] == "skipped"
    assert ask(store, collections={"U": {"source": str(users)}}, changed_only=True)["outcome"] == "done"
    with locked(store):
        assert ask(store)["outcome"] == "busy"
    users.unlink()
    assert ask(store) == {"outcome": "failed", "error": f"{users} is not there", "failures": 1}
