"""The audit log: who viewed whom, when, and the result. Ids are hashed with a secret key; values are never logged."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

ACTIONS = ("searched", "listed", "viewed", "panel", "forgot", "refused", "signed in", "signed out", "new password")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit log.

    Args:
        number: counts up.
        at: when, in UTC.
        who: the user's name.
        role: the role that they had then.
        action: one of `ACTIONS`.
        kind: what was searched by: `id` or an attribute's name.
        subject: the hash of kind and value; lines with the same one are about the same person.
        outcome: `found`, `not found`, a number of profiles, or an error's code.
    """

    number: int
    at: str
    who: str
    role: str
    action: str
    kind: str
    subject: str
    outcome: str


class AuditLog:
    """The table of the audit log.

    Args:
        database: where it is.
        secret: the key of the hashes.
        clock: seconds since the epoch.
    """

    def __init__(self, database: sqlite3.Connection, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock

    def subject(self, kind: str, value: str) -> str:
        """Return the pseudonym of an id or value: HMAC-SHA256, shortened to 128 bits, in hexadecimal."""
        text = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]

    def note(self, who: str, role: str, action: str, *subjects: str, kind: str = "", outcome: str = "") -> None:
        """Write a line for each subject, or one without. They are on the disk when this returns.

        Raises:
            sqlite3.Error: they could not be written; then nothing may be shown.
        """
        now = self._clock()
        rows = [(now, who, role, action, kind, subject, outcome) for subject in subjects or ("",)]
        with self._database:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT INTO audit_log (at, who, role, action, kind, subject, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def of(self, subject: str, limit: int = 20) -> list[Entry]:
        """Return the latest lines about one subject, newest first."""
        return self._entries("WHERE subject = ?", (subject, limit))

    def latest(
        self, limit: int = 100, before: int = 2**62, *, who: str = "", action: str = "", subject: str = ""
    ) -> list[Entry]:
        """Return the latest lines, newest first.

        Args:
            limit: how many lines at most.
            before: only lines with a lower number.
            who: only lines of this user.
            action: only lines with this action.
            subject: only lines about this person, by the first letters of the hash.
        """
        condition = "WHERE number < ? AND ? IN (who, '') AND ? IN (action, '') AND substr(subject, 1, length(?)) = ?"
        return self._entries(condition, (before, who, action, subject, subject, limit))

    def prune(self, days: float) -> None:
        """Remove older lines."""
        self._database.execute("DELETE FROM audit_log WHERE at < ?", (self._clock() - days * 86_400,))

    def _entries(self, condition: str, values: tuple[object, ...]) -> list[Entry]:
        query = f"SELECT number, at, who, role, action, kind, subject, outcome FROM audit_log {condition}"  # noqa: S608 - the two above
        rows = self._database.execute(f"{query} ORDER BY number DESC LIMIT ?", values)
        return [Entry(number, _when(at), *rest) for number, at, *rest in rows]


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
