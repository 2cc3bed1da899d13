"""`AmperitySource`: its four endpoints, and reading lists to their end."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError, InvalidKeyError, SourceResponseError, SourceTimeout
from profile_enrich.sources.amperity import AmperitySource, Index, ProfileRow
from profile_enrich.testing import VendorServer, faults

from .amperity_fixtures import PROFILES, ask, make_sources, make_vendor, row

fixtures = (make_vendor, make_sources)  # pytest finds them under their names here


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
    """For any page sizes and tokens, and empty pages."""
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
