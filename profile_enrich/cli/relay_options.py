"""The options of serving a mirror, and of asking a vendor for what it lacks."""

from __future__ import annotations

import asyncio
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

__all__ = ["UPSTREAM_KEY", "Upstream", "open_relay", "relay_options"]

F = TypeVar("F", bound=Callable[..., Any])

UPSTREAM_KEY = "PROFILE_ENRICH_UPSTREAM_KEY"


@dataclass(frozen=True)
class Upstream:
    """The vendor behind a relay, as the options say it."""

    vendor: str
    key: str | None = field(default=None, repr=False)
    url: str | None = None
    tenant: str | None = None
    entities: Sequence[str] = ()
    ids: Sequence[str] = ()


def relay_options(command: F) -> F:
    """Add `--mirror` and the options of the vendor behind it."""
    options = (
        click.option(
            "--mirror",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Serve what was mirrored here; with --upstream, ask that vendor for what is lacking or too old.",
        ),
        click.option(
            "--upstream",
            type=click.Choice(["census", "amperity"]),
            help="With --mirror: the vendor. Name what is served with --entity, and a Census id column with --id.",
        ),
        click.option(
            "--upstream-key",
            metavar="SECRET",
            envvar=UPSTREAM_KEY,
            show_envvar=True,
            help="With --upstream: the vendor's API key or token.",
        ),
        click.option("--upstream-url", metavar="URL", help="With --upstream: the vendor's base URL, if not the usual."),
        click.option("--upstream-tenant", metavar="NAME", help="With --upstream amperity: the tenant."),
        click.option(
            "--record-age", default="1h", show_default=True, metavar="SPAN", help="With --upstream: ask again after it."
        ),
    )
    wrapped: Any = command
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast("F", wrapped)


def open_relay(mirror: Path, upstream: Upstream | None, *, max_age: float) -> Relay:
    """The relay over a mirror; without a vendor it serves what is there.

    Collections that are new to the mirror get the numbers that they have at the vendor, so it must answer then.

    Raises:
        ConfigurationError: an option does not fit, or the vendor has no such entity.
        SourceError: a collection is new, and the vendor does not answer.
        StoreError: the mirror cannot be opened.
    """
    store = MirrorStore(mirror)
    if upstream is None:
        return Relay(store, {})
    if not upstream.entities:
        raise ConfigurationError("--upstream needs --entity NAME: what is asked for?")
    if not upstream.key:
        raise ConfigurationError(f"put the vendor's key into {UPSTREAM_KEY}")
    keys = list(upstream.ids) or ["id"]
    keys = keys * len(upstream.entities) if len(keys) == 1 else keys
    if len(keys) != len(upstream.entities):
        raise ConfigurationError("give one --id for each --entity, or one for all")
    sources: dict[str, ProfileSource] = {}
    for name, column in zip(upstream.entities, keys, strict=True):
        known = store.find(name) is not None
        if upstream.vendor == "census":
            census = CensusSource(upstream.key, entity=name, base_url=upstream.url)
            if not known:
                store.add_collection(name, key=column, id=asyncio.run(_census_id(census, name)))
            sources[name] = census
        else:
            if not upstream.tenant:
                raise ConfigurationError("--upstream amperity needs --upstream-tenant")
            amperity = AmperitySource(index=name, tenant=upstream.tenant, token=upstream.key, base_url=upstream.url)
            if not known:
                store.add_collection(name, key=column, index_id=asyncio.run(_amperity_id(amperity)))
            sources[name] = amperity
    return Relay(store, sources, max_age=max_age)


async def _census_id(source: CensusSource, name: str) -> int:
    try:
        found = {each.name: each.id for each in await source.entities()}
    finally:
        await source.aclose()
    if name not in found:
        raise ConfigurationError(f"--entity {name}: the vendor has: {', '.join(found) or 'none'}")
    return found[name]


async def _amperity_id(source: AmperitySource) -> str:
    try:
        return (await source.get_index()).id
    finally:
        await source.aclose()
