"""`AmperitySource`: four endpoints, lookups by id and by filter, paging, and three ways to get a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich._deadline import Deadline
from profile_enrich.errors import (
    AmbiguousMatch,
    ConfigurationError,
    InvalidKeyError,
    SourceAuthError,
    SourceError,
    SourceRequestError,
    SourceResponseError,
    SourceTimeout,
)
from profile_enrich.profile import ProfileKey
from profile_enrich.sources import _collection
from profile_enrich.sources.amperity import AmperitySource, Index, Page, ProfileRow
from profile_enrich.sources.auth import ClientCredentials, IssuerToken
from profile_enrich.sources.base import Found, NotFound, NotModified, SourceResult
from profile_enrich.testing import VendorServer, faults

PROFILES: dict[str, dict[str, Any]] = {
    "cl-1": {"email": "a@b.example", "tier": "gold", "ltv": "12"},
    "cl-2": {"email": "c@d.example", "tier": "gold"},
    "cl-3": {"email": "E@f.example", "tier": "silver"},
}


@pytest.fixture
def vendor() -> Generator[VendorServer]:
    with VendorServer(dict(PROFILES), entity="loyalty", key="planted-token") as running:
        yield running


@pytest.fixture
async def sources(vendor: VendorServer) -> AsyncGenerator[Any]:
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


async def test_a_404_of_an_index_whose_list_fails_is_said_as_far_as_known(vendor: VendorServer, sources: Any) -> None:
    vendor.always(faults.ServerError(), match=lambda call: call.path.endswith("/indexes"))
    source = sources(index="idx-nope")
    with pytest.raises(ConfigurationError, match="list_indexes"):
        await source.get_index()
    with pytest.raises(ConfigurationError, match="list_indexes"):
        await source.list_profiles()
    assert await ask(source, "x", "email") == NotFound()


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


# --- the four endpoints -----------------------------------------------------------------------------------------------


async def test_the_four_endpoints(vendor: VendorServer, sources: Any) -> None:
    source = sources(index="loyalty")
    indexes = await source.list_indexes(with_total=True)
    assert (indexes.total, indexes.next_token, len(indexes.data)) == (1, None, 1)
    made = "2025-07-30T22:16:04.409Z"
    assert indexes.data[0] == await source.get_index() == Index(vendor.index_id, "loyalty", "", made, made)
    page = await source.list_profiles({"tier": "gold"}, limit=1, with_total=True)
    assert (page.total, [each.id for each in page.data]) == (2, ["cl-1"])
    rest = await source.list_profiles({"tier": "gold"}, limit=1, next_token=page.next_token)
    assert ([each.id for each in rest.data], rest.next_token, rest.total) == (["cl-2"], None, None)
    profile = await source.get_profile("cl-1")
    assert profile == ProfileRow("cl-1", vendor.index_id, PROFILES["cl-1"])
    assert repr(profile) == "<ProfileRow with 3 attributes>"
    queries = [parse_qsl(call.target.partition("?")[2]) for call in vendor.calls]
    assert queries[0] == [("limit", "25"), ("with_total", "true")]
    assert [("limit", "1"), ("filter[tier]", "gold"), ("with_total", "true")] in queries


async def test_no_index_is_needed_to_list_indexes(sources: Any) -> None:
    source = sources(index=None)
    assert [index.name async for index in source.indexes()] == ["loyalty"]
    for call in (source.get_index, source.list_profiles):
        with pytest.raises(ConfigurationError, match="index was not given"):
            await call()
    with pytest.raises(ConfigurationError, match="index was not given"):
        await ask(source, "cl-1")


async def test_all_pages_are_followed(vendor: VendorServer, sources: Any) -> None:
    vendor.profiles.update({f"p{number}": {"tier": "bronze"} for number in range(57)})
    source = sources()
    ids = [each.id async for each in source.profiles({"tier": "bronze"}, limit=10)]
    assert ids == [f"p{number}" for number in range(57)]
    pages = [page async for page in source.profile_pages(limit=25, with_total=True)]
    assert [(len(page.data), page.total) for page in pages] == [(25, 60), (25, 60), (10, 60)]
    rest = [each.id async for each in source.profiles(limit=25, next_token=pages[1].next_token)]
    assert rest == [each.id for each in pages[2].data]
    for number in range(30):
        vendor.add_collection(f"more-{number}", {})
    assert len([index async for index in source.indexes(limit=7)]) == 31


async def test_an_endless_list_is_an_error(vendor: VendorServer, sources: Any) -> None:
    vendor.script(
        faults.Respond(200, {"data": [row("a")], "next_token": "t1"}),
        faults.Respond(200, {"data": [row("b")], "next_token": "t2"}),
        then=faults.Respond(200, {"data": [row("c")], "next_token": "t1"}),
    )
    seen: list[str] = []

    async def read(**arguments: Any) -> None:
        async for each in sources().profiles(**arguments):
            seen.append(each.id)

    with pytest.raises(SourceResponseError, match="repeats a next_token"):
        await read()
    assert seen == ["a", "b", "c"]
    with pytest.raises(SourceResponseError, match="repeats a next_token"):
        await read(next_token="t1")
    assert seen == ["a", "b", "c", "c"]


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    last=st.sampled_from(["absent", "", None]),
    tokens=st.lists(st.text(min_size=1, max_size=8), min_size=6, max_size=6, unique=True),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_paging_sees_every_row_once(
    vendor: VendorServer, sizes: list[int], last: str | None, tokens: list[str]
) -> None:
    """Whatever the pages' sizes and tokens, empty pages included."""
    vendor.heal()
    vendor.reset_calls()
    tokens = [token.encode("utf-8", "replace").decode() for token in tokens]
    if len(set(tokens)) < len(tokens):
        return
    count = 0
    for number, size in enumerate(sizes):
        body: dict[str, Any] = {"data": [row(f"r{count + at}") for at in range(size)]}
        count += size
        if number + 1 < len(sizes):
            body["next_token"] = tokens[number]
        elif last != "absent":
            body["next_token"] = last
        vendor.script(faults.Respond(200, body))
    source = AmperitySource(index="idx-1", tenant="acme", token="planted-token", base_url=vendor.amperity_url)
    rows = [each.id async for each in source.profiles()]
    await source.aclose()
    assert rows == [f"r{number}" for number in range(count)]
    sent = [dict(call.query).get("next_token") for call in vendor.calls]
    assert sent == [None, *tokens[: len(sizes) - 1]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": {}},
        {"data": ["x"]},
        {"data": [{"id": "a"}]},
        {"data": [{"id": 5, "index_id": "i"}]},
        {"data": [{"id": "", "index_id": "i"}]},
        {"data": [{"id": "a", "index_id": "i", "attributes": []}]},
        {"data": [], "next_token": 5},
        {"data": [], "total": "many"},
        {"data": [], "total": -1},
        {"data": [], "total": True},
        [],
    ],
)
async def test_lists_that_are_not_as_documented(vendor: VendorServer, sources: Any, body: object) -> None:
    vendor.always(faults.Respond(200, body))
    with pytest.raises(SourceResponseError):
        await sources().list_profiles()
    with pytest.raises(SourceResponseError):
        await ask(sources(), "x", "email")


