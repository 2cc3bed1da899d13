"""The sources against the embedded Profile API on a real server: two implementations that share no wire code agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import (
    AmbiguousMatch,
    ConfigurationError,
    InvalidKeyError,
    SourceAuthError,
    SourceRequestError,
)
from profile_enrich.profile import ProfileKey
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.sources.amperity import AmperitySource
from profile_enrich.sources.base import Found, NotFound, SourceResult
from profile_enrich.sources.bearer_tokens import ClientCredentials, IssuerToken
from profile_enrich.sources.census import CensusSource
from profile_enrich.sources.http import Transport, open_transport
from profile_enrich.store import CollectionSpec, build_store

from ..server.helpers import served
from .test_sources_conformance import HOSTILE

SECRET = "a-secret-of-sixteen-or-more"
KEY = ApiKey.from_secret(SECRET, workspace="acme", id="key-1")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    path = tmp_path_factory.mktemp("embedded") / "s"
    rows: list[dict[str, Any]] = [
        {"id": id, "email": id, "tier": "gold", "me": f"me-{number}"} for number, id in enumerate(HOSTILE)
    ]
    build_store(path, [CollectionSpec("Users", rows, filterable=["email", "tier"]), CollectionSpec("Orders", [])])
    with served(ProfileAPI(path, keys=[KEY])) as base:
        yield base


@pytest.fixture
async def transport() -> AsyncGenerator[Transport]:
    opened = open_transport()
    yield opened
    await opened.aclose()


async def ask(source: CensusSource | AmperitySource, value: str, type: str = "id") -> SourceResult:
    return await source.fetch(ProfileKey(value, type), deadline=Deadline(5))


async def ask_or_refuse(source: CensusSource | AmperitySource, value: str, type: str = "id") -> str | None:
    try:
        found = await ask(source, value, type)
    except InvalidKeyError:
        return "refused"
    return str(found.record.attributes["me"]) if isinstance(found, Found) else None


async def test_P3_every_identifier_finds_its_own_record_and_no_other(url: str, transport: Transport) -> None:
    census = CensusSource(SECRET, entity="Users", base_url=f"{url}/api/v1", transport=transport)
    amperity = AmperitySource(index="Users", tenant="acme", token=SECRET, base_url=f"{url}/api", transport=transport)
    expected: list[str | None] = [f"me-{number}" for number in range(len(HOSTILE))]
    assert await asyncio.gather(*(ask_or_refuse(census, id) for id in HOSTILE)) == expected
    assert await asyncio.gather(*(ask_or_refuse(amperity, id, "email") for id in HOSTILE)) == expected
    for id in (".", ".."):
        expected[HOSTILE.index(id)] = "refused"
    assert await asyncio.gather(*(ask_or_refuse(amperity, id) for id in HOSTILE)) == expected


async def test_what_is_missing_is_missing_in_both_dialects(url: str, transport: Transport) -> None:
    census = CensusSource(SECRET, entity=1, base_url=f"{url}/api/v1", transport=transport)
    assert [(entity.name, entity.id) for entity in await census.entities()] == [("Users", 1), ("Orders", 2)]
    assert await ask(census, "nobody") == NotFound()
    with pytest.raises(ConfigurationError, match="'Nobody' does not exist; the key sees 'Users'"):
        await ask(CensusSource(SECRET, entity="Nobody", base_url=f"{url}/api/v1", transport=transport), "x")
    with pytest.raises(SourceAuthError):
        await ask(CensusSource("wrong", entity="Users", base_url=f"{url}/api/v1", transport=transport), "x")
    amperity = AmperitySource(index="Users", tenant="acme", token=SECRET, base_url=f"{url}/api", transport=transport)
    assert await ask(amperity, "nobody") == NotFound()
    assert await ask(amperity, "nobody", "email") == NotFound()
    with pytest.raises(AmbiguousMatch):
        await ask(amperity, "gold", "tier")
    with pytest.raises(SourceRequestError):
        await ask(amperity, "x", "no_such_attribute")
    for index in ("Nobody", "idx-nobody"):
        wrong = AmperitySource(index=index, tenant="acme", token=SECRET, base_url=f"{url}/api", transport=transport)
        with pytest.raises(ConfigurationError, match="does not exist"):
            await ask(wrong, "x")


async def test_tokens_and_pages(url: str, transport: Transport) -> None:
    for auth in (
        ClientCredentials(f"{url}/api/v0/oauth2/token", "key-1", SECRET, "acme"),
        IssuerToken("key-1", SECRET, "acme", f"{url}/api"),
    ):
        source = AmperitySource(index="Users", tenant="acme", token=auth, base_url=f"{url}/api", transport=transport)
        assert [index.name async for index in source.indexes(limit=1)] == ["Users", "Orders"]
        assert (await source.get_index()).name == "Users"
        pages = [page async for page in source.profile_pages(limit=7, with_total=True)]
        assert {page.total for page in pages} == {len(HOSTILE)}
        assert sorted(row.id for page in pages for row in page.data) == sorted(HOSTILE)
        only = [row.id async for row in source.profiles({"email": "ü", "tier": "gold"})]
        assert only == ["ü"]
