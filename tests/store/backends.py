"""The stores of the conformance suite, each built, refreshed and opened by its own functions."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from profile_enrich.store import (
    BuildReport,
    CollectionSpec,
    LocalStore,
    ProfileStore,
    RefreshReport,
    RefreshSpec,
    build_store,
    refresh_store,
)
from tests.services.postgres import Postgres

Rows = Sequence[Mapping[str, Any]]


class Backend(Protocol):
    def build(self, specs: list[CollectionSpec], **options: Any) -> BuildReport: ...

    def refresh(self, specs: list[RefreshSpec], **options: Any) -> RefreshReport: ...

    def open(self) -> contextlib.AbstractContextManager[ProfileStore]: ...


class LocalBackend:
    def __init__(self, path: Path) -> None:
        self.path = path / "s"

    def build(self, specs: list[CollectionSpec], **options: Any) -> BuildReport:
        return build_store(self.path, specs, **options)

    def refresh(self, specs: list[RefreshSpec], **options: Any) -> RefreshReport:
        return refresh_store(self.path, specs, **options)

    def open(self) -> contextlib.AbstractContextManager[ProfileStore]:
        return LocalStore(self.path, check_every=0)


class PostgresBackend:
    def __init__(self, url: str) -> None:
        self.url = url
        self.schema = f"s_{secrets.token_hex(4)}"

    def build(self, specs: list[CollectionSpec], **options: Any) -> BuildReport:
        from profile_enrich.store.postgres import build_database

        return build_database(self.url, specs, schema=self.schema, **options)

    def refresh(self, specs: list[RefreshSpec], **options: Any) -> RefreshReport:
        from profile_enrich.store.postgres import refresh_database

        return refresh_database(self.url, specs, schema=self.schema, **options)

    @contextlib.contextmanager
    def open(self, **options: Any) -> Generator[ProfileStore]:
        from profile_enrich.store.postgres import PostgresStore

        with PostgresStore(self.url, schema=self.schema, **{"check_every": 0.05, **options}) as store:
            yield store


def make_table(server: Postgres, rows: Rows, types: Mapping[str, str], *, filterable: Sequence[str]) -> str:
    """Create a user's table with these rows, and the indexes that it needs."""
    import psycopg

    name = f"t_{secrets.token_hex(4)}"
    columns = ", ".join(f'"{column}" {kind}' for column, kind in types.items())
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {name} ({columns})".encode())
        marks = ", ".join(["%s"] * len(types))
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {name} VALUES ({marks})".encode(), [tuple(row.get(c) for c in types) for row in rows]
            )
        connection.execute(f'CREATE UNIQUE INDEX ON {name} ("id")'.encode())
        for column in filterable:
            connection.execute(f'CREATE INDEX ON {name} ("{column}")'.encode())
        connection.execute(f"ANALYZE {name}".encode())
    return name
