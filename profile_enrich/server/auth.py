"""Who may ask the embedded Profile API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["ApiKey"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the embedded Profile API. Only the SHA-256 of its secret is held.

    Args:
        id: names the key; also the OAuth client id. Not secret.
        digest: SHA-256 of the secret, 32 bytes.
        workspace: the Census workspace and Amperity tenant that it belongs to.
        entities: the names of the collections it may read; `None` for all.
    """

    id: str
    digest: bytes = field(repr=False)
    workspace: str = "default"
    entities: frozenset[str] | None = None

    @classmethod
    def generate(
        cls, *, workspace: str = "default", entities: Iterable[str] | None = None, id: str | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which is shown once and stored nowhere."""
        raise NotImplementedError

    @classmethod
    def from_secret(
        cls, secret: str, *, workspace: str = "default", entities: Iterable[str] | None = None, id: str | None = None
    ) -> ApiKey:
        """A key made of a secret that the user chose: at least 16 printable ASCII characters, no spaces.

        Args:
            secret: it is hashed and forgotten.
            workspace: the workspace (tenant) that the key belongs to.
            entities: the names of the collections that it may read; all by default.
            id: the key's id; made of the hash by default.

        Raises:
            ConfigurationError: the secret is too short or has other characters.
        """
        raise NotImplementedError
