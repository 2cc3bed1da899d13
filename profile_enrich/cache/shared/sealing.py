"""Encryption of second-level data: names as keyed hashes, values with AES-GCM (NIST SP 800-38D)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import zlib
from collections.abc import Sequence
from typing import Protocol

from ..._utils.optional_import import import_extra
from ...errors import ConfigurationError

__all__ = ["Plaintext", "Sealer", "Sealing", "check_secrets"]

SHORTEST_SECRET = 32
"""The shortest secret, in characters, as from `secrets.token_urlsafe(24)`."""

SMALLEST_COMPRESSED = 512
"""The size below which values are not compressed, in bytes."""

_PLAIN, _DEFLATED = b"\x00", b"\x01"


class Sealing(Protocol):
    """The conversion of keys to names, and of values to opaque bytes."""

    def names(self, key: tuple[str, ...]) -> list[str]:
        """Return the names of a key, one per secret. The first one is written, all are invalidated."""
        ...

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        """Seal bytes and bind them to a name."""
        ...

    def open(self, sealed: bytes, bound_to: str, limit: int) -> bytes | None:
        """Return the sealed bytes; `None` if they are invalid, bound to another name, or larger than `limit` bytes."""
        ...


def check_secrets(secrets: Sequence[str]) -> list[bytes]:
    """Check the secrets of a shared cache.

    Raises:
        ConfigurationError: there is none, or one has fewer than 32 characters.
    """
    if isinstance(secrets, str):
        secrets = [secrets]
    if not isinstance(secrets, Sequence) or not secrets:
        raise ConfigurationError(
            "SharedCache needs secrets=['...']: values are encrypted before they leave the process"
        )
    for number, secret in enumerate(secrets):
        if not isinstance(secret, str) or len(secret) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"secrets[{number}] of SharedCache must be a text of at least {SHORTEST_SECRET} characters;"
                " secrets.token_urlsafe(32) makes one"
            )
    return [secret.encode() for secret in secrets]


class Sealer:
    """Names by HMAC-SHA-256, values by AES-256-GCM, with separate keys derived from a secret (RFC 5869).

    Args:
        secrets: the first one seals; all of them open, so that a secret can be rotated.

    Raises:
        MissingExtraError: `cryptography` is not installed (extra `redis`).
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        aead = import_extra("cryptography.hazmat.primitives.ciphers.aead", "the shared cache", "redis")
        import_extra("cryptography.exceptions", "the shared cache", "redis")
        self._invalid: type[Exception] = import_extra("cryptography.exceptions", "the shared cache", "redis").InvalidTag
        self._name_keys = [_derive(secret, b"names") for secret in secrets]
        self._ciphers = {_derive(secret, b"id")[:4]: aead.AESGCM(_derive(secret, b"values")) for secret in secrets}
        self._current = next(iter(self._ciphers))

    def names(self, key: tuple[str, ...]) -> list[str]:
        """See `Sealing.names`."""
        text = "\0".join(key).encode()
        return [_short(hmac.digest(name_key, text, "sha256")) for name_key in self._name_keys]

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        """See `Sealing.seal`."""
        nonce = os.urandom(12)
        sealed: bytes = self._ciphers[self._current].encrypt(nonce, _pack(plain), bound_to.encode())
        return self._current + nonce + sealed

    def open(self, sealed: bytes, bound_to: str, limit: int) -> bytes | None:
        """See `Sealing.open`."""
        cipher = self._ciphers.get(sealed[:4])
        if cipher is None or len(sealed) < 32:
            return None
        try:
            packed = cipher.decrypt(sealed[4:16], sealed[16:], bound_to.encode())
        except self._invalid:
            return None
        return _unpack(packed, limit)

    def __repr__(self) -> str:
        return f"<Sealer with {len(self._ciphers)} secrets>"


class Plaintext:
    """No encryption, for tests and for servers trusted with personal data. Names are plain hashes."""

    def names(self, key: tuple[str, ...]) -> list[str]:
        """See `Sealing.names`."""
        return [_short(hashlib.sha256("\0".join(key).encode()).digest())]

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        """See `Sealing.seal`."""
        return bound_to.encode() + b"\0" + _pack(plain)

    def open(self, sealed: bytes, bound_to: str, limit: int) -> bytes | None:
        """See `Sealing.open`."""
        prefix = bound_to.encode() + b"\0"
        return _unpack(sealed[len(prefix) :], limit) if sealed.startswith(prefix) else None


def _derive(secret: bytes, purpose: bytes) -> bytes:
    # HKDF with one block of output (RFC 5869, sections 2.2 and 2.3).
    extracted = hmac.digest(b"profile_enrich shared cache", secret, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")


def _short(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest[:18]).decode()


def _pack(plain: bytes) -> bytes:
    if len(plain) >= SMALLEST_COMPRESSED:
        packed = zlib.compress(plain, 1)
        if len(packed) < 0.9 * len(plain):
            return _DEFLATED + packed
    return _PLAIN + plain


def _unpack(packed: bytes, limit: int) -> bytes | None:
    if packed[:1] == _PLAIN:
        return packed[1:] if len(packed) <= limit + 1 else None
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(packed[1:], limit)
    except zlib.error:
        return None
    return plain if inflater.eof else None
