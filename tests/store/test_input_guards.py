"""Errors in an input end a build or refresh, or reject a row; they never change stored data."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich._utils import file_identity
from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.store import (
    CollectionSpec,
    LocalStore,
    RefreshSpec,
    SqlQuery,
    build_store,
    put_record,
    refresh_store,
)
from profile_enrich.store.inputs.duckdb_table import _INFERRED
from profile_enrich.store.writes.refresh_from_sources import refresh_from_sources
from profile_enrich.store.writes.refresh_status import read_last_refresh

Rows = list[dict[str, Any]]


def csv_of(rows: Rows) -> str:
    names = list(rows[0]) if rows else ["id", "tier"]
    return "\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]) + "\n"


PEOPLE: Rows = [{"id": f"u{n}", "tier": "gold", "ltv": n} for n in range(100)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    source = tmp_path / "people.csv"
    source.write_text(csv_of(PEOPLE))
    build_store(tmp_path / "s", [CollectionSpec("Users", source)])
    return tmp_path / "s"


def records(path: Path) -> dict[str, Any]:
    with LocalStore(path) as store:
        payload = {f"u{n}": store.get("Users", f"u{n}") for n in range(100)}
        return {key: record.attributes for key, record in payload.items() if record is not None}


UNUSABLE: dict[str, tuple[str, str]] = {
    "header only": ("a.csv", "id,tier,ltv\n"),
    "no rows": ("a.jsonl", ""),
    "other keys": ("a.csv", csv_of([{**row, "id": f"{row['id']}.0"} for row in PEOPLE])),
    "keys that became numbers": ("a.jsonl", "".join(f'{{"id": {n}.0}}\n' for n in range(100))),
    "three quarters": ("a.csv", csv_of(PEOPLE[:75])),
    "types that changed": ("a.csv", csv_of([{**row, "ltv": "N/A"} for row in PEOPLE])),
}


@pytest.mark.parametrize("mode", ["full", "changed only"])
@pytest.mark.parametrize("source", UNUSABLE)
def test_P11_a_refresh_that_loses_too_much_keeps_what_is_served(
    path: Path, tmp_path: Path, source: str, mode: str
) -> None:
    name, content = UNUSABLE[source]
    (tmp_path / name).write_text(content)
    before, generation = records(path), LocalStore(path).generation
    changed_only = mode != "full"
    spec = CollectionSpec("Users", tmp_path / name, fields=["id", "tier", "ltv"] if name.endswith("csv") else None)
    if changed_only and source == "types that changed":
        report = refresh_from_sources(path, [spec], changed_only=True, vanished="delete")
        assert report is not None
        assert sum(report.collections[0].rejected.values()) == 100
        assert records(path) == before
        return
    with pytest.raises(StoreError, match=r"Users would lose \d+ of its 100 records, more than 20%"):
        refresh_from_sources(path, [spec], changed_only=changed_only, vanished="delete" if changed_only else "keep")
    assert records(path) == before
    assert LocalStore(path).generation == generation
    last = read_last_refresh(path)
    assert last is not None
    assert last.error is not None
    assert "would lose" in last.error


def test_P11_a_shrink_can_be_allowed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text(csv_of(PEOPLE[:10]))
    spec = CollectionSpec("Users", tmp_path / "few.csv")
    refresh_from_sources(path, [spec], max_shrink=1.0)
    assert len(records(path)) == 10


def one_bad(kind: str) -> Callable[[Path], Any]:
    def source(place: Path) -> Any:
        rows = [{**row, "ltv": "N/A" if row["id"] == "u5" else row["ltv"]} for row in PEOPLE]
        if kind == "csv":
            (place / "next.csv").write_text(csv_of(rows))
            return place / "next.csv"
        return rows

    return source


@pytest.mark.parametrize("kind", ["csv", "objects"])
@pytest.mark.parametrize("mode", ["full", "changed only", "changes"])
def test_P11_a_value_that_does_not_fit_is_a_reject_and_no_type_changes(
    path: Path, tmp_path: Path, kind: str, mode: str
) -> None:
    source = one_bad(kind)(tmp_path)
    reason = {"the value of 'ltv' does not fit the column's type, integer": 1}
    if mode == "changes":
        report: Any = refresh_store(path, [RefreshSpec("Users", source)])
    else:
        report = refresh_from_sources(path, [CollectionSpec("Users", source)], changed_only=mode != "full")
    assert report.collections[0].rejected == reason
    found = records(path)
    assert {type(record["ltv"]) for record in found.values()} == {int}
    assert ("u5" in found) == (mode != "full")
    with LocalStore(path) as store:
        assert {column.name: column.type for column in store.collection("Users").columns}["ltv"] == "integer"


def test_a_column_without_any_value_takes_whatever_comes(tmp_path: Path) -> None:
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "1", "n": None}])])
    report = refresh_store(tmp_path / "s", [RefreshSpec("Users", [{"id": "1", "n": 5}])])
    assert not report.collections[0].rejected


def test_P11_a_parquet_column_of_another_type_is_refused(tmp_path: Path) -> None:
    for name, kind in (("a", "BIGINT"), ("b", "VARCHAR")):
        duckdb.execute(f"COPY (SELECT '1' AS id, 5::{kind} AS n) TO '{tmp_path}/{name}.parquet'")
    build_store(tmp_path / "s", [CollectionSpec("Users", tmp_path / "a.parquet")])
    with pytest.raises(StoreError, match="the column 'n' is text, and integer in the collection"):
        build_store(tmp_path / "s", [CollectionSpec("Users", tmp_path / "b.parquet")])


@given(st.from_regex(r"-?[0-9]{1,17}(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?", fullmatch=True))
def test_what_becomes_a_number_comes_out_as_the_same_text(text: str) -> None:
    if re.fullmatch(_INFERRED["integer"], text):
        assert str(int(text)) == text
    elif re.fullmatch(_INFERRED["number"], text):
        assert repr(float(text)) == text


def test_codes_and_words_of_other_languages_stay_text(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("id,code,version,flag\n1,12E5,1.10,True\n")
    build_store(tmp_path / "s", [CollectionSpec("U", tmp_path / "u.csv")])
    with LocalStore(tmp_path / "s") as store:
        found = store.get("U", "1")
    assert found is not None
    assert found.attributes == {"id": "1", "code": "12E5", "version": "1.10", "flag": "True"}


def test_nothing_is_read_from_the_names_of_directories(tmp_path: Path) -> None:
    place = tmp_path / "tier=gold" / "id=7"
    place.mkdir(parents=True)
    (place / "u.csv").write_text("id,tier\n1,silver\n")
    duckdb.execute(f"COPY (SELECT '1' AS id, 'silver' AS tier) TO '{place}/u.parquet'")
    for name in ("u.csv", "u.parquet"):
        build_store(tmp_path / name, [CollectionSpec("U", place / name)])
        with LocalStore(tmp_path / name) as store:
            found = store.get("U", "1")
        assert found is not None
        assert found.attributes == {"id": "1", "tier": "silver"}


@pytest.mark.parametrize("directory", ["~", "s3:", "*", "[a]", "$HOME"])
def test_the_file_that_was_checked_is_the_one_that_is_read(
    tmp_path: Path, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB interprets some file names differently from the system."""
    for place in ("home", "a", directory):
        (tmp_path / place).mkdir()
        (tmp_path / place / "u.csv").write_text(f"id,from\nu1,{place}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    build_store(tmp_path / "built", [CollectionSpec("U", Path(directory, "u.csv"))])
    with LocalStore(tmp_path / "built") as store:
        record = store.get("U", "u1")
        assert record is not None
        assert record.attributes["from"] == directory


def test_names_that_differ_in_case_are_kept(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    nested = pa.array([{"a": 1, "b": [1, 2]}])
    names = ["id", "Email", "nested", "email", "EMAIL"]
    columns = [pa.array(["1"]), pa.array(["a"]), nested, pa.array(["b"]), pa.array(["c"])]
    pq.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "u.parquet")
    (tmp_path / "u.csv").write_text("id,Email,nested,email,EMAIL\n1,a,x,b,c\n")
    for name in ("u.parquet", "u.csv"):
        build_store(tmp_path / f"s-{name}", [CollectionSpec("U", tmp_path / name)])
        with LocalStore(tmp_path / f"s-{name}") as store:
            found = store.get("U", "1")
        assert found is not None
        assert list(found.attributes) == names
        assert [found.attributes[each] for each in ("Email", "email", "EMAIL")] == ["a", "b", "c"]


def test_E5_an_input_that_changes_while_it_is_read_ends_the_build(tmp_path: Path) -> None:
    source = tmp_path / "u.jsonl"
    source.write_text("".join(f'{{"id": "u{n}"}}\n' for n in range(3_000)))

    def change(_: object) -> None:
        os.utime(source, ns=(1, 1))

    with pytest.raises(StoreError, match="changed while it was read"):
        build_store(tmp_path / "s", [CollectionSpec("U", source)], progress=change)
    assert not (tmp_path / "s" / "CURRENT").exists()


def _swap_two_columns(source: Path) -> None:
    text = source.read_text()
    source.write_text(text.replace("mail,phone", "phone,mail", 1))


def _reverse(source: Path) -> None:
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join([lines[0], *reversed(lines[1:])]))


