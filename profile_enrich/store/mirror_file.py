"""The SQLite file of a mirror: its tables, one connection a thread, and its errors."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, cast

from .._utils.files import private_opener
from .._utils.fork import reset_after_fork
from .._utils.output_paths import OutputPath, check_output_paths
from ..errors import ConfigurationError, StoreBusy, StoreError
from .profile_store import WRITE_WAIT

__all__ = ["MirrorFile"]

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), secret BLOB, generation INTEGER);
CREATE TABLE IF NOT EXISTS collection (id INTEGER PRIMARY KEY, index_id TEXT UNIQUE, name TEXT UNIQUE, key TEXT,
    columns TEXT, filterable TEXT, generation INTEGER, created_at REAL, updated_at REAL);
CREATE TABLE IF NOT EXISTS record (place INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL,
    key TEXT NOT NULL, record TEXT, fetched_at REAL NOT NULL, generation INTEGER NOT NULL, UNIQUE (collection, key));
CREATE INDEX IF NOT EXISTS record_generation ON record (collection, generation);
CREATE TABLE IF NOT EXISTS value (collection INTEGER, name TEXT, value TEXT, place INTEGER,
    PRIMARY KEY (collection, name, value, place)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS value_place ON value (place);
"""


class MirrorFile:
    """Opens the file, and makes it when it is not there. Thread-safe and fork-safe; readers never wait.

    Args:
        path: the file.

    Attributes:
        secret: the key that signs page tokens.

    Raises:
        ConfigurationError: it is a database of another program.
        StoreError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.after_fork()
        reset_after_fork(self)
        check_output_paths([OutputPath(path, "the mirror", kind="database")])
        self._refuse_another_database()
        with contextlib.suppress(OSError):
            os.close(private_opener(str(path), os.O_CREAT | os.O_WRONLY))
        try:
            with self.writing() as run:
                for statement in _TABLES.split(";\n"):
                    run(statement)
                run("INSERT OR IGNORE INTO meta VALUES (1, ?, 0)", (secrets.token_bytes(32),))
            self.secret = bytes(self.rows("SELECT secret FROM meta")[0][0])
        except BaseException:
            self.close()
            raise

    def _refuse_another_database(self) -> None:
        """Refuse a SQLite file of another program, whose tables would get company."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        tables = {"meta"}
        url = f"{self._path.absolute().as_uri()}?mode=ro"
        with (
            contextlib.suppress(sqlite3.Error),  # what is no database is reported when it is opened
            contextlib.closing(sqlite3.connect(url, uri=True)) as found,
        ):
            tables = {row[0] for row in found.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if tables and "meta" not in tables:
            raise ConfigurationError(f"the mirror {self._path} is another database; give a new file")

    def after_fork(self) -> None:
        """Forget the parent's connections: none crosses a fork."""
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []

    def close(self) -> None:
        """Close every connection. The next use opens them again."""
        connections, self._open = self._open, []
        self._local = threading.local()
        for connection in connections:
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=WRITE_WAIT)
            try:
                found.execute("PRAGMA journal_mode = WAL")
                found.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                found.close()
                raise
            self._local.connection = found
            self._open.append(found)
        return found

    def rows(self, statement: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            StoreError: the file cannot be read.
        """
        problem = ""
        try:
            return cast("list[tuple[Any, ...]]", self._connection().execute(statement, tuple(values)).fetchall())
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            problem = getattr(error, "sqlite_errorname", type(error).__name__)
        raise StoreError(f"the mirror {self._path} cannot be read ({problem})")

    @contextlib.contextmanager
    def writing(self, wait: float = WRITE_WAIT) -> Generator[Callable[..., sqlite3.Cursor]]:
        """Run statements in one transaction, which commits at the end.

        Raises:
            StoreBusy: another writer held the file for longer than `wait` seconds.
            StoreError: the file cannot be written.
        """
        problem = ""
        try:
            connection = self._connection()
            connection.execute(f"PRAGMA busy_timeout = {max(1, round(wait * 1000))}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection.execute
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            problem = getattr(error, "sqlite_errorname", type(error).__name__)
        if problem in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            raise StoreBusy(f"another process writes the mirror {self._path}; try again")
        if problem:
            raise StoreError(f"the mirror {self._path} cannot be written ({problem})")