async def test_an_index_that_is_not_as_documented(vendor: VendorServer, sources: Any) -> None:
    for body in ({"id": "i"}, {"id": "i", "name": "n", "description": 5}):
        vendor.script(faults.Respond(200, body))
        with pytest.raises(SourceResponseError):
            await sources().get_index()


@pytest.mark.parametrize("limit", [0, -1, True, "5", 2.5])
async def test_a_limit_is_a_number_of_rows(vendor: VendorServer, sources: Any, limit: Any) -> None:
    for call in (sources().list_indexes, sources().list_profiles):
        with pytest.raises(ConfigurationError, match="limit"):
            await call(limit=limit)
    assert vendor.call_count == 0


async def test_filters_are_text_and_stay_values(vendor: VendorServer, sources: Any) -> None:
    with pytest.raises(InvalidKeyError, match="filter value must be a string"):
        await sources().list_profiles({"n": 5})
    odd = {"a]&limit=9&filter[x": "v&next_token=1#/../?"}
    vendor.script(faults.Respond(200, {"data": []}))
    await sources().list_profiles(odd)
    assert vendor.calls[0].query == [("limit", "25"), (f"filter[{next(iter(odd))}]", next(iter(odd.values())))]


async def test_a_timeout_is_for_the_whole_call(vendor: VendorServer, sources: Any) -> None:
    vendor.always(faults.Hang())
    source = sources()
    for call in (source.list_indexes, source.get_index, source.list_profiles):
        with pytest.raises(SourceTimeout):
            await call(timeout=0.03)
    with pytest.raises(SourceTimeout):
        await source.get_profile("cl-1", timeout=0.03)
    with pytest.raises(ConfigurationError, match="timeout"):
        await source.get_index(timeout=0)


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
