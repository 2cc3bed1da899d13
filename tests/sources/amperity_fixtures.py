"""A vendor with a small index, and sources that ask it: fixtures of the Amperity tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.profile import ProfileKey
from profile_enrich.sources.amperity import AmperitySource
from profile_enrich.sources.base import SourceResult
from profile_enrich.testing import VendorServer

PROFILES: dict[str, dict[str, Any]] = {
    "cl-1": {"email": "a@b.example", "tier": "gold", "ltv": "12"},
    "cl-2": {"email": "c@d.example", "tier": "gold"},
    "cl-3": {"email": "E@f.example", "tier": "silver"},
}


@pytest.fixture(name="vendor")
def make_vendor() -> Generator[VendorServer]:
    with VendorServer(dict(PROFILES), entity="loyalty", key="planted-token") as running:
        yield running


@pytest.fixture(name="sources")
async def make_sources(vendor: VendorServer) -> AsyncGenerator[Any]:
    opened: list[AmperitySource] = []

    def make(**changes: Any) -> AmperitySource:
        arguments: dict[str, Any] = {
            "index": vendor.index_id,
            "tenant": "acme",
            "token": "planted-token",
            "base_url": vendor.amperity_url,
            **changes,
        }
        opened.append(AmperitySource(**arguments))
        return opened[-1]

    yield make
    for source in opened:
        await source.aclose()


async def ask(source: AmperitySource, value: str, type: str = "id", **more: Any) -> SourceResult:
    return await source.fetch(ProfileKey(value, type), deadline=Deadline(5), **more)


def row(id: str, **attributes: Any) -> dict[str, Any]:
    return {"id": id, "index_id": "idx-000001", "attributes": attributes}
