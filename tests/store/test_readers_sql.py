"""Collections from SQL queries: SQLite, and PostgreSQL where its programs are installed."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import ConfigurationError, MissingExtraError, StoreError
from profile_enrich.store import CollectionReport, CollectionSpec, LocalStore, SqlQuery, build_store
from profile_enrich.store.inputs.select_reader import open_reader

SECRET = "planted-password"


def load(tmp_path: Path, url: str, query: str, **options: Any) -> tuple[CollectionReport, dict[str, dict[str, Any]]]:
    spec = CollectionSpec("Users", SqlQuery(url, query), **options)
    report = build_store(tmp_path / "store", [spec]).collections[0]
    with LocalStore(tmp_path / "store") as store:
        return report, {record.id: record.attributes for record in store.search("Users", {}, limit=1000)}


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    with contextlib.closing(sqlite3.connect(tmp_path / "crm.db")) as database:
        database.execute("CREATE TABLE users (id INTEGER, name TEXT, score REAL, photo BLOB)")
        rows = [(1, "50% ad:hoc", 0.5, b"\x00"), (2, None, None, None), (None, "nobody", 1.0, None)]
        database.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", rows)
        database.commit()
    return f"sqlite:///{tmp_path / 'crm.db'}"


def test_a_query_is_handed_over_as_it_is(tmp_path: Path, sqlite: str) -> None:
    report, records = load(tmp_path, sqlite, "SELECT * FROM users WHERE name LIKE '50% ad:%' OR id = 2 OR id IS NULL")
    assert records == {
        "1": {"id": 1, "name": "50% ad:hoc", "score": 0.5, "photo": "AA=="},
        "2": {"id": 2, "name": None, "score": None, "photo": None},
    }
    assert report.rejected == {"the key is missing or empty": 1}
    assert {column.name: column.type for column in report.collection.columns}["score"] == "number"


def test_fields_and_filters_work_as_with_a_file(tmp_path: Path, sqlite: str) -> None:
    report, records = load(tmp_path, sqlite, "SELECT * FROM users", fields=["name"], filterable=["name"])
    assert records["1"] == {"id": 1, "name": "50% ad:hoc"}
    assert report.collection.filterable == ("name",)


def test_a_query_without_rows_still_has_its_columns(tmp_path: Path, sqlite: str) -> None:
    report, records = load(tmp_path, sqlite, "SELECT id, name FROM users WHERE id = 7")
    assert records == {}
    assert [column.name for column in report.collection.columns] == ["id", "name"]


def test_the_result_is_read_bit_by_bit(sqlite: str) -> None:
    """Rows are delivered from an endless query."""
    query = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"
    reader = open_reader(CollectionSpec("N", SqlQuery(sqlite, query)))
    try:
        assert [values[0] for _, values in itertools.islice(reader.rows(), 5000)] == list(range(1, 5001))
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("SELECT * FROM nowhere", StoreError, "refused the query: no such table: nowhere"),
        ("SELECT absent FROM users", StoreError, "refused the query: no such column: absent"),
        (f"SELEC '{SECRET}'", StoreError, "a syntax error"),
        ("SELECT id, id FROM users", StoreError, "two columns named 'id'; rename one with AS"),
        ("SELECT name FROM users", StoreError, r"no column 'id' \(key\); its columns are: name"),
        ("DELETE FROM users", StoreError, "it must only read"),
        ("  ", ConfigurationError, "the query is empty"),
        (f"SELECT json_extract('{SECRET}', '$')", StoreError, r"the database refused the query \(|failed after row 0"),
    ],
)
def test_what_a_database_refuses_is_said_without_values(
    tmp_path: Path, sqlite: str, query: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, sqlite, query, key="id")
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    with contextlib.closing(sqlite3.connect(sqlite.removeprefix("sqlite:///"))) as database:
        assert database.execute("SELECT count(*) FROM users").fetchone() == (3,)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        (f"{SECRET}", ConfigurationError, "the database's URL cannot be read; it looks like postgresql"),
        (f"nosuch://u:{SECRET}@h/d", ConfigurationError, "does not know the kind of database"),
        (f"mssql+pymssql://u:{SECRET}@h/d", ConfigurationError, "the database's driver pymssql is not installed"),
        (f"sqlite:////nowhere/{SECRET}.db", ConfigurationError, "the SQLite database does not exist"),
        ("env:NO_SUCH_VARIABLE", ConfigurationError, "the environment variable NO_SUCH_VARIABLE is not set"),
        ("", ConfigurationError, "the database's URL is missing"),
    ],
)
def test_a_wrong_url_is_said_without_showing_it(tmp_path: Path, url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, url, "SELECT 1 AS id")
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    assert SECRET not in repr(SqlQuery(url, "SELECT 1"))


def test_a_url_can_come_from_the_environment(tmp_path: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM", sqlite)
    assert set(load(tmp_path, "env:CRM", "SELECT * FROM users")[1]) == {"1", "2"}


def test_types_are_the_querys_own(tmp_path: Path, sqlite: str) -> None:
    with pytest.raises(ConfigurationError, match="cast in the query"):
        load(tmp_path, sqlite, "SELECT * FROM users", types={"name": "text"})


def test_without_the_extra_it_says_which(tmp_path: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sqlalchemy", "sqlalchemy.exc"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[sql\]") as caught:
        load(tmp_path, sqlite, "SELECT * FROM users")
    assert caught.value.__context__ is None


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
INITDB = shutil.which("initdb") or (None if PROGRAMS is None else str(PROGRAMS))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a server of this module's own, with a user who may read one table."""
    if INITDB is None:
        pytest.skip("PostgreSQL's programs are not installed (Debian: postgresql)")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="profile-enrich-test-"))
    try:
        if user is not None:
            shutil.chown(directory, user)
        name = user or getpass.getuser()
        data, port = directory / "data", _free_port()
        secret = directory / "secret"
        secret.write_text(SECRET)
        command = [INITDB, "-D", str(data), "-U", name, "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        done = subprocess.run([*command, "-E", "UTF8"], user=user, cwd=directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        control = [str(Path(INITDB).with_name("pg_ctl")), "-D", str(data)]
        options = f"-p {port} -k {directory} -h 127.0.0.1 -F"
        subprocess.run(
            [*control, "-o", options, "-w", "-l", str(directory / "log"), "start"],
            user=user,
            cwd=directory,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            url = f"postgresql+psycopg://{name}:{SECRET}@127.0.0.1:{port}/postgres"
            engine = sqlalchemy.create_engine(url)
            with engine.begin() as connection:
                connection.exec_driver_sql(
                    "CREATE TABLE users AS SELECT i AS id, 'u' || i AS name, (i * 1.50)::numeric(12, 2) AS spent,"
                    " mod(i, 2) = 0 AS active, timestamptz '2024-02-29 12:30:00+00' AS seen, ARRAY[i, i + 1] AS pair,"
                    """ jsonb_build_object('a', i) AS doc, inet '10.0.0.1' AS address, numrange(1, 2) AS span,"""
                    " CASE WHEN i = 2 THEN NULL ELSE gen_random_uuid() END AS token FROM generate_series(1, 5000) i",
                )
                connection.exec_driver_sql("CREATE TABLE hidden (id int)")
                connection.exec_driver_sql(f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
                connection.exec_driver_sql("GRANT SELECT ON users TO reader")
            engine.dispose()
            yield f"postgresql+psycopg://reader:{SECRET}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], user=user, cwd=directory, stdout=subprocess.DEVNULL)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_E9_json_of_the_database_alone_is_a_reject(tmp_path: Path, postgres: str) -> None:
    """A `json` column keeps a name that occurs twice, and `1e400`; the driver's decoder loses one, and overflows."""
    rows = """VALUES ('a', '{"n": 1.50}'), ('b', '{"n": 1e400}'), ('c', '{"n": 1, "n": 2}')"""
    query = SqlQuery(postgres, f"SELECT id, doc::json FROM ({rows}) AS t(id, doc)")
    rejects = tmp_path / "rejects.jsonl"
    report = build_store(tmp_path / "s", [CollectionSpec("U", query, rejects=rejects)]).collections[0]
    assert (report.collection.rows, sum(report.rejected.values())) == (1, 2)
    reasons = [json.loads(line)["reason"] for line in rejects.read_text().splitlines()]
    assert reasons == [
        "a JSON value cannot be kept: a number is too large",
        "a JSON value cannot be kept: a name occurs twice in one object",
    ]
    with LocalStore(tmp_path / "s") as store:
        assert b'{"n":1.50}' in (store.get_payload("U", "a", "census") or b"")


@pytest.mark.long
def test_postgresql_is_read_with_its_own_types(tmp_path: Path, postgres: str) -> None:
    report, records = load(tmp_path, postgres, "SELECT * FROM users WHERE name LIKE 'u%' ORDER BY id")
    assert report.stored == 5000
    record = records["2"]
    assert {name: record[name] for name in ("id", "name", "spent", "active", "pair", "doc", "token")} == {
        "id": 2,
        "name": "u2",
        "spent": 3.0,
        "active": True,
        "pair": [2, 3],
        "doc": {"a": 2},
        "token": None,
    }
    assert record["seen"].startswith("2024-02-29 ")
    assert record["address"] == "10.0.0.1"
    assert "1" in record["span"]
    kinds = {column.name: column.type for column in report.collection.columns}
    assert (kinds["id"], kinds["spent"], kinds["active"], kinds["doc"]) == ("integer", "number", "boolean", "json")


def test_E9_times_that_python_does_not_have_are_the_databases_text(tmp_path: Path, postgres: str) -> None:
    """E9: one `infinity` among a million rows does not end the build."""
    query = (
        "SELECT i AS id, CASE i WHEN 2 THEN date 'infinity' WHEN 3 THEN date '0044-03-15 BC' WHEN 4 THEN date"
        " '15000-01-01' ELSE date '2024-02-29' END AS day, CASE i WHEN 2 THEN timestamptz '-infinity' ELSE now() END"
        " AS seen, time '24:00' AS clock, ARRAY[timestamp 'infinity'] AS nested, daterange('0001-01-01 BC', 'infinity')"
        " AS span FROM generate_series(1, 4) i"
    )
    report, records = load(tmp_path, postgres, query)
    assert (report.stored, dict(report.rejected)) == (4, {})
    days = [records[str(each)]["day"] for each in range(1, 5)]
    assert days == ["2024-02-29", "infinity", "0044-03-15 BC", "15000-01-01"]
    assert records["2"]["seen"] == "-infinity"
    assert records["1"]["clock"] == "24:00:00"
    assert "infinity" in str(records["1"]["nested"])


def test_E9_a_value_that_a_driver_cannot_read_is_our_error(
    tmp_path: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E9: drivers raise their own and Python's exceptions while rows are read."""
    from sqlalchemy import CursorResult

    def fail(*_: object) -> None:
        raise OverflowError(SECRET)

    monkeypatch.setattr(CursorResult, "partitions", fail)
    with pytest.raises(StoreError, match=r"cannot read a value after row 0 .*cast such columns") as caught:
        load(tmp_path, sqlite, "SELECT * FROM users")
    assert SECRET not in str(caught.value)


def test_postgresql_is_read_through_a_cursor_of_the_servers(postgres: str) -> None:
    """The first row is delivered although the last one could never be computed in time."""
    query = "SELECT generate_series(1, 100000000) AS id"
    reader = open_reader(CollectionSpec("N", SqlQuery(postgres, query)))
    try:
        assert next(reader.rows())[1] == [1]
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT * FROM nowhere", 'refused the query: relation "nowhere" does not exist'),
        ("SELECT nothing FROM users", 'refused the query: column "nothing" does not exist'),
        (f"SELEC '{SECRET}'", "a syntax error in it"),
        ("SELECT * FROM hidden", "its user may not read that table"),
        ("CREATE TABLE mine AS SELECT 1 AS id", "or it is no SELECT statement"),
        (f"SELECT '{SECRET}'::int AS id", "22P02"),
        ("SELECT 10 / (3000 - id) AS n, id FROM users", r"failed after row [0-9,]+|22012"),
    ],
)
def test_what_postgresql_refuses_is_said_without_values(
    tmp_path: Path, postgres: str, query: str, message: str
) -> None:
    with pytest.raises((StoreError, ConfigurationError), match=message) as caught:
        load(tmp_path, postgres, query)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_postgresql_with_a_wrong_password_or_port(tmp_path: Path, postgres: str) -> None:
    for url in (postgres.replace(SECRET, SECRET[::-1]), postgres.replace("@127.0.0.1:", "@127.0.0.1:1")):
        with pytest.raises((StoreError, ConfigurationError), match=r"cannot be reached|refused the user|URL") as caught:
            load(tmp_path, url, "SELECT 1 AS id")
        assert SECRET[::-1] not in str(caught.value)
        assert caught.value.__context__ is None
