"""The options of shipping generations through object storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ..errors import ConfigurationError

if TYPE_CHECKING:  # obstore, only when it is needed
    from ..store.shipping import GenerationFollower

__all__ = ["FIRST_GENERATION", "SHIPPING_KEY", "following_options", "key_bytes", "open_follower", "storage_options"]

F = TypeVar("F", bound=Callable[..., Any])

FIRST_GENERATION = 60.0
"""Seconds that a server without any generation waits for its first one."""

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


def following_options(command: F) -> F:
    """Add the options of serving what is published."""
    options = (
        click.option(
            "--from",
            "from_url",
            metavar="URL",
            help="Serve what `index publish` published there (s3://bucket/prefix, a directory), copied to --store.",
        ),
        click.option("--poll", default="30s", show_default=True, metavar="SPAN", help="With --from: look so often."),
        click.option(
            "--shipping-key",
            metavar="TEXT",
            envvar=SHIPPING_KEY,
            show_envvar=True,
            help="With --from: what manifests are signed with.",
        ),
        click.option(
            "--storage-option", multiple=True, metavar="NAME=VALUE", help="With --from: of the object storage."
        ),
    )
    wrapped: Any = command
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast("F", wrapped)


def open_follower(
    path: Path, url: str, *, shipping_key: str | None, poll: float, storage_option: Sequence[str]
) -> GenerationFollower:
    """What keeps a directory at the newest published generation.

    Raises:
        ConfigurationError: an option does not fit.
    """
    from ..store.shipping import GenerationFollower

    options: dict[str, Any] = dict(storage_options(storage_option))
    return GenerationFollower(path, url, key=key_bytes(shipping_key), every=poll, options=options or None)
