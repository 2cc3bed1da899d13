"""Key file: written by `profile-enrich keys`, reread by the server after changes."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from ..._utils.files import beside, exclusive_lock, replace_private
from ..._utils.output_paths import OutputPath, check_output_paths
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
    """Return the default path of a store's key file: next to the store, so that a copy of the store has no keys."""
    path = Path(store)
    return path.with_name(f"{path.name}.keys.json")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key in the file.

    Args:
        key: the API key.
        created_at: the creation, in seconds since the epoch.
        rotated_at: the last rotation of its secret, if any.
    """

    key: ApiKey
    created_at: float
    rotated_at: float | None = field(default=None)


class KeyFile:
    """Hashed keys in a file with mode 0600. Use it as `ProfileAPI(keys=KeyFile(path))`.

    The server checks the file for changes at requests, at most every `check_every` seconds, so changes apply in every
    worker without a restart. If the file is deleted, all keys are invalid. If the file is damaged, the previous keys
    stay valid, and an error is logged. This class writes the file atomically.

    Args:
        path: the path of the file. The first `add` creates it.
        check_every: seconds between checks of the file.
        clock: seconds since the epoch; injectable for tests.
        timer: the monotonic clock, in seconds; injectable for tests.

    Raises:
        ConfigurationError: the file exists and is not a key file.
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
        """The path of the file."""
        return self._path

    # --- for the server ---

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

    # --- for the operator ---

    def stored(self) -> tuple[StoredKey, ...]:
        """Return all keys in the file, in order of creation, including expired ones.

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
        """Create a key.

        Args:
            id: the key's id, unique in the file.
            workspace: the workspace (tenant) of the key.
            entities: the collections that it may read; all, or those in `fields`, by default.
            fields: the visible fields of an entity.
            rate: the rate limit.
            admin: whether it may also write records.
            expires_in: seconds until it expires; never by default.

        Returns:
            The key and its secret, which is not stored.

        Raises:
            ConfigurationError: an argument is invalid, the id is taken, or the file cannot be read or written.
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
                raise ConfigurationError(f"a key {id!r} already exists; rotate it, or choose another name")
            stored.append(StoredKey(key, now))
        return key, secret

    def revoke(self, id: str) -> None:
        """Delete a key from the file, which makes it invalid.

        Raises:
            ConfigurationError: the key does not exist, or the file cannot be read or written.
        """
        with self._changing() as stored:
            stored.remove(self._find(stored, id))

    def rotate(self, id: str, *, grace: float = DAY) -> str:
        """Replace the secret of a key. Its salt and other properties are kept.

        Args:
            id: the id of the key.
            grace: seconds for which the old secret stays valid, too; 0 ends it immediately. The secret before an
                earlier rotation always ends.

        Returns:
            The new secret, which is not stored.

        Raises:
            ConfigurationError: the key does not exist, or the file cannot be read or written.
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
        """Lock and read the keys for a change, and write them if it succeeds."""
        working = OutputPath(self._path, "the key file", replace=True, working=("lock", "new"))
        check_output_paths([working])
        with _locked(self._path):
            stored = list(self._read())
            yield stored
            self._open_ring(stored)  # rejects data that could not be read again
            _write(self._path, {"format": _FORMAT, "keys": [_to_json(each) for each in stored]})
            self._next_check = 0.0 if self._check_every == 0 else self._timer()  # this process sees it at once

    def _read(self) -> list[StoredKey]:
        text = ""
        problem = ""
        if self._path.exists() and not self._path.is_file():  # a pipe would be waited for
            raise ConfigurationError(f"the key file {self._path} is not a file")
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
    refused = False
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(beside(path, "lock"), _WAIT_FOR_LOCK))
        except OSError:
            refused = True
        if refused:
            raise ConfigurationError(f"the key file {path} cannot be locked; is its directory there and writable?")
        yield


def _write(path: Path, content: dict[str, Any]) -> None:
    problem = ""
    try:
        replace_private(path, f"{json.dumps(content, indent=2)}\n".encode())
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
        # Only `true` is true, so that a typing error cannot extend a key.
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
