"""The options of shipping generations through object storage."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigurationError

__all__ = ["SHIPPING_KEY", "key_bytes", "storage_options"]

SHIPPING_KEY = "PROFILE_ENRICH_SHIPPING_KEY"


def key_bytes(key: str | None) -> bytes:
    """What manifests are signed with.

    Raises:
        ConfigurationError: there is none, or it is too short.
    """
    if key is None or len(key.encode()) < 16:
        raise ConfigurationError(
            f"put what manifests are signed with, at least 16 characters, into {SHIPPING_KEY}; the same where the store"
            " is published and served"
        )
    return key.encode()


def storage_options(given: Sequence[str]) -> dict[str, str]:
    """The options of the object storage, from `NAME=VALUE` texts.

    Raises:
        ConfigurationError: one is written differently.
    """
    options: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigurationError("--storage-option: write NAME=VALUE, e.g. endpoint=http://127.0.0.1:9000")
        options[name] = value
    return options
