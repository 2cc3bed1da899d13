"""The users of the console."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

from .passwords import hash_password, is_password, make_password, unknown_password

NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
_NOBODYS = unknown_password()
"""The hash that is compared for an unknown user, so that the check takes as long as for a wrong password."""


class UserError(Exception):
    """A user cannot be created, changed or removed; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may sign in. With `must_change` they choose a password of their own first."""

    name: str
    role: str
    must_change: bool


class Users:
    """The table of users."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, name: str, role: str, *, must_change: bool = True) -> str:
        """Makes a user, and returns a password that is shown once and stored hashed.

        Raises:
            UserError: the name cannot be used, or is taken.
        """
        if not NAME.fullmatch(name):
            raise UserError("a name has 1 to 64 characters: small letters, digits and . _ @ + -")
        password = make_password()
        row = (name, role, hash_password(password), must_change)
        if not self._database.execute("INSERT OR IGNORE INTO users VALUES (?, ?, ?, ?)", row).rowcount:
            raise UserError(f"there is a user {name} already; `user reset {name}` gives a new password")
        return password

    def reset(self, name: str) -> str:
        """Gives a user a new one-time password and ends their sessions.

        Raises:
            UserError: there is no such user.
        """
        password = make_password()
        self.set_password(name, hash_password(password), must_change=True)
        return password

    def set_password(self, name: str, hashed: str, *, must_change: bool = False) -> None:
        """Stores the hash of a user's new password, and ends their sessions.

        Raises:
            UserError: there is no such user.
        """
        row = (hashed, must_change, name)
        if not self._database.execute("UPDATE users SET password = ?, must_change = ? WHERE name = ?", row).rowcount:
            raise UserError(f"there is no user {name}")
        self._database.execute("DELETE FROM sessions WHERE user = ?", (name,))

    def remove(self, name: str) -> None:
        """Removes a user and ends their sessions. What they looked at stays in the audit log.

        Raises:
            UserError: there is no such user.
        """
        if not self._database.execute("DELETE FROM users WHERE name = ?", (name,)).rowcount:
            raise UserError(f"there is no user {name}")

    def all(self) -> list[User]:
        """All users, by name."""
        rows = self._database.execute("SELECT name, role, must_change FROM users ORDER BY name")
        return [User(name, role, bool(must_change)) for name, role, must_change in rows]

    def stored(self, name: str) -> str | None:
        """The hash of a user's password; `None` when there is no such user."""
        row = self._database.execute("SELECT password FROM users WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])


def check_password(password: str, stored: str | None) -> bool:
    """Whether the password is right. It takes some 0.2 s of a processor: call it in a thread."""
    return is_password(password, stored or _NOBODYS) and stored is not None
