"""Who may ask the embedded Profile API."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import ConfigurationError

__all__ = ["ANYONE", "ApiKey", "KeyRing", "bearer_of"]

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
        entities: the names of the collections it may read; `None` for all.

    Raises:
        ConfigurationError: one of them is spelled otherwise.
    """

    id: str
    digest: bytes = field(repr=False)
    workspace: str = "default"
    entities: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for argument, value in (("id", self.id), ("workspace", self.workspace)):
            if not _NAME.fullmatch(value):
                raise ConfigurationError(f"the {argument} of a key has 1 to 64 letters, digits, '.', '_' and '-'")
        if len(self.digest) != hashlib.sha256().digest_size:
            raise ConfigurationError("the digest of a key is the SHA-256 of its secret: 32 bytes")

    @classmethod
    def generate(
        cls, *, workspace: str = "default", entities: Iterable[str] | None = None, id: str | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which is to be shown once and stored nowhere.

        Args:
            workspace: the workspace (tenant) that the key belongs to.
            entities: the names of the collections that it may read; all by default.
            id: the key's id; made of the hash by default.
        """
        secret = f"pe_{secrets.token_urlsafe(32)}"
        return cls.from_secret(secret, workspace=workspace, entities=entities, id=id), secret

    @classmethod
    def from_secret(
        cls, secret: str, *, workspace: str = "default", entities: Iterable[str] | None = None, id: str | None = None
    ) -> ApiKey:
        """A key made of a secret that the user chose: at least 16 printable ASCII characters, no spaces.

        Args:
            secret: it is hashed and forgotten. A leading `secret-token:` (RFC 8959) does not count.
            workspace: the workspace (tenant) that the key belongs to.
            entities: the names of the collections that it may read; all by default.
            id: the key's id; made of the hash by default.

        Raises:
            ConfigurationError: the secret is too short or has other characters.
        """
        plain = secret.removeprefix(_PREFIX)
        if len(plain) < MIN_SECRET or not _SECRET.fullmatch(plain):
            raise ConfigurationError(
                f"the secret of a key has at least {MIN_SECRET} printable ASCII characters and no spaces;"
                " ApiKey.generate() makes a good one"
            )
        if isinstance(entities, str):
            raise ConfigurationError("entities is a sequence of collection names, not one string")
        digest = hashlib.sha256(plain.encode()).digest()
        # Hashed once more: the id is no secret, and must not show a part of what is compared.
        name = id or f"key-{hashlib.sha256(digest).hexdigest()[:12]}"
        return cls(name, digest, workspace, None if entities is None else frozenset(entities))

    def may_read(self, name: str) -> bool:
        """Whether it may read the collection of this name, if there is one."""
        return self.entities is None or name in self.entities


ANYONE = ApiKey("anyone", bytes(32), "any")
"""Who asks when authentication is off."""


class KeyRing:
    """The keys that are known, found by their secret in constant time.

    Args:
        keys: their ids and secrets must differ.

    Raises:
        ConfigurationError: two have the same id or secret.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        # Keyed with a value that only this process knows, so that the time of the dictionary's search, which depends
        # on the key searched for, tells nothing about the digests.
        self._pepper = os.urandom(32)
        self._by_id: dict[str, ApiKey] = {}
        self._by_digest: dict[bytes, ApiKey] = {}
        for key in keys:
            if key.id in self._by_id:
                raise ConfigurationError(f"two keys have the id {key.id!r}")
            slot = self._slot(key.digest)
            if slot in self._by_digest:
                raise ConfigurationError(f"the keys {self._by_digest[slot].id!r} and {key.id!r} have the same secret")
            self._by_id[key.id] = key
            self._by_digest[slot] = key

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def workspaces(self) -> set[str]:
        """Those that the keys belong to."""
        return {key.workspace for key in self._by_id.values()}

    def by_secret(self, secret: bytes) -> ApiKey | None:
        """The key with this secret."""
        digest = hashlib.sha256(secret).digest()
        key = self._by_digest.get(self._slot(digest), ANYONE)
        return key if hmac.compare_digest(key.digest, digest) and key is not ANYONE else None

    def by_id(self, id: str) -> ApiKey | None:
        """The key with this id."""
        return self._by_id.get(id)

    def _slot(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=16, key=self._pepper).digest()


def bearer_of(values: list[bytes]) -> bytes | None:
    """The token of an `Authorization: Bearer …` header; `None` when there is none, more than one, or another scheme."""
    if len(values) != 1:
        return None
    scheme, _, token = values[0].strip().partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token:
        return None
    return token.removeprefix(_PREFIX.encode())