def _one_byte_in_the_middle(source: Path) -> None:
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    source.write_bytes(content)


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("change", [_swap_two_columns, _reverse, _one_byte_in_the_middle, Path.unlink])
@pytest.mark.parametrize("work", ["build", "refresh", "changes"])
def test_E5_a_table_that_is_read_twice_is_one_and_the_same(
    tmp_path: Path, work: str, change: Callable[[Path], None], restored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E5: between two scans, with as many rows as before, and with the time of the file put back."""
    monkeypatch.setattr(file_identity, "_END", 8)  # as in a large file, the ends do not change
    source = tmp_path / "u.csv"
    source.write_text("id,mail,phone\n" + "".join(f"u{n:04},m{n:04},p{n:04}\n" for n in range(3_000)))
    build_store(tmp_path / "s", [CollectionSpec("U", source)])
    generation, facts = LocalStore(tmp_path / "s").generation, source.stat()

    changed: list[bool] = []

    def once(_: object) -> None:
        if not changed:
            changed.append(True)
            change(source)
            if restored and source.exists():
                os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def run() -> None:
        if work == "changes":
            refresh_store(tmp_path / "s", [RefreshSpec("U", source)], progress=once)
        else:
            specs = [CollectionSpec("U", source)]
            refresh_from_sources(tmp_path / "s", specs, changed_only=work == "refresh", progress=once)

    with pytest.raises(StoreError, match=r"changed while it was read|was removed"):
        run()
    assert LocalStore(tmp_path / "s").generation == generation


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_pipe_is_read_once(tmp_path: Path, kind: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    content = {"csv": "id\nu1\nu2\n", "jsonl": '{"id": "u1"}\n{"id": "u2"}\n'}[kind]
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(content))
    writer.start()
    report = build_store(tmp_path / "s", [CollectionSpec("U", tmp_path / "pipe", format=kind)])
    writer.join()
    assert report.collections[0].stored == 2


@pytest.mark.long
def test_a_file_of_many_columns_is_read(tmp_path: Path) -> None:
    names = ["id", *(f"c{n}" for n in range(1_999))]
    (tmp_path / "u.csv").write_text(f"{','.join(names)}\n{','.join(['1'] * 2_000)}\n")
    report = build_store(tmp_path / "s", [CollectionSpec("U", tmp_path / "u.csv")])
    assert len(report.collections[0].collection.columns) == 2_000


@pytest.mark.parametrize("what", ["the source", "notes", "a directory", "a pipe", "another output", "keys"])
def test_E6_no_file_is_destroyed_for_rejected_rows(tmp_path: Path, what: str) -> None:
    source, notes, other = tmp_path / "u.csv", tmp_path / "notes.txt", tmp_path / "other.csv"
    source.write_text("id\n1\n")
    other.write_text("id\n1\n")
    notes.write_text("mine\n")
    os.mkfifo(tmp_path / "pipe")
    paths = {"the source": source, "notes": notes, "a directory": tmp_path, "a pipe": tmp_path / "pipe"}
    rejects = paths.get(what, tmp_path / "bad.jsonl")
    specs = [CollectionSpec("U", source, rejects=rejects)]
    if what == "another output":
        specs.append(CollectionSpec("V", other, rejects=rejects))
    build_store(tmp_path / "s", [CollectionSpec("U", source)])
    with pytest.raises(ConfigurationError, match=r"the file for rejected rows of [UV]"):  # noqa: PT012  # two ways
        if what == "keys":
            refresh_store(tmp_path / "s", [RefreshSpec("U", source, deleted=other, rejects=other)])
        build_store(tmp_path / "s", specs)
    assert notes.read_text() == "mine\n"
    assert source.read_text() == other.read_text() == "id\n1\n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "crm.db")) as connection:
        connection.execute("CREATE TABLE users (id TEXT)")
        connection.execute("INSERT INTO users VALUES ('1')")
        connection.commit()
    return tmp_path / "crm.db"


@pytest.mark.parametrize("statement", ["DROP TABLE users", "DELETE FROM users RETURNING id", "CREATE TABLE t (n)"])
def test_E6_a_query_only_reads(database: Path, tmp_path: Path, statement: str) -> None:
    with pytest.raises((StoreError, ConfigurationError), match=r"it must (only read|be a SELECT)"):
        build_store(tmp_path / "s", [CollectionSpec("U", SqlQuery(f"sqlite:///{database}", statement))])
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (1,)


def test_E6_a_mistyped_database_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the SQLite database does not exist"):
        build_store(tmp_path / "s", [CollectionSpec("U", SqlQuery(f"sqlite:///{tmp_path}/cmr.db", "SELECT 1 AS id"))])
    assert not (tmp_path / "cmr.db").exists()


def test_a_record_with_a_number_that_json_lacks_is_refused(path: Path) -> None:
    for number in (float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match="a number is infinite"):
            put_record(path, "Users", "u1", {"ltv": number})


def test_the_columns_of_a_collection_are_bounded(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="more than 2,000 columns"):
        put_record(path, "Users", "u1", {f"c{n}": 1 for n in range(2_000)})


def test_keys_to_delete_that_match_nothing_are_counted(path: Path) -> None:
    found = refresh_store(path, [RefreshSpec("Users", deleted=['"u1"', "u2 ", "u3"])]).collections[0]
    assert (found.deleted, found.asked_deletes, found.unmatched_deletes) == (1, 3, 2)


def test_P10_a_manifest_with_a_flipped_bit_is_refused(path: Path) -> None:
    content = (path / "CURRENT").read_text()
    (path / "CURRENT").write_text(content.replace('"rows": 100', '"rows": 101'))
    with pytest.raises(StoreError, match="the checksum of its manifest does not match"):
        LocalStore(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,a\r\n1,x\ry\r\n", "u.csv, line 2: a carriage return in a field that is not quoted"),
        (b"id,a\r1,x\r2,y\r", "its lines end in CR alone; convert them first"),
        (b'id,a\n1, "x"\n', "u.csv, line 2: a space before a quoted field"),
        (b'id,a\n1,"x" \n', "u.csv, line 2: a quoted field is not closed properly"),
        (b"id,a\n1,x\0y\n", "u.csv, line 2: a NUL byte"),
        (b'id,a\n"1\0","x\ny"\n', "u.csv, line 2: a NUL byte"),
        (b"id,a\n1,x,\n", "u.csv, line 2: 3 fields, but the header line names 2"),
        (b"id a\n1 x\n", "has one column, 'id a'; if its fields are separated by spaces, pass delimiter=' '"),
        (b"sep=;\nid;a\n1;x\n", "line 1: a line for spreadsheets"),
    ],
)
def test_E9_the_cause_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "u.csv").write_bytes(content)
    with pytest.raises(StoreError, match=message):
        build_store(tmp_path / "s", [CollectionSpec("U", tmp_path / "u.csv")])
