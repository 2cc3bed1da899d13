"""API keys of the embedded Profile API, and what each may see."""

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
from ...store.model import Column
from .field_scopes import FieldScope, View, derive_salt, freeze_scopes
from .rate_limits import Rate

__all__ = ["ANYONE", "NOBODY", "ApiKey", "KeyRing", "Keys", "basic_credentials", "bearer_of"]

MIN_SECRET = 16
"""The shortest secret, in characters."""

_SECRET = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = "secret-token:"  # RFC 8959; Census shows its keys with it


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the embedded Profile API. Only the SHA-256 of its secret is held.

    Args:
        id: names the key; also the OAuth client id. Not secret. Letters, digits, `.`, `_`, `-`, at most 64.
        digest: SHA-256 of the secret, 32 bytes.
        workspace: the Census workspace and Amperity tenant that it belongs to; spelled like `id`.
        entities: the names of the collections it may read; `None` for all, or, with `fields`, for those named there.
        fields: what it sees of the records of an entity, by the entity's name; of others everything.
        rate: how often it may ask; `None` for what the server grants every key.
        admin: whether it may also change data: single records, through the server.
        expires_at: when it ends, in seconds since the epoch; `None` for never.
        previous: the SHA-256 of the secret before the last rotation.
        previous_until: until when that one is still good, in seconds since the epoch.
        salt: of the hashes in `fields`; made of the store's secret and the id when it is empty.

    Raises:
        ConfigurationError: one of them is spelled otherwise.
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
        """A new key and its secret, which is to be shown once and stored nowhere.

        Args:
            workspace: the workspace (tenant) that the key belongs to.
            entities: the names of the collections that it may read; all by default.
            id: the key's id; made of the hash by default.
            fields: what it sees of the records of an entity; see `ApiKey`.
            rate: how often it may ask.
            admin: whether it may also change data.
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
        """A key made of a secret that the user chose: at least 16 printable ASCII characters, no spaces.

        Args:
            secret: it is hashed and forgotten. A leading `secret-token:` (RFC 8959) does not count.
            workspace: the workspace (tenant) that the key belongs to.
            entities: the names of the collections that it may read; all by default.
            id: the key's id; made of the hash by default.
            fields: what it sees of the records of an entity; see `ApiKey`.
            rate: how often it may ask.
            admin: whether it may also change data.

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
        # Hashed once more: the id is no secret, and must not show a part of what is compared.
        name = id or f"key-{hashlib.sha256(digest).hexdigest()[:12]}"
        allowed = None if entities is None else frozenset(entities)
        return cls(name, digest, workspace, allowed, fields or {}, rate, admin)

    def digests(self, now: float) -> list[bytes]:
        """The SHA-256 of each secret that is good at this moment: none after its end, two within a rotation's grace."""
        if self.expires_at is not None and now >= self.expires_at:
            return []
        return [self.digest] if self.previous is None or now >= self.previous_until else [self.digest, self.previous]

    def may_read(self, name: str) -> bool:
        """Whether it may read the collection of this name, if there is one."""
        return self.entities is None or name in self.entities

    @property
    def sees_everything(self) -> bool:
        """Whether no collection and no field is hidden from it."""
        return self.entities is None

    def visible(self, collections: Iterable[Collection]) -> list[Collection]:
        """Return those collections that it may read.

        Together with `columns` and `filterable` this is the scope of every endpoint that describes the store: status,
        metrics, OpenAPI, the lists of entities and indexes, the page.
        """
        return [item for item in collections if self.may_read(item.name)]

    def columns(self, collection: Collection) -> list[Column]:
        """Return the columns of a collection that it sees in some form."""
        scope = self.fields.get(collection.name)
        return [column for column in collection.columns if scope is None or column.name in scope.named]

    def filterable(self, collection: Collection) -> list[str]:
        """Return the columns that it may filter by: those that it sees in clear."""
        scope = self.fields.get(collection.name)
        return [name for name in collection.filterable if scope is None or name in scope.show]

    def sees_ids(self, collection: Collection) -> bool:
        """Return whether it sees the ids of a collection's records in clear."""
        scope = self.fields.get(collection.name)
        return scope is None or collection.key in scope.show

    def view(self, collection: Collection, secret: bytes) -> View | None:
        """What it sees of a collection that it may read; `None` for all, as it is stored.

        Args:
            collection: what is looked at.
            secret: of the store; a salt is made of it for a key that has none of its own.
        """
        scope = self.fields.get(collection.name)
        return None if scope is None else View(collection, scope, self.salt or derive_salt(secret, self.id))


ANYONE = ApiKey("anyone", bytes(32), "any")
"""The key of all requests when authentication is off."""

NOBODY = ApiKey("nobody", bytes(32), "any", frozenset())
"""The key of requests without one, where these get an answer: it sees no collection."""


def new_secret() -> str:
    """A secret of 256 bits."""
    return f"pe_{secrets.token_urlsafe(32)}"


@runtime_checkable
class Keys(Protocol):
    """Where the server looks keys up: a `KeyRing`, or a file of them that changes meanwhile."""

    def __len__(self) -> int: ...

    @property
    def workspaces(self) -> set[str]:
        """Those that the keys belong to."""
        ...

    def by_secret(self, secret: bytes) -> ApiKey | None:
        """The key with this secret, if it is good now."""
        ...

    def by_id(self, id: str) -> ApiKey | None:
        """The key with this id, if it is good now."""
        ...


class KeyRing:
    """The keys that are known, found by their secret in constant time.

    Args:
        keys: their ids and secrets must differ.
        clock: seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: two have the same id or secret.
    """

    def __init__(self, keys: Iterable[ApiKey], *, clock: Callable[[], float] = time.time) -> None:
        # Keyed with a value that only this process knows, so that the time of the dictionary's search, which depends
        # on the key searched for, tells nothing about the digests.
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
        """Those that the keys belong to."""
        return {key.workspace for key in self._by_id.values()}

    def by_secret(self, secret: bytes) -> ApiKey | None:
        """The key with this secret, if it is good now."""
        digest = hashlib.sha256(secret).digest()
        key = self._by_digest.get(self._slot(digest))
        # The dictionary is searched by a keyed hash; the digests themselves are compared in constant time.
        good = [hmac.compare_digest(each, digest) for each in (key or ANYONE).digests(self._clock())]
        return key if any(good) else None

    def by_id(self, id: str) -> ApiKey | None:
        """The key with this id, if it is good now."""
        key = self._by_id.get(id)
        return key if key is not None and key.digests(self._clock()) else None

    def _slot(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=16, key=self._pepper).digest()


def bearer_of(values: list[bytes], *, basic: bool = False) -> bytes | None:
    """Return the token of an `Authorization: Bearer …` header.

    Args:
        values: all values of the header.
        basic: accept HTTP Basic with the user name `bearer` and the key as password, too: Census documents
            `https://bearer:KEY@…` for its API.

    Returns:
        The token without `secret-token:`; `None` when there is none, more than one, or another scheme.
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
    """Return user name and password of HTTP Basic credentials (RFC 7617); `None` when they are malformed."""
    with contextlib.suppress(ValueError):
        name, colon, password = base64.b64decode(token, validate=True).partition(b":")
        return (name, password) if colon else None
    return None
