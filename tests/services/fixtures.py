"""Fixtures of a PostgreSQL server, started once per process."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.services.postgres import PgBouncer, Postgres


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    server = Postgres()
    try:
        server.create().start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Generator[PgBouncer]:
    pooler = PgBouncer(postgres)
    try:
        yield pooler
    finally:
        pooler.stop()
