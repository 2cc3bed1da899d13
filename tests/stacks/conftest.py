"""Fixtures of all stacks: two customers whose values are easy to find in any output."""

from __future__ import annotations

import pytest

from profile_enrich import MemorySource, ProfileClient

PEOPLE: dict[str, dict[str, object]] = {
    "u1": {"first_name": "Ann-Planted", "email": "ann-planted@example.org", "visits": 4242421, "tags": ["planted-tag"]},
    "u2": {"first_name": "Bo-Planted", "email": "bo-planted@example.org", "visits": 4242422, "tags": ["planted-tag"]},
}
"""Two customers with as many attributes as each other."""

VALUES = ("-Planted", "-planted", "424242", "planted-tag")
"""What no report, log or page of somebody else may hold."""


@pytest.fixture
def client() -> ProfileClient:
    """A client with the two customers."""
    return ProfileClient(MemorySource(PEOPLE))
