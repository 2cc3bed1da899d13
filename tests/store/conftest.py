"""Fixtures of servers, started once per process, and of small segments."""

from __future__ import annotations

import pytest

from profile_enrich.store.index import bitmaps, builder, duckdb_builder, matching, postings
from tests.services.fixtures import pgbouncer, postgres

__all__ = ["pgbouncer", "postgres", "small_segments"]


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> int:
    """Use segments of 4,096 docids, for values of more than 64 records, so that small data has many segments."""
    for module in (bitmaps, builder, duckdb_builder, matching, postings):
        monkeypatch.setattr(module, "SEGMENT_BITS", 12)
    for module in (builder, postings):
        monkeypatch.setattr(module, "WHOLE", 64)
    return 1 << 12
