"""Options for serving a mirror and its upstream vendor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from ..errors import ConfigurationError
from ..relay import Relay
from ..sources.amperity import AmperitySource
from ..sources.base import ProfileSource
from ..sources.census import CensusSource
from ..store.mirror_store import MirrorStore

__all__ = [
    "UPSTREAM_KEY",
    "Upstream",
    "ensure_collection",
    "mirror_option",
    "open_relay",
    "record_age_option",
    "upstream_options",
    "vendor_source",
]

F = TypeVar("F", bound=Callable[..., Any])

UPSTREAM_KEY = "PROFILE_ENRICH_UPSTREAM_KEY"


@dataclass(frozen=True)
class Upstream:
    """The options of the vendor behind a relay."""

    vendor: str
    key: str | None = field(default=None, repr=False)
    url: str | None = None
    tenant: str | None = None
    entities: Sequence[str] = ()
    ids: Sequence[str] = ()


def mirror_option(command: F) -> F:
    """Add `--mirror`."""
    option = click.option(
        "--mirror",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="The mirror file. With serve and --upstream, missing and outdated records are fetched from the vendor.",
    )
    return option(command)


def upstream_options(command: F) -> F:
    """Add `--upstream` and its options."""
    options = (
        click.option(
            "--upstream",
            type=click.Choice(["census", "amperity"]),
            help="The vendor behind --mirror. Name its entities with --entity, and a Census id column with --id.",
        ),
        click.option(
            "--upstream-key",
            metavar="SECRET",
            envvar=UPSTREAM_KEY,
            show_envvar=True,
            help="With --upstream: the vendor's API key or token.",
        ),
        click.option(
            "--upstream-url",
            metavar="URL",
            envvar="PROFILE_ENRICH_UPSTREAM_URL",
            show_envvar=True,
            help="With --upstream: the vendor's base URL, if not the default.",
        ),
        click.option(
            "--upstream-tenant",
            metavar="NAME",
            envvar="PROFILE_ENRICH_UPSTREAM_TENANT",
            show_envvar=True,
            help="With --upstream amperity: the tenant.",
        ),
    )
    wrapped: Any = command
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast("F", wrapped)


def record_age_option(default: str) -> Callable[[F], F]:
    """Add `--record-age`."""
    return click.option(
        "--record-age",
        default=default,
        show_default=True,
        metavar="SPAN",
        help="With --upstream: the age after which a record is fetched again.",
    )


def vendor_source(upstream: Upstream, name: str) -> AmperitySource | CensusSource:
    """Return the vendor's source of an entity or index.

    Raises:
        ConfigurationError: an option is missing.
    """
    if not upstream.key:
        raise ConfigurationError(f"put the vendor's key into {UPSTREAM_KEY}")
    if upstream.vendor == "census":
        return CensusSource(upstream.key, entity=name, base_url=upstream.url)
    if not upstream.tenant:
        raise ConfigurationError("--upstream amperity needs --upstream-tenant")
    return AmperitySource(index=name, tenant=upstream.tenant, token=upstream.key, base_url=upstream.url)


async def ensure_collection(store: MirrorStore, source: AmperitySource | CensusSource, name: str, key: str) -> None:
    """Add a missing collection to the mirror, with the vendor's ids.

    Raises:
        ConfigurationError: the vendor has no such entity.
        SourceError: the vendor is unavailable.
    """
    if store.find(name) is not None:
        return
    if isinstance(source, AmperitySource):
        store.add_collection(name, key=key, index_id=(await source.get_index()).id)
        return
    found = {each.name: each.id for each in await source.entities()}
    if name not in found:
        raise ConfigurationError(f"--entity {name}: the vendor has: {', '.join(found) or 'none'}")
    store.add_collection(name, key=key, id=found[name])


def open_relay(mirror: Path, upstream: Upstream | None, *, max_age: float) -> Relay:
    """Return the relay over a mirror; without a vendor, it serves only mirrored records.

    New collections get the vendor's ids, which requires a call to the vendor.

    Raises:
        ConfigurationError: an option is invalid, or the vendor has no such entity.
        SourceError: a collection is new, and the vendor is unavailable.
        StoreError: the mirror cannot be opened.
    """
    if upstream is None:
        return Relay(MirrorStore(mirror), {})
    if not upstream.entities:
        raise ConfigurationError("--upstream needs --entity NAME, the entity to fetch")
    keys = list(upstream.ids) or ["id"]
    keys = keys * len(upstream.entities) if len(keys) == 1 else keys
    if len(keys) != len(upstream.entities):
        raise ConfigurationError("give one --id for each --entity, or one for all")
    sources: dict[str, ProfileSource] = {}
    with contextlib.ExitStack() as opening:
        store = opening.enter_context(MirrorStore(mirror))
        for name, key in zip(upstream.entities, keys, strict=True):
            sources[name] = source = vendor_source(upstream, name)
            asyncio.run(_ensure_and_close(store, source, name, key))
        opening.pop_all()
    return Relay(store, sources, max_age=max_age)


async def _ensure_and_close(store: MirrorStore, source: AmperitySource | CensusSource, name: str, key: str) -> None:
    try:
        await ensure_collection(store, source, name, key)
    finally:
        await source.aclose()  # its connections are bound to this loop; the server uses another
