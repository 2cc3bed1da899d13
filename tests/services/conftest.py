"""Fixtures of servers, started once per process or file."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.services.fixtures import pgbouncer, postgres

from .valkey import Valkey

__all__ = ["pgbouncer", "postgres"]


@pytest.fixture(scope="module")
def _server() -> Generator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture
def valkey(_server: Valkey) -> Valkey:
    if _server.process is None:
        _server.start()
    _server.command("FLUSHALL")
    return _server
