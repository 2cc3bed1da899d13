"""API keys of the embedded Profile API, and their scopes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ...errors import ConfigurationError
from ...store import Collection
from ...store.collection import Column
from .field_scopes import FieldScope, View, derive_salt, freeze_scopes
from .rate_limits import Rate

__all__ = ["ANYONE", "NOBODY", "ApiKey", "KeyRing", "Keys", "basic_credentials", "bearer_of"]

MIN_SECRET = 16
"""The shortest secret, in characters."""

_SECRET = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = "secret-token:"  # RFC 8959; Census displays keys with this prefix


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the embedded Profile API. It holds only the SHA-256 of its secret.

    Args:
        id: the id of the key, which is also the OAuth client id. Not secret. Up to 64 letters, digits, `.`, `_` and
            `-`.
        digest: SHA-256 of the secret, 32 bytes.
        workspace: the Census workspace and Amperity tenant of the key; the same characters as `id`.
        entities: the names of the collections it may read; `None` for all, or, with `fields`, for those named there.
        fields: the visible fields by name of the entity; all fields of other entities.
        rate: the rate limit; `None` for the server's default.
        admin: whether it may also write single records.
        expires_at: the expiry, in seconds since the epoch; `None` for never.
        previous: the SHA-256 of the secret before the last rotation.
        previous_until: the expiry of the previous secret, in seconds since the epoch.
        salt: the salt of the hashes in `fields`; derived from the store's secret and the id if empty.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    id: str
    digest: bytes = field(repr=False)
    workspace: str = "default"
    entities: frozenset[str] | None = None
    fields: Mapping[str, FieldScope] = field(default_factory=dict[str, FieldScope], hash=False)
    rate: Rate | None = None
    admin: bool = False
    expires_at: float | None = None
    previous: bytes | None = field(default=None, repr=False)
    previous_until: float = 0.0
    salt: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        for argument, value in (("id", self.id), ("workspace", self.workspace)):
            if not _NAME.fullmatch(value):
                raise ConfigurationError(f"the {argument} of a key has 1 to 64 letters, digits, '.', '_' and '-'")
        if {len(self.digest), len(self.previous or self.digest)} != {hashlib.sha256().digest_size}:
            raise ConfigurationError("the digest of a key is the SHA-256 of its secret: 32 bytes")
        object.__setattr__(self, "fields", freeze_scopes(self.fields))
        if self.admin and self.fields:
            raise ConfigurationError("a key that may change data (admin) sees whole records: leave out its fields")
        if self.entities is None and self.fields:
            object.__setattr__(self, "entities", frozenset(self.fields))
        elif self.entities is not None and not self.entities >= set(self.fields):
            raise ConfigurationError("fields of a key names an entity that its entities do not")

    @classmethod
    def generate(
        cls,
        *,
        workspace: str = "default",
        entities: Iterable[str] | None = None,
        id: str | None = None,
        fields: Mapping[str, FieldScope] | None = None,
        rate: Rate | None = None,
        admin: bool = False,
    ) -> tuple[ApiKey, str]:
        """Generate a key and its secret. Show the secret once, and do not store it.

        Args:
            workspace: the workspace (tenant) of the key.
            entities: the names of the collections that it may read; all by default.
            id: the key's id; derived from the hash by default.
            fields: the visible fields of an entity; see `ApiKey`.
            rate: the rate limit.
            admin: whether it may also write records.
        """
        secret = new_secret()
        key = cls.from_secret(
            secret, workspace=workspace, entities=entities, id=id, fields=fields, rate=rate, admin=admin
        )
        return key, secret

    @classmethod
    def from_secret(
        cls,
        secret: str,
        *,
        workspace: str = "default",
        entities: Iterable[str] | None = None,
        id: str | None = None,
        fields: Mapping[str, FieldScope] | None = None,
        rate: Rate | None = None,
        admin: bool = False,
    ) -> ApiKey:
        """Make a key from a chosen secret: at least 16 printable ASCII characters without spaces.

        Args:
            secret: the secret, which is hashed and not kept. A `secret-token:` prefix (RFC 8959) is ignored.
            workspace: the workspace (tenant) of the key.
            entities: the names of the collections that it may read; all by default.
            id: the key's id; derived from the hash by default.
            fields: the visible fields of an entity; see `ApiKey`.
            rate: the rate limit.
            admin: whether it may also write records.

        Raises:
            ConfigurationError: the secret is too short or has other characters.
        """
        plain = secret.removeprefix(_PREFIX)
        if len(plain) < MIN_SECRET or not _SECRET.fullmatch(plain):
            raise ConfigurationError(
                f"the secret of a key has at least {MIN_SECRET} printable ASCII characters and no spaces, not counting"
                f" a leading {_PREFIX!r}; this one has {len(plain)}; ApiKey.generate() makes a good one"
            )
        if isinstance(entities, str):
            raise ConfigurationError("entities is a sequence of collection names, not one string")
        digest = hashlib.sha256(plain.encode()).digest()
        # Hashed again, because the id is public and must not reveal part of the digest.
        name = id or f"key-{hashlib.sha256(digest).hexdigest()[:12]}"
        allowed = None if entities is None else frozenset(entities)
        return cls(name, digest, workspace, allowed, fields or {}, rate, admin)

    def digests(self, now: float) -> list[bytes]:
        """Return the SHA-256 of each valid secret: none after the expiry, two within the grace period of a rotation."""
        if self.expires_at is not None and now >= self.expires_at:
            return []
        return [self.digest] if self.previous is None or now >= self.previous_until else [self.digest, self.previous]

    def may_read(self, name: str) -> bool:
        """Return whether it may read the collection with this name."""
        return self.entities is None or name in self.entities

    @property
    def sees_everything(self) -> bool:
        """Return whether it may read all collections and fields."""
        return self.entities is None

    def visible(self, collections: Iterable[Collection]) -> list[Collection]:
        """Return the collections that it may read.

        Together with `columns` and `filterable`, this is the scope of all endpoints that describe the store: status,
        metrics, OpenAPI, the lists of entities and indexes, and the entities page.
        """
        return [item for item in collections if self.may_read(item.name)]

    def columns(self, collection: Collection) -> list[Column]:
        """Return the columns of a collection that are visible in any form."""
        scope = self.fields.get(collection.name)
        return [column for column in collection.columns if scope is None or column.name in scope.named]

    def filterable(self, collection: Collection) -> list[str]:
        """Return the columns that it may filter by: those visible in clear."""
        scope = self.fields.get(collection.name)
        return [name for name in collection.filterable if scope is None or name in scope.show]

    def sees_ids(self, collection: Collection) -> bool:
        """Return whether a collection's ids are visible in clear."""
        scope = self.fields.get(collection.name)
        return scope is None or collection.key in scope.show

    def view(self, collection: Collection, secret: bytes) -> View | None:
        """Return the view of a collection; `None` for the unrestricted stored records.

        Args:
            collection: the collection.
            secret: the store's secret, from which the salt of a key without one is derived.
        """
        scope = self.fields.get(collection.name)
        return None if scope is None else View(collection, scope, self.salt or derive_salt(secret, self.id))


