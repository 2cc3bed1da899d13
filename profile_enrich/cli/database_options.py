"""Options for a PostgreSQL database instead of a local store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from ..errors import ConfigurationError
from ..store import LocalStore, ProfileStore, refresh_store
from ..store.build_reports import RefreshReport
from .build_progress import by_entity

__all__ = [
    "DATABASE",
    "Refresh",
    "check_elsewhere",
    "database_option",
    "either",
    "open_database",
    "open_place",
    "place_options",
    "refreshing",
    "serving_options",
]

if TYPE_CHECKING:  # imports psycopg
    from ..store.postgres import PostgresStore

Refresh = Callable[..., RefreshReport]

F = TypeVar("F", bound=Callable[..., Any])

DATABASE = "PROFILE_ENRICH_DATABASE"


def database_option(command: F) -> F:
    """Add `--database` and `--schema`."""
    schema = click.option(
        "--schema",
        default="profile_enrich",
        show_default=True,
        metavar="NAME",
        help="With --database: the schema of the store's tables.",
    )
    database = click.option(
        "--database",
        metavar="URL",
        envvar=DATABASE,
        show_envvar=True,
        help="A PostgreSQL database instead of --store: postgresql://user@host/name. Put it into the variable when"
        " it has a password.",
    )
    return database(schema(command))


def place_options(command: F) -> F:
    """Add `--store`, `--database` and `--schema`; see `either`."""
    store = click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="PROFILE_ENRICH_STORE",
        show_envvar=True,
        metavar="DIRECTORY",
        help="The store.",
    )
    return store(database_option(command))


def serving_options(command: F) -> F:
    """Add the options of serving from a database."""
    options = (
        click.option(
            "--table",
            "tables",
            multiple=True,
            metavar="ENTITY=TABLE",
            help="With --database: serve this existing table or view, read-only; --id and --filter describe it.",
        ),
        click.option(
            "--replica",
            "replicas",
            multiple=True,
            metavar="URL",
            envvar="PROFILE_ENRICH_REPLICAS",
            show_envvar=True,
            help="With --database: a read replica. Can be repeated.",
        ),
        click.option(
            "--page-secret",
            metavar="TEXT",
            envvar="PROFILE_ENRICH_PAGE_SECRET",
            show_envvar=True,
            help="With --table: what page tokens are signed with, at least 16 characters; the same on all servers."
            " Default: a new one at each start.",
        ),
    )
    wrapped: Any = database_option(command)
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast("F", wrapped)


def either(store: Path | None, database: str | None) -> str:
    """Return the URL of the database, if `--database` is given.

    Raises:
        ConfigurationError: neither or both of `--store` and `--database` are given.
    """
    if store is not None and database is not None:
        raise ConfigurationError(f"--store and --database (or {DATABASE}) contradict each other; leave one out")
    if database is None:
        raise ConfigurationError("pass --store DIRECTORY, or --database URL: where is the store?")
    return database


def open_place(store: Path | None, database: str | None, schema: str) -> LocalStore | PostgresStore:
    """Open the store that `--store` or `--database` names.

    Raises:
        ConfigurationError: neither or both are given.
        StoreError: the store does not exist, or the database cannot be used.
    """
    if store is not None and database is None:
        return LocalStore(store)
    from ..store.postgres import PostgresStore

    return PostgresStore(either(store, database), schema=schema)


def refreshing(
    store: Path | None, database: str | None, schema: str, on_duplicate: Literal["last", "fail"], max_shrink: float
) -> Refresh:
    """Return the refresh function of the store named by `--store` or `--database`.

    Raises:
        ConfigurationError: neither or both are given.
    """
    if store is not None and database is None:
        return partial(refresh_store, store, on_duplicate=on_duplicate, max_shrink=max_shrink)
    from ..store.postgres import refresh_database

    url = either(store, database)
    return partial(refresh_database, url, schema=schema, on_duplicate=on_duplicate, max_shrink=max_shrink)


def check_elsewhere(
    *, database: str | None, from_url: str | None, mirror: Path | None, local: bool, store: Path | None
) -> bool:
    """Return whether the served data are not built here: they are in a database, or published by another machine.

    Raises:
        ConfigurationError: several places are given.
    """
    named = [name for name, value in (("--database", database), ("--from", from_url), ("--mirror", mirror)) if value]
    if len(named) > 1:
        raise ConfigurationError(f"{' and '.join(named)} contradict each other; leave one out")
    if store is not None and named and from_url is None:
        raise ConfigurationError(f"--store and {named[0]} contradict each other; leave one out")
    elsewhere = bool(named)
    if elsewhere and local:
        raise ConfigurationError(
            "--data, [collections] and --refresh-every are for a store that is built here; leave them out, or leave out"
            " --database, --from and --mirror"
        )
    return elsewhere


def open_database(
    database: str,
    *,
    schema: str,
    replicas: Sequence[str],
    tables: Sequence[str],
    ids: Sequence[str],
    filters: Sequence[str],
    page_secret: str | None,
) -> ProfileStore:
    """Open the store in a database: the tables given by `--table`, otherwise the one that `index build` made.

    Raises:
        ConfigurationError: an option is invalid.
        StoreError: the database cannot be used.
        MissingExtraError: the extra `postgres` is not installed.
    """
    from ..store.postgres import PostgresStore, PostgresTables, TableSpec

    if not tables:
        if page_secret is not None or ids or filters:
            raise ConfigurationError("--id, --filter and --page-secret describe --table, and there is none")
        return PostgresStore(database, schema=schema, replicas=replicas)
    pairs = [text.partition("=") for text in tables]
    if wrong := next((text for text, pair in zip(tables, pairs, strict=True) if not (pair[0] and pair[2])), None):
        raise ConfigurationError(f"--table {wrong}: write ENTITY=TABLE, e.g. Users=public.users")
    names = [pair[0] for pair in pairs]
    keys = list(ids) or ["id"]
    if len(keys) == 1:
        keys *= len(names)
    if len(keys) != len(names):
        raise ConfigurationError(f"{len(names)} --table but {len(keys)} --id: give one --id for each, or one for all")
    if page_secret is not None and len(page_secret) < 16:
        raise ConfigurationError("--page-secret must be at least 16 characters")
    chosen = by_entity(names, filters, "--filter")
    specs = [
        TableSpec(name, pair[2], key=key, filterable=chosen[name])
        for name, pair, key in zip(names, pairs, keys, strict=True)
    ]
    return PostgresTables(
        database, specs, replicas=replicas, secret=None if page_secret is None else page_secret.encode()
    )
