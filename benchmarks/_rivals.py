"""The same rows in other databases: a plain SQLite table with an index for each filtered column, DuckDB, PostgreSQL."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "Ask",
    "Rival",
    "free_port",
    "load_postgres",
    "load_sqlite",
    "postgres_is_there",
    "postgres_server",
    "rivals",
]

Ask = Callable[[Mapping[str, str]], object]
"""Asks for one page of the rows that have these values."""

Rival = Callable[[Path, Path, Sequence[str], Sequence[str], int], Any]
"""A context manager that loads a CSV file: file, folder, columns, filtered columns, rows a page. Gives an `Ask`."""


def rivals() -> dict[str, Rival]:
    """Those that are on this machine."""
    found: dict[str, Rival] = {"SQLite": _sqlite, "DuckDB": _duckdb}
    if postgres_is_there():
        found["PostgreSQL"] = _postgres
    return found


def postgres_is_there() -> bool:
    return _initdb() is not None and importlib.util.find_spec("psycopg") is not None


def load_sqlite(csv: Path, file: Path, names: Sequence[str], filtered: Sequence[str]) -> None:
    """Makes a file with the table `p` (by `id`) of these columns and the payload, and an index for each filter."""
    import duckdb

    with duckdb.connect() as source:
        rows = source.execute(
            f"SELECT {', '.join(names)}, to_json(p)::VARCHAR FROM read_csv('{csv}', all_varchar=true) p"
        )
        writer = sqlite3.connect(file, isolation_level=None)
        writer.execute("PRAGMA journal_mode = OFF")
        writer.execute("BEGIN")
        columns = ", ".join(f"{name} TEXT" for name in names if name != "id")
        writer.execute(f"CREATE TABLE p (docid INTEGER PRIMARY KEY, id TEXT UNIQUE, {columns}, payload TEXT)")
        marks = ", ".join("?" * (len(names) + 1))
        while batch := rows.fetchmany(4096):
            writer.executemany(f"INSERT INTO p VALUES (NULL, {marks})", batch)
    for name in filtered:
        writer.execute(f"CREATE INDEX by_{name} ON p ({name})")
    writer.execute("COMMIT")
    writer.execute("ANALYZE")
    writer.close()


@contextmanager
def _sqlite(csv: Path, folder: Path, names: Sequence[str], filtered: Sequence[str], limit: int) -> Generator[Ask]:
    file = folder / "plain.db"
    load_sqlite(csv, file, names, filtered)
    connection = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)
    connection.execute(f"PRAGMA mmap_size = {1 << 40}")

    def ask(filters: Mapping[str, str]) -> list[Any]:
        return connection.execute(_query(filters, "?", "1", limit), tuple(filters.values())).fetchall()

    yield ask
    connection.close()
    file.unlink()


@contextmanager
def _duckdb(csv: Path, folder: Path, names: Sequence[str], filtered: Sequence[str], limit: int) -> Generator[Ask]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE p AS SELECT row_number() OVER () AS docid, *, to_json(q)::VARCHAR AS payload"
            f" FROM read_csv('{csv}', all_varchar=true) q"
        )

        def ask(filters: Mapping[str, str]) -> list[Any]:
            return connection.execute(_query(filters, "?", "true", limit), list(filters.values())).fetchall()

        yield ask


def load_postgres(url: str, csv: Path, names: Sequence[str], filtered: Sequence[str]) -> None:
    """Makes the table `p` of these columns and the payload, with an index for each filter and for `id`."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE UNLOGGED TABLE raw ({', '.join(f'{name} text' for name in names)})")
        into = "COPY raw FROM STDIN (FORMAT csv, HEADER)"
        with connection.cursor() as cursor, cursor.copy(into) as copy, csv.open("rb") as file:
            while block := file.read(1 << 20):
                copy.write(block)
        connection.execute(
            "CREATE UNLOGGED TABLE p AS SELECT row_number() OVER () AS docid, r.*, row_to_json(r)::text AS payload"
            " FROM raw r"
        )
        connection.execute("ALTER TABLE p ADD PRIMARY KEY (docid)")
        for name in {"id", *filtered}:
            connection.execute(f"CREATE INDEX ON p ({name})")
        connection.execute("DROP TABLE raw")
        connection.execute("VACUUM ANALYZE p")


@contextmanager
def _postgres(csv: Path, folder: Path, names: Sequence[str], filtered: Sequence[str], limit: int) -> Generator[Ask]:
    import psycopg

    with postgres_server() as url, psycopg.connect(url, autocommit=True) as connection:
        load_postgres(url, csv, names, filtered)

        def ask(filters: Mapping[str, str]) -> list[Any]:
            # Prepared by the driver from the sixth time on, as in an application.
            return connection.execute(_query(filters, "%s", "true", limit), tuple(filters.values())).fetchall()

        yield ask


@contextmanager
def postgres_server() -> Generator[str]:
    """A server of its own on 127.0.0.1, with room to keep all in memory; the URL of it."""
    initdb = _initdb()
    assert initdb is not None
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    name = user or getpass.getuser()
    with tempfile.TemporaryDirectory(prefix="profile-enrich-bench-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        how: dict[str, Any] = {"user": user, "cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([initdb, "-D", data, "-U", name, "-A", "trust", "--no-sync", "-E", "UTF8"], **how)
        port = free_port()
        options = f"-p {port} -k {folder} -h 127.0.0.1 -F -c shared_buffers=2GB -c work_mem=64MB"
        control = [str(Path(initdb).with_name("pg_ctl")), "-D", data]
        subprocess.run([*control, "-o", options, "-w", "-l", f"{folder}/log", "start"], **how)
        try:
            yield f"postgresql://{name}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **how)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _initdb() -> str | None:
    there = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    return shutil.which("initdb") or (None if there is None else str(there))


def _query(filters: Mapping[str, str], mark: str, all_rows: str, limit: int) -> str:
    where = " AND ".join(f"{name} = {mark}" for name in filters) or all_rows
    return f"SELECT payload FROM p WHERE {where} ORDER BY docid LIMIT {limit + 1}"
