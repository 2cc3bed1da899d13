"""Servers that are started once a process, for the tests that want one."""

from __future__ import annotations

from tests.services.fixtures import pgbouncer, postgres

__all__ = ["pgbouncer", "postgres"]
