"""Fixtures of all stacks: two customers whose values are easy to find in any output."""

from __future__ import annotations

import pytest

from profile_enrich import MemorySource, ProfileClient

PEOPLE: dict[str, dict[str, object]] = {
    key: {
        "first_name": f"{name}-Planted",
        "email": f"{name.lower()}-planted@example.org",
        "visits": n,
        "tags": ["planted-tag"],
    }
    for key, name, n in (("u1", "Ann", 4242424242421), ("u2", "Bo", 4242424242422))
}
"""Two customers with as many attributes as each other."""

VALUES = ("-Planted", "-planted", "424242424242", "planted-tag")
"""What no report, log or page of somebody else may hold."""


@pytest.fixture
def client() -> ProfileClient:
    """A client with the two customers."""
    return ProfileClient(MemorySource(PEOPLE))
