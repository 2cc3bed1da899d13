"""Construction of sources from options."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

from ..errors import ConfigurationError
from ..sources.amperity import AmperitySource
from ..sources.base import ProfileSource
from ..sources.bearer_tokens import ClientCredentials, StaticToken, TokenAuth
from ..sources.census import CensusSource
from ..sources.store import StoreSource
from ..store import LocalStore
from .source_options import Kind, Settings

__all__ = ["make_source", "open_source", "open_store"]


def _needed(value: str | None, option: str, why: str) -> str:
    if value is None or value == "":
        variable = "PROFILE_ENRICH_" + option.removeprefix("--").replace("-", "_").upper()
        raise ConfigurationError(f"{why}: give {variable} or {option}")
    return value


@contextlib.contextmanager
def open_store(settings: Settings) -> Generator[LocalStore]:
    """Open the local store, and close it at the end."""
    if settings.store is None:
        raise ConfigurationError("which store? Give PROFILE_ENRICH_STORE or --store")
    with LocalStore(settings.store) as store:
        yield store


@contextlib.asynccontextmanager
async def open_source(
    settings: Settings, kind: Kind | None = None, *, need_collection: bool = True
) -> AsyncGenerator[ProfileSource]:
    """Open the source described by the options, and close it at the end.

    Args:
        settings: the options.
        kind: the kind of source; determined by the options by default.
        need_collection: whether the entity or index is required.

    Raises:
        ConfigurationError: an option is missing or wrong; the message names it.
    """
    source = make_source(settings, kind or settings.kind(), need_collection=need_collection)
    try:
        yield source
    finally:
        await source.aclose()


def make_source(settings: Settings, kind: Kind, *, need_collection: bool = True) -> ProfileSource:
    """Make the source described by the options."""
    if settings.batch:
        _check_batch(settings, kind)
    if kind == "store":
        if settings.store is None:
            raise ConfigurationError("which store? Give PROFILE_ENRICH_STORE or --store")
        name = _needed(settings.entity or settings.index, "--entity", "which entity of the store?")
        return StoreSource(settings.store, collection=int(name) if name.isdecimal() else name)
    common: dict[str, Any] = {
        "base_url": settings.base_url,
        "transport": settings.transport,
        "allow_insecure_http": settings.allow_insecure_http,
    }
    if settings.region is not None:
        common["region"] = settings.region
    if kind == "census":
        key = _needed(settings.api_key, "--api-key", "Census needs an API key")
        entity = settings.entity
        if need_collection:
            entity = _needed(entity, "--entity", "which entity? (`profile-enrich entities` lists them)")
        return CensusSource(key, entity=entity or 0, batch=settings.batch, **common)  # 0: listing needs no entity
    tenant = _needed(settings.tenant, "--tenant", "Amperity needs a tenant")
    index = settings.index
    if need_collection:
        index = _needed(index, "--index", "which index? (`profile-enrich indexes` lists them)")
    return AmperitySource(index=index, tenant=tenant, token=_auth(settings, tenant), **common)


def _check_batch(settings: Settings, kind: Kind) -> None:
    """Check that the source supports `--batch`."""
    if kind == "store":
        raise ConfigurationError("--batch is for a server; a store is read many records at a time without it")
    if kind == "amperity" or settings.base_url is None:
        raise ConfigurationError(
            f"--batch looks up many records in one call, which {kind.capitalize()}'s API does not support: leave it "
            "out, or pass the embedded server's --base-url, ending in /api/v1, with --source census"
        )
    if not settings.base_url.rstrip("/").endswith("/v1"):
        raise ConfigurationError("--batch needs the embedded server's --base-url, ending in /api/v1")


def _auth(settings: Settings, tenant: str) -> TokenAuth:
    if settings.token is not None:
        return cast("TokenAuth", StaticToken(settings.token))
    if (
        settings.client_id is None and settings.api_key is not None
    ):  # an embedded Profile API accepts its keys as tokens
        return cast("TokenAuth", StaticToken(settings.api_key))
    if settings.client_id is None:
        raise ConfigurationError(
            "Amperity needs a token: set PROFILE_ENRICH_TOKEN or pass --token; "
            "or --client-id, --client-secret and --token-url"
        )
    return ClientCredentials(
        _needed(settings.token_url, "--token-url", "where are tokens made?"),
        settings.client_id,
        _needed(settings.client_secret, "--client-secret", "--client-id needs its secret"),
        tenant,
        allow_insecure_http=settings.allow_insecure_http,
    )
