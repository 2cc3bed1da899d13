"""Hash passwords with scrypt, and generate one-time passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

LOG_N, R, P = 15, 8, 3
"""scrypt's cost: 32 MiB and some 0.2 s (OWASP's Password Storage Cheat Sheet, June 2025)."""
MAX_MEMORY = 64 * 2**20
SHORTEST, LONGEST = 12, 256
"""The shortest and the longest password that a user can choose, in characters."""

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


def make_password() -> str:
    """Return a one-time password: 20 characters of 31 in groups, about 99 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


def hash_password(password: str) -> str:
    """Return the stored form, which includes the cost, so that the cost can be raised later."""
    salt = secrets.token_bytes(16)
    return f"scrypt${LOG_N}${R}${P}${_encode(salt)}${_encode(_derive(password, salt, LOG_N, R, P))}"


def is_password(password: str, stored: str) -> bool:
    """Return whether the password matches the stored one, compared in constant time."""
    _, log_n, r, p, salt, expected = stored.split("$")
    derived = _derive(password, base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(derived, base64.b64decode(expected))


def _derive(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=1 << log_n, r=r, p=p, maxmem=MAX_MEMORY, dklen=32
    )


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unknown_password() -> str:
    """Return a stored form that no password matches and that takes the same time to check."""
    return f"scrypt${LOG_N}${R}${P}${_encode(secrets.token_bytes(16))}${_encode(secrets.token_bytes(32))}"
