"""A file of keys: made by `profile-enrich keys`, read by the server whenever it changes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from ..._utils.validation import check_number
from ...errors import ConfigurationError
from .api_keys import ApiKey, KeyRing
from .field_scopes import FieldScope
from .rate_limits import Rate

__all__ = ["KeyFile", "StoredKey", "keys_beside"]

_log = logging.getLogger("profile_enrich.server")

_FORMAT = 1
_WAIT_FOR_LOCK = 10.0
DAY = 86_400.0


def keys_beside(store: Path | str) -> Path:
    """Where the keys of a store are when nobody says otherwise: beside it, so that a copy of the data has no keys."""
    path = Path(store)
    return path.with_name(f"{path.name}.keys.json")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is in the file.

    Args:
        key: what the server knows of it.
        created_at: in seconds since the epoch.
        rotated_at: when it got its secret, if not when it was made.
    """

    key: ApiKey
    created_at: float
    rotated_at: float | None = field(default=None)


class KeyFile:
    """Keys in a file, hashed; its owner alone can read it (0600). Use it as `ProfileAPI(keys=KeyFile(path))`.

    A server looks at most once in `check_every` seconds, at the next request, whether the file has changed: a key that
    was added, rotated or revoked is so in every worker a second later, without a restart. A file that has gone lets
    nobody in. One that cannot be read (a slip of a hand; this class writes it whole or not at all) changes nothing: the
    keys before it stay, and an error is logged.

    Args:
        path: of the file. It is made by the first `add`.
        check_every: seconds between two looks at the file.
        clock: seconds since the epoch; injectable for tests.
        timer: the monotonic clock, in seconds; injectable for tests.

    Raises:
        ConfigurationError: there is a file, and it is none of keys.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        check_every: float = 1.0,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(path)
        self._check_every = check_number("check_every", check_every)
        self._clock = clock
        self._timer = timer
        self._seen = _signature(self._path)
        self._ring = self._open_ring(self._read())
        self._next_check = timer() + self._check_every

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._path

    # --- what the server asks ---

    def __len__(self) -> int:
        return len(self._current())

    @property
    def workspaces(self) -> set[str]:
        """Those that the keys belong to."""
        return self._current().workspaces

    def by_secret(self, secret: bytes) -> ApiKey | None:
        """The key with this secret, if it is good now."""
        return self._current().by_secret(secret)

    def by_id(self, id: str) -> ApiKey | None:
        """The key with this id, if it is good now."""
        return self._current().by_id(id)

    def _current(self) -> KeyRing:
        now = self._timer()
        if now >= self._next_check:
            self._next_check = now + self._check_every
            signature = _signature(self._path)
            if signature != self._seen:
                self._seen = signature
                self._reread()
        return self._ring

    def _reread(self) -> None:
        problem = ""
        try:
            self._ring = self._open_ring(self._read())
        except ConfigurationError as error:
            problem = error.message
        if problem:
            _log.error("the keys stay as they were: %s", problem)

    def _open_ring(self, stored: Iterable[StoredKey]) -> KeyRing:
        return KeyRing((each.key for each in stored), clock=self._clock)

    # --- what the operator does ---

    def stored(self) -> tuple[StoredKey, ...]:
        """All keys in the file, in the order in which they were made, also those that have ended.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        return tuple(self._read())

    def add(
        self,
        id: str,
        *,
        workspace: str = "default",
        entities: Iterable[str] | None = None,
        fields: Mapping[str, FieldScope] | None = None,
        rate: Rate | None = None,
        admin: bool = False,
        expires_in: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            id: its name, which no other key in the file may have.
            workspace: the workspace (tenant) that it belongs to.
            entities: the collections that it may read; all, or those in `fields`, by default.
            fields: what it sees of an entity's records.
            rate: how often it may ask.
            admin: whether it may also change data.
            expires_in: seconds until it ends; never by default.

        Returns:
            The key and its secret, which is stored nowhere.

        Raises:
            ConfigurationError: an argument makes no sense, the id is taken, or the file cannot be read or written.
        """
        key, secret = ApiKey.generate(
            workspace=workspace, entities=entities, id=id, fields=fields, rate=rate, admin=admin
        )
        now = self._clock()
        if expires_in is not None:
            key = replace(key, expires_at=now + check_number("expires_in", expires_in, positive=True))
        key = replace(key, salt=secrets.token_bytes(32))
        with self._changing() as stored:
            if any(each.key.id == id for each in stored):
                raise ConfigurationError(f"there is a key {id!r} already; rotate it, or choose another name")
            stored.append(StoredKey(key, now))
        return key, secret

    def revoke(self, id: str) -> None:
        """Take a key out of the file: it opens nothing any more.

        Raises:
            ConfigurationError: there is none of this name, or the file cannot be read or written.
        """
        with self._changing() as stored:
            stored.remove(self._find(stored, id))

    def rotate(self, id: str, *, grace: float = DAY) -> str:
        """Give a key a new secret. The salt of its hashes, and all else, stays.

        Args:
            id: which.
            grace: seconds for which the old secret opens as well; 0 ends it at once, and one that was still good from a
                rotation before ends in any case.

        Returns:
            The new secret, which is stored nowhere.

        Raises:
            ConfigurationError: there is none of this name, or the file cannot be read or written.
        """
        check_number("grace", grace)
        fresh, secret = ApiKey.generate()
        now = self._clock()
        with self._changing() as stored:
            old = self._find(stored, id)
            key = replace(
                old.key,
                digest=fresh.digest,
                previous=old.key.digest if grace else None,
                previous_until=now + grace if grace else 0.0,
            )
            stored[stored.index(old)] = StoredKey(key, old.created_at, now)
        return secret

    def _find(self, stored: list[StoredKey], id: str) -> StoredKey:
        for each in stored:
            if each.key.id == id:
                return each
        raise ConfigurationError(f"there is no key {id!r} in {self._path}; `profile-enrich keys list` shows all")

    @contextlib.contextmanager
    def _changing(self) -> Generator[list[StoredKey]]:
        """The keys, to be changed; written when that went well. One process at a time."""
        with _locked(self._path):
            stored = list(self._read())
            yield stored
            self._open_ring(stored)  # refuses what could not be read again
            _write(self._path, {"format": _FORMAT, "keys": [_to_json(each) for each in stored]})
            self._next_check = 0.0 if self._check_every == 0 else self._timer()  # this process sees it at once

    def _read(self) -> list[StoredKey]:
        text = ""
        problem = ""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except OSError as error:
            problem = f"the key file {self._path} cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = _damaged(self._path)
        if not problem:
            try:
                content: Any = json.loads(text)
                if content["format"] == _FORMAT:
                    return [_from_json(each) for each in content["keys"]]
                problem = f"the key file {self._path} is of another format than this version's"
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                problem = _damaged(self._path)
        raise ConfigurationError(problem)


def _damaged(path: Path) -> str:
    return f"the key file {path} is not one that `profile-enrich keys` wrote; restore it, or add the keys anew"


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    # SQLite's own file lock works on every system that Python's sqlite3 does, and dies with the process.
    connection: sqlite3.Connection | None = None
    problem = ""
    try:
        try:
            lock = path.with_name(f"{path.name}.lock")
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT, 0o600))
            connection = sqlite3.connect(lock, timeout=_WAIT_FOR_LOCK, isolation_level=None)
            connection.execute("BEGIN EXCLUSIVE")
        except (sqlite3.Error, OSError):
            problem = f"the key file {path} cannot be locked; is its directory there and writable?"
        if problem:
            raise ConfigurationError(problem)
        yield
    finally:
        if connection is not None:
            connection.close()


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, for its owner alone."""
    temporary = path.with_name(f"{path.name}.new")
    problem = ""
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        problem = f"the key file {path} cannot be written: {error.strerror}"
    if problem:
        raise ConfigurationError(problem)


def _to_json(stored: StoredKey) -> dict[str, Any]:
    key = stored.key
    return {
        "id": key.id,
        "digest": key.digest.hex(),
        "workspace": key.workspace,
        "entities": None if key.entities is None else sorted(key.entities),
        "fields": {
            entity: {name: sorted(getattr(scope, name)) for name in ("show", "hash", "redact")}
            for entity, scope in key.fields.items()
        },
        "rate": None if key.rate is None else [key.rate.requests, key.rate.seconds, key.rate.shared],
        "admin": key.admin,
        "expires_at": key.expires_at,
        "previous": None if key.previous is None else key.previous.hex(),
        "previous_until": key.previous_until,
        "salt": key.salt.hex(),
        "created_at": stored.created_at,
        "rotated_at": stored.rotated_at,
    }


def _from_json(content: dict[str, Any]) -> StoredKey:
    previous, entities, rate = content["previous"], content["entities"], content["rate"]
    scopes = cast("dict[str, dict[str, list[str]]]", content["fields"])
    expires = content["expires_at"]
    key = ApiKey(
        id=content["id"],
        digest=bytes.fromhex(content["digest"]),
        workspace=content["workspace"],
        entities=None if entities is None else frozenset(_texts(entities)),
        fields={
            entity: FieldScope(**{name: frozenset(_texts(names)) for name, names in scope.items()})
            for entity, scope in scopes.items()
        },
        rate=None if rate is None else Rate(rate[0], rate[1], rate[2] is True),
        # A slip of a hand must not make more of a key: only `true` is true.
        admin=content["admin"] is True,
        expires_at=None if expires is None else float(expires),
        previous=None if previous is None else bytes.fromhex(previous),
        previous_until=float(content["previous_until"]),
        salt=bytes.fromhex(content["salt"]),
    )
    rotated = content["rotated_at"]
    return StoredKey(key, float(content["created_at"]), None if rotated is None else float(rotated))


def _texts(values: object) -> list[str]:
    if not isinstance(values, list):
        raise TypeError("not a list")
    listed = cast("list[object]", values)
    if not all(isinstance(value, str) for value in listed):
        raise TypeError("not a list of texts")
    return cast("list[str]", listed)