ANYONE = ApiKey("anyone", bytes(32), "any")
"""The key of all requests without authentication."""

NOBODY = ApiKey("nobody", bytes(32), "any", frozenset())
"""The key of unauthenticated requests to public endpoints: it sees no collection."""


def new_secret() -> str:
    """Return a new secret of 256 bits."""
    return f"pe_{secrets.token_urlsafe(32)}"


@runtime_checkable
class Keys(Protocol):
    """The server's lookup of keys: a `KeyRing` or a `KeyFile`."""

    def __len__(self) -> int: ...

    @property
    def workspaces(self) -> set[str]:
        """The workspaces of the keys."""
        ...

    def by_secret(self, secret: bytes) -> ApiKey | None:
        """Return the key with this secret, if valid."""
        ...

    def by_id(self, id: str) -> ApiKey | None:
        """Return the key with this id, if valid."""
        ...


class KeyRing:
    """A fixed set of keys with constant-time lookup by secret.

    Args:
        keys: the keys; ids and secrets must be unique.
        clock: seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: two keys have the same id or secret.
    """

    def __init__(self, keys: Iterable[ApiKey], *, clock: Callable[[], float] = time.time) -> None:
        # Keyed with a random value of this process, so that the timing of the dictionary lookup reveals nothing about
        # the digests.
        self._pepper = os.urandom(32)
        self._clock = clock
        self._by_id: dict[str, ApiKey] = {}
        self._by_digest: dict[bytes, ApiKey] = {}
        for key in keys:
            if key.id in self._by_id:
                raise ConfigurationError(f"two keys have the id {key.id!r}")
            self._by_id[key.id] = key
            for digest in (key.digest, key.previous):
                if digest is None:
                    continue
                other = self._by_digest.setdefault(self._slot(digest), key)
                if other is not key:
                    raise ConfigurationError(f"the keys {other.id!r} and {key.id!r} have the same secret")

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def workspaces(self) -> set[str]:
        """The workspaces of the keys."""
        return {key.workspace for key in self._by_id.values()}

    def by_secret(self, secret: bytes) -> ApiKey | None:
        """Return the key with this secret, if valid."""
        digest = hashlib.sha256(secret).digest()
        key = self._by_digest.get(self._slot(digest))
        # The lookup uses a keyed hash; the digests are compared in constant time.
        good = [hmac.compare_digest(each, digest) for each in (key or ANYONE).digests(self._clock())]
        return key if any(good) else None

    def by_id(self, id: str) -> ApiKey | None:
        """Return the key with this id, if valid."""
        key = self._by_id.get(id)
        return key if key is not None and key.digests(self._clock()) else None

    def _slot(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=16, key=self._pepper).digest()


def bearer_of(values: list[bytes], *, basic: bool = False) -> bytes | None:
    """Return the token of an `Authorization: Bearer …` header.

    Args:
        values: all values of the header.
        basic: also accept HTTP Basic with the user name `bearer` and the key as password; Census documents
            `https://bearer:KEY@…`.

    Returns:
        The token without `secret-token:`; `None` if there is none, more than one, or another scheme.
    """
    if len(values) != 1:
        return None
    scheme, _, token = values[0].strip().partition(b" ")
    token = token.strip()
    if basic and scheme.lower() == b"basic":
        name, password = basic_credentials(token) or (b"", b"")
        token = password if name.lower() == b"bearer" else b""
    elif scheme.lower() != b"bearer":
        return None
    return token.removeprefix(_PREFIX.encode()) or None


def basic_credentials(token: bytes) -> tuple[bytes, bytes] | None:
    """Return user name and password of HTTP Basic credentials (RFC 7617); `None` if malformed."""
    with contextlib.suppress(ValueError):
        name, colon, password = base64.b64decode(token, validate=True).partition(b":")
        return (name, password) if colon else None
    return None
