"""Sessions of signed-in operators. The browser has a random token, the database its hash."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

IDLE_SECONDS = 30 * 60.0
"""Seconds without use after which a session ends."""
LONGEST_SECONDS = 10 * 3600.0
"""Seconds after which a session ends even if it is used."""
_NOTED_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Session:
    """A valid session. `id` is the hash of the token; only the browser has the token."""

    id: bytes
    user: str
    role: str
    csrf: str
    must_change: bool


class Sessions:
    """The table of sessions."""

    def __init__(self, database: sqlite3.Connection, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def start(self, user: str) -> str:
        """Start a session, remove expired ones, and return the token for the cookie."""
        now = self._clock()
        self._database.execute(
            "DELETE FROM sessions WHERE seen_at < ? OR started_at < ?", (now - IDLE_SECONDS, now - LONGEST_SECONDS)
        )
        token = secrets.token_urlsafe(32)
        row = (_hash(token), user, secrets.token_urlsafe(24), now, now)
        self._database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row)
        return token

    def read(self, token: str | None) -> Session | None:
        """Return the session of a token, with the user's current role."""
        if not token:
            return None
        now, id = self._clock(), _hash(token)
        row = self._database.execute(
            "SELECT user, role, csrf, must_change, seen_at FROM sessions JOIN users ON user = name"
            " WHERE token = ? AND seen_at > ? AND started_at > ?",
            (id, now - IDLE_SECONDS, now - LONGEST_SECONDS),
        ).fetchone()
        if row is None:
            return None
        user, role, csrf, must_change, seen_at = row
        if now - seen_at > _NOTED_EVERY:
            self._database.execute("UPDATE sessions SET seen_at = ? WHERE token = ?", (now, id))
        return Session(id, user, role, csrf, bool(must_change))

    def end(self, session: Session) -> None:
        """End a session."""
        self._database.execute("DELETE FROM sessions WHERE token = ?", (session.id,))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
