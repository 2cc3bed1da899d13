"""`AmperitySource`: lookups by id and by filter, three ways to get a token, and its construction."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

import pytest

from profile_enrich.errors import (
    AmbiguousMatch,
    ConfigurationError,
    InvalidKeyError,
    SourceAuthError,
    SourceError,
    SourceRequestError,
    SourceResponseError,
    SourceUnavailable,
)
from profile_enrich.sources import named_collection as _collection
from profile_enrich.sources.amperity import AmperitySource, Page
from profile_enrich.sources.base import Found, NotFound, NotModified
from profile_enrich.sources.bearer_tokens import ClientCredentials, IssuerToken
from profile_enrich.testing import VendorServer, faults

from .amperity_fixtures import PROFILES, ask, make_sources, make_vendor, row

fixtures = (make_vendor, make_sources)  # pytest finds them under their names here


# --- one profile ------------------------------------------------------------------------------------------------------


async def test_by_id(vendor: VendorServer, sources: Any) -> None:
    found = await ask(sources(), "cl-1")
    assert isinstance(found, Found)
    assert dict(found.record.attributes) == PROFILES["cl-1"]
    assert (found.record.id, found.record.source) == ("cl-1", "amperity")
    (call,) = vendor.calls
    assert call.target == f"/api/indexes/{vendor.index_id}/profiles/cl-1"
    assert call.headers["authorization"] == "Bearer planted-token"
    assert (call.headers["amperity-tenant"], call.headers["api-version"]) == ("acme", "2025-07-31")


async def test_by_filter(vendor: VendorServer, sources: Any) -> None:
    source = sources()
    found = await ask(source, "a@b.example", "email")
    assert isinstance(found, Found)
    assert found.record.id == "cl-1"
    target = vendor.calls[0].target
    assert target == f"/api/indexes/{vendor.index_id}/profiles?limit=2&filter%5Bemail%5D=a%40b.example"
    assert await ask(source, "e@f.example", "email") == NotFound()  # with case, as documented
    assert await ask(source, "nobody", "email") == NotFound()


async def test_a_filter_that_matches_several(vendor: VendorServer, sources: Any) -> None:
    with pytest.raises(AmbiguousMatch, match="on_multiple"):
        await ask(sources(), "gold", "tier")
    first = await ask(sources(on_multiple="first"), "gold", "tier")
    assert isinstance(first, Found)
    assert first.record.id == "cl-1"


async def test_short_pages_are_followed_before_a_match_counts_as_the_only_one(
    vendor: VendorServer, sources: Any
) -> None:
    vendor.script(
        faults.Respond(200, {"data": [], "next_token": "t1"}),
        faults.Respond(200, {"data": [row("cl-1", tier="gold")], "next_token": "t2"}),
        faults.Respond(200, {"data": [row("cl-2", tier="gold")], "next_token": ""}),
    )
    with pytest.raises(AmbiguousMatch):
        await ask(sources(), "gold", "tier")
    assert [dict(parse_qsl(call.target.partition("?")[2])).get("next_token") for call in vendor.calls] == [
        None,
        "t1",
        "t2",
    ]
    vendor.always(faults.Respond(200, {"data": [], "next_token": "again"}))
    with pytest.raises(SourceResponseError, match="repeats"):
        await ask(sources(), "gold", "tier")


async def test_L9_another_persons_profile_is_never_taken(vendor: VendorServer, sources: Any) -> None:
    vendor.always(faults.Respond(200, row("cl-2")))
    with pytest.raises(SourceResponseError, match="another profile"):
        await ask(sources(), "cl-1")
    with pytest.raises(SourceResponseError, match="another profile"):
        await sources().get_profile("cl-1")
    vendor.always(faults.Respond(200, {"data": [row("cl-2", email="c@d.example")]}))
    for mode in ("error", "first"):
        with pytest.raises(SourceResponseError, match="does not match"):
            await ask(sources(on_multiple=mode), "a@b.example", "email")


async def test_a_profile_may_have_no_attributes_and_null_ones(vendor: VendorServer, sources: Any) -> None:
    vendor.script(
        faults.Respond(200, {"id": "cl-1", "index_id": "i"}),
        faults.Respond(200, row("cl-1", gone=None, n=5)),
        faults.Respond(200, {"id": "cl-1", "index_id": "i", "attributes": None}),
    )
    attributes: list[dict[str, Any]] = []
    for _ in range(3):
        found = await ask(sources(), "cl-1")
        assert isinstance(found, Found)
        attributes.append(dict(found.record.attributes))
    assert attributes == [{}, {"gone": None, "n": 5}, {}]


async def test_a_missing_profile_checks_the_index_once(vendor: VendorServer, sources: Any) -> None:
    source = sources()
    for number in range(4):
        assert await ask(source, f"nobody-{number}") == NotFound()
    assert await source.get_profile("nobody") is None
    assert sum(call.path.endswith("/indexes") for call in vendor.calls) == 1


async def test_an_index_that_is_not_listed_is_a_configuration_error(sources: Any) -> None:
    for index in ("idx-nope", "nope"):
        source = sources(index=index)
        with pytest.raises(ConfigurationError, match=f"index '{index}' does not exist; the key sees 'loyalty'"):
            await ask(source, "cl-1")
        with pytest.raises(ConfigurationError, match="does not exist"):
            await ask(source, "x", "email")
        with pytest.raises(ConfigurationError, match="does not exist"):
            await source.get_index()
        with pytest.raises(ConfigurationError, match="does not exist"):
            await source.list_profiles()


async def test_E8_a_404_of_an_index_whose_list_fails_is_an_error(vendor: VendorServer, sources: Any) -> None:
    """E8: without a known index, the existence of the profile is unknown."""
    vendor.always(faults.ServerError(), match=lambda call: call.path.endswith("/indexes"))
    source = sources(index="idx-nope")
    with pytest.raises(SourceUnavailable):
        await source.get_index()
    with pytest.raises(SourceUnavailable):
        await source.list_profiles()
    with pytest.raises(SourceUnavailable):
        await ask(source, "x", "email")


async def test_an_index_by_name_is_resolved_once_over_all_pages(vendor: VendorServer, sources: Any) -> None:
    for number in range(150):
        vendor.add_collection(f"more-{number}", {})
    vendor.add_collection("last", {"x": {"a": "1"}})
    source = sources(index="last")
    results = await asyncio.gather(*(ask(source, "x") for _ in range(10)))
    assert all(isinstance(result, Found) for result in results)
    assert sum(call.path.endswith("/indexes") for call in vendor.calls) == 2


async def test_an_index_made_anew_under_its_name_is_found_again(
    vendor: VendorServer, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_collection, "CONFIRM_SECONDS", -1.0)
    vendor.script(faults.Respond(200, {"data": [{"id": "idx-old", "name": "loyalty"}]}))
    assert isinstance(await ask(sources(index="loyalty"), "cl-1"), Found)


async def test_L7_a_304_renews_what_is_at_hand() -> None:
    with VendorServer(dict(PROFILES), key="t", etags=True) as vendor:
        source = AmperitySource(index=vendor.index_id, tenant="acme", token="t", base_url=vendor.amperity_url)
        found = await ask(source, "cl-1")
        assert isinstance(found, Found)
        assert isinstance(await ask(source, "cl-1", validators=found.freshness.validators), NotModified)
        await source.aclose()


@pytest.mark.parametrize("value", [".", ".."])
async def test_ids_that_mean_another_place_are_refused(vendor: VendorServer, sources: Any, value: str) -> None:
    with pytest.raises(InvalidKeyError):
        await ask(sources(), value)
    with pytest.raises(InvalidKeyError):
        await sources().get_profile(value)
    with pytest.raises(InvalidKeyError):
        await sources().get_profile("")
    assert vendor.call_count == 0


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["client credentials", "issuer token"])
def auth(request: pytest.FixtureRequest, vendor: VendorServer) -> ClientCredentials | IssuerToken:
    if request.param == "issuer token":
        return IssuerToken("key-1", "issuer", "acme", vendor.amperity_url)
    return ClientCredentials(vendor.token_url, "client", "client-secret", "acme")


async def test_a_token_is_fetched_once_and_renewed_once_after_401(
    vendor: VendorServer, sources: Any, auth: ClientCredentials | IssuerToken
) -> None:
    source = sources(token=auth)
    results = await asyncio.gather(*(ask(source, "cl-1") for _ in range(20)))
    assert all(isinstance(result, Found) for result in results)
    assert vendor.tokens_issued == 1
    vendor.expire_tokens()
    results = await asyncio.gather(*(ask(source, "cl-1") for _ in range(20)))
    assert all(isinstance(result, Found) for result in results)
    assert vendor.tokens_issued == 2


async def test_a_vendor_that_refuses_the_new_token_too_is_not_asked_for_ever(
    vendor: VendorServer, sources: Any, auth: ClientCredentials | IssuerToken
) -> None:
    vendor.always(faults.Unauthorized(), match="/indexes")
    with pytest.raises(SourceAuthError):
        await ask(sources(token=auth), "cl-1")
    assert vendor.tokens_issued == 2
    assert sum("/indexes" in call.path for call in vendor.calls) == 2


async def test_a_static_token_that_is_refused_is_asked_once(vendor: VendorServer, sources: Any) -> None:
    with pytest.raises(SourceAuthError) as caught:
        await ask(sources(token="planted-wrong"), "cl-1")
    assert (caught.value.status, vendor.call_count) == (401, 1)
    assert caught.value.request_id is not None
    assert "planted" not in str(caught.value)
    assert "2025-07-31" in str(caught.value)


async def test_a_wrong_version_is_hinted_at(sources: Any) -> None:
    with pytest.raises(SourceRequestError, match="does not support api_version 2020-01-01"):
        await ask(sources(api_version="2020-01-01"), "cl-1")


async def test_a_wrong_tenant_is_refused(sources: Any) -> None:
    with pytest.raises(SourceAuthError, match="no policy") as caught:
        await ask(sources(tenant="other"), "cl-1")
    assert caught.value.status == 403


async def test_the_vendors_envelope_is_in_the_exception(vendor: VendorServer, sources: Any) -> None:
    envelope = {"status": 500, "message": "An internal error.", "request_id": "3fa85f64-1234", "trace_id": "1c9d"}
    vendor.script(faults.Respond(500, envelope))
    with pytest.raises(SourceError, match="An internal error") as caught:
        await ask(sources(), "cl-1")
    assert str(caught.value).endswith("(status 500, request id 3fa85f64-1234)")


# --- construction -----------------------------------------------------------------------------------------------------


def test_regions_and_namespaces() -> None:
    def make(**changes: Any) -> AmperitySource:
        return AmperitySource(**{"index": "a", "tenant": "acme", "token": "t", **changes})

    assert make().base_url == "https://app.amperity.com/api"
    assert make(region="azure").base_url == "https://acme.amperity.com/api"
    assert make(region="azure", tenant="acme-sb-12345").base_url == "https://acme.amperity.com/api"
    assert make(region="australia").base_url == "https://app-aws-apse2.amperity.com/api"
    many = [make(), make(index="b"), make(tenant="acme-sb-1"), make(region="australia")]
    assert len({source.namespace for source in many}) == 4
    assert (make().name, make().transport_name) == ("amperity", "aiohttp")
    assert repr(make()) == "<AmperitySource index 'a' at https://app.amperity.com/api>"
    assert "without an index" in repr(make(index=None))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"index": ""}, "index"),
        ({"index": 5}, "index"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a\nb"}, "tenant"),
        ({"token": ""}, "token"),
        ({"token": "planted token"}, "token"),
        ({"token": 5}, "token"),
        ({"api_version": "a b"}, "api_version"),
        ({"region": "mars"}, "region"),
        ({"region": "azure", "tenant": "a.evil.example/"}, "tenant"),
        ({"base_url": "http://h.example"}, "base_url"),
        ({"on_multiple": "last"}, "on_multiple"),
        ({"transport": "curl"}, "transport"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], names: str) -> None:
    arguments: dict[str, Any] = {"index": "a", "tenant": "acme", "token": "t", **changes}
    with pytest.raises(ConfigurationError, match=names) as caught:
        AmperitySource(**arguments)
    assert "planted" not in str(caught.value)


def test_a_page_is_a_value() -> None:
    assert Page((1,)) == Page((1,), None, None)
