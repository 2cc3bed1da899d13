"""The console's own SQLite file: users, sessions and the audit log. No attribute of a profile is ever in it."""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL, must_change INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    token BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE, csrf TEXT NOT NULL,
    started_at REAL NOT NULL, seen_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit_log (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL, action TEXT NOT NULL,
    kind TEXT NOT NULL, subject TEXT NOT NULL, outcome TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS audit_log_of_a_subject ON audit_log (subject, number);
CREATE INDEX IF NOT EXISTS audit_log_by_time ON audit_log (at);
"""


def open_database(directory: Path) -> sqlite3.Connection:
    """Open the file, or create it. Only its owner can read it.

    The connection is used by the event loop's thread: a statement takes far less than a millisecond, and what is noted
    is on the disk before the page that it is about is sent.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "console.db"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    database.executescript(SCHEMA)
    return database


def subject_secret(directory: Path) -> bytes:
    """Return the key for hashing ids. It is stored beside the database, so a copy of the database reveals no id."""
    path = directory / "subjects.key"
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        secret = path.read_bytes()
        if len(secret) < 32:
            raise ValueError(f"{path} is damaged; restore it, or remove it and start a new audit log") from None
        return secret
    secret = secrets.token_bytes(32)
    with os.fdopen(file, "wb") as opened:
        opened.write(secret)
    return secret
