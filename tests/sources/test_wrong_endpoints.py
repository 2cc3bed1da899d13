"""A source with a wrong endpoint raises an error; it never reports profiles as missing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from profile_enrich import AmperitySource, CensusSource, ConfigurationError, NotFound, ProfileKey, SourceError
from profile_enrich._utils.deadline import Deadline
from profile_enrich.sources.base import ProfileSource
from profile_enrich.testing import VendorServer, faults

PEOPLE = {"u1": {"tier": "gold"}}
LOGIN = b"<!doctype html><title>Sign in</title><form><input name=password></form>"

Make = Callable[[str], ProfileSource]


def _census(base_url: str) -> ProfileSource:
    return CensusSource("secret", entity=1, base_url=base_url)


def _census_by_name(base_url: str) -> ProfileSource:
    return CensusSource("secret", entity="Users", base_url=base_url)


def _amperity(base_url: str) -> ProfileSource:
    return AmperitySource(index="idx-000001", tenant="acme", token="secret", base_url=base_url)


def _amperity_by_name(base_url: str) -> ProfileSource:
    return AmperitySource(index="Users", tenant="acme", token="secret", base_url=base_url)


SOURCES = [_census, _census_by_name, _amperity, _amperity_by_name]


@pytest.fixture(name="vendor")
def make_vendor() -> Any:
    with VendorServer(PEOPLE, key=None) as running:
        yield running


@contextlib.asynccontextmanager
async def opened(source: ProfileSource) -> AsyncGenerator[ProfileSource]:
    try:
        yield source
    finally:
        await source.aclose()


async def ask(source: ProfileSource, value: str = "unknown", type: str = "id") -> object:
    return await source.fetch(ProfileKey(value, type), deadline=Deadline(10.0))


def right_url(vendor: VendorServer, make: Make) -> str:
    return vendor.base_url if make in (_census, _census_by_name) else vendor.amperity_url


@pytest.mark.parametrize("make", SOURCES)
async def test_E8_at_the_right_place_an_unknown_record_is_not_found(make: Make, vendor: VendorServer) -> None:
    """E8: the vendor's response about a record is a result."""
    async with opened(make(right_url(vendor, make))) as source:
        assert await ask(source) == NotFound()
        assert await ask(source, "u1") != NotFound()


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("path", ["", "/v1", "/api", "/nothing/here"])
async def test_E8_a_wrong_path_is_an_error(make: Make, path: str, vendor: VendorServer) -> None:
    """E8: a base URL that lacks a part of its path, or has one too many."""
    url = right_url(vendor, make)
    wrong = (vendor.origin if not path else url) + path
    async with opened(make(wrong)) as source:
        for type in ("id", "email") if isinstance(source, AmperitySource) else ("id",):
            with pytest.raises((SourceError, ConfigurationError)) as raised:
                await ask(source, type=type)
            assert "unknown" not in str(raised.value)


@pytest.mark.parametrize("make", SOURCES)
async def test_E8_another_vendors_server_is_an_error(make: Make, vendor: VendorServer) -> None:
    """E8: each vendor's source at the other one's API."""
    url = vendor.amperity_url if make in (_census, _census_by_name) else vendor.base_url
    async with opened(make(url)) as source:
        with pytest.raises((SourceError, ConfigurationError)):
            await ask(source)


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, LOGIN),
        (302, b""),
        (404, b"<html>nginx: not found</html>"),
        (404, b""),
        (404, b'"not found"'),
        (404, b'{"error": "no route matched"}'),
        (404, b'{"status": 404, "message": "no route matched"}'),
        (200, b"{}"),
        (200, b'{"data": null}'),
        (200, b'{"data": []}'),
        (502, b"<html>bad gateway</html>"),
    ],
)
async def test_E8_a_page_that_is_not_the_vendors_is_an_error(
    make: Make, status: int, body: bytes, vendor: VendorServer
) -> None:
    """E8: a login page, a proxy's error page, another API: every URL gives the same response."""
    vendor.always(faults.Respond(status, body))
    async with opened(make(right_url(vendor, make))) as source:
        for type in ("id", "email") if isinstance(source, AmperitySource) else ("id",):
            with pytest.raises((SourceError, ConfigurationError)):
                await ask(source, type=type)


@pytest.mark.parametrize("make", SOURCES)
async def test_E8_a_proxys_page_is_an_error_also_when_the_endpoint_was_seen_before(
    make: Make, vendor: VendorServer
) -> None:
    """E8: a proxy that starts to answer instead of the vendor removes no profile."""
    async with opened(make(right_url(vendor, make))) as source:
        assert await ask(source, "u1") != NotFound()
        vendor.always(faults.Respond(404, b"<html>not found</html>"))
        with pytest.raises(SourceError, match="base_url"):
            await ask(source, "u1")
