"""`CensusSource`: the entity by id or name, the meaning of a 404, and undocumented responses of the vendor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import (
    ConfigurationError,
    InvalidKeyError,
    SourceAuthError,
    SourceError,
    SourceRateLimited,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
)
from profile_enrich.profile import ProfileKey
from profile_enrich.sources import named_collection as _collection
from profile_enrich.sources.base import Found, Freshness, NotFound, NotModified, SourceResult, Validators
from profile_enrich.sources.census import CensusSource, Entity
from profile_enrich.testing import VendorServer, faults

KEY = "secret-token:planted"


@pytest.fixture
def vendor() -> Generator[VendorServer]:
    with VendorServer({"u1": {"tier": "gold", "n": 1, "none": None}}, entity="Users", key=KEY) as running:
        yield running


@pytest.fixture
async def sources(vendor: VendorServer) -> AsyncGenerator[Any]:
    opened: list[CensusSource] = []

    def make(**changes: Any) -> CensusSource:
        arguments: dict[str, Any] = {"api_key": KEY, "entity": "Users", "base_url": vendor.base_url, **changes}
        opened.append(CensusSource(**arguments))
        return opened[-1]

    yield make
    for source in opened:
        await source.aclose()


async def ask(source: CensusSource, value: str = "u1", **more: Any) -> SourceResult:
    return await source.fetch(ProfileKey(value), deadline=Deadline(5), **more)


def record_calls(vendor: VendorServer) -> list[str]:
    return [call.target for call in vendor.calls if "record" in call.target]


async def test_a_record_by_entity_id(vendor: VendorServer, sources: Any) -> None:
    found = await ask(sources(entity=vendor.entity_id))
    assert isinstance(found, Found)
    assert dict(found.record.attributes) == {"id": "u1", "tier": "gold", "n": 1, "none": None}
    assert (found.record.id, found.record.source, found.freshness) == ("u1", "census", Freshness())
    (call,) = vendor.calls
    assert call.target == f"/api/v1/entities/{vendor.entity_id}/record?record_id=u1"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["accept"] == "application/json"


async def test_a_name_is_resolved_once_however_many_ask(vendor: VendorServer, sources: Any) -> None:
    vendor.always(faults.Latency(0.02))
    source = sources(entity="Users")
    results = await asyncio.gather(*(ask(source) for _ in range(20)))
    assert all(isinstance(result, Found) for result in results)
    await ask(source)
    assert [call.target for call in vendor.calls].count("/api/v1/entities") == 1


async def test_a_text_of_digits_is_a_name_first_and_then_an_id(vendor: VendorServer, sources: Any) -> None:
    other = vendor.add_collection("1", {"o1": {"other": True}})
    assert other.number != 1
    assert isinstance(await ask(sources(entity="1"), "o1"), Found)
    assert isinstance(await ask(sources(entity=str(other.number)), "o1"), Found)
    assert isinstance(await ask(sources(entity=1), "u1"), Found)


@pytest.mark.parametrize("entity", ["Nobody", "99", 99])
async def test_an_entity_that_is_not_listed_is_a_configuration_error(sources: Any, entity: str | int) -> None:
    source = sources(entity=entity)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"'{entity}' does not exist; the key sees 'Users'"):
            await ask(source)


async def test_a_name_of_several_entities_is_a_configuration_error(vendor: VendorServer, sources: Any) -> None:
    twin = vendor.add_collection("Users", {})
    with pytest.raises(ConfigurationError, match=f"several .*{twin.number}"):
        await ask(sources())


async def test_a_key_that_sees_nothing_is_said(vendor: VendorServer, sources: Any) -> None:
    vendor.always(faults.Respond(200, {"data": []}), match="/entities")
    with pytest.raises(ConfigurationError, match="sees none at all"):
        await ask(sources())


async def test_a_long_list_is_cut_in_the_message(vendor: VendorServer, sources: Any) -> None:
    for number in range(30):
        vendor.add_collection(f"More {number}", {})
    with pytest.raises(ConfigurationError, match="and 11 more"):
        await ask(sources(entity="Nobody"))


async def test_a_missing_record_checks_the_entity_once(vendor: VendorServer, sources: Any) -> None:
    source = sources(entity=vendor.entity_id)
    for number in range(5):
        assert await ask(source, f"nobody-{number}") == NotFound()
    assert [call.target for call in vendor.calls].count("/api/v1/entities") == 1


async def test_the_entity_is_checked_again_after_a_while(
    vendor: VendorServer, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources(entity=vendor.entity_id)
    assert await ask(source, "nobody") == NotFound()
    vendor.always(faults.Respond(200, {"data": [{"id": 77, "name": "Other"}]}), match=lambda c: c.path.endswith("es"))
    assert await ask(source, "nobody") == NotFound()
    monkeypatch.setattr(_collection, "CONFIRM_SECONDS", -1.0)
    with pytest.raises(ConfigurationError, match="does not exist"):
        await ask(source, "nobody")


async def test_an_entity_that_was_made_anew_under_its_name_is_found_again(
    vendor: VendorServer, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_collection, "CONFIRM_SECONDS", -1.0)
    vendor.script(faults.Respond(200, {"data": [{"id": 50, "name": "Users"}]}))  # it had the id 50 at first
    source = sources()
    assert await ask(source, "nobody") == NotFound()
    assert isinstance(await ask(source), Found)
    assert [target.split("/")[4] for target in record_calls(vendor)] == ["50", "1", "1"]


async def test_the_list_of_a_moment_ago_is_trusted(vendor: VendorServer, sources: Any) -> None:
    vendor.script(faults.Respond(200, {"data": [{"id": 50, "name": "Users"}]}))
    assert await ask(sources(), "nobody") == NotFound()
    assert [target.split("/")[4] for target in record_calls(vendor)] == ["50"]


async def test_E8_while_the_list_cannot_be_fetched_no_record_is_missing(vendor: VendorServer, sources: Any) -> None:
    """E8: the entity may not exist at all. Once a record was read from it, it does."""
    source = sources(entity=vendor.entity_id)
    vendor.always(faults.ServerError(), match=lambda call: call.path.endswith("/entities"))
    with pytest.raises(SourceUnavailable):
        await ask(source, "nobody")
    assert isinstance(await ask(source, "u1"), Found)
    assert await ask(source, "nobody") == NotFound()
    assert [call.target for call in vendor.calls].count("/api/v1/entities") == 1


async def test_data_null_is_not_found(vendor: VendorServer, sources: Any) -> None:
    vendor.script(faults.Respond(200, {"data": None}))
    assert await ask(sources(entity=1)) == NotFound()


async def test_an_empty_record_is_found(vendor: VendorServer, sources: Any) -> None:
    vendor.script(faults.Respond(200, {"data": {}}))
    found = await ask(sources(entity=1))
    assert isinstance(found, Found)
    assert len(found.record.attributes) == 0


@pytest.mark.parametrize(
    "body", [{}, [], 5, "x", None, {"data": []}, {"data": "u1"}, {"data": json.loads('{"a":' * 90 + "1" + "}" * 90)}]
)
async def test_answers_that_are_not_as_documented(vendor: VendorServer, sources: Any, body: object) -> None:
    vendor.script(faults.Respond(200, body if isinstance(body, dict | list) else json.dumps(body)))
    with pytest.raises(SourceResponseError):
        await ask(sources(entity=1))


@pytest.mark.parametrize(
    "rows",
    [
        {"id": 1},
        ["x"],
        [{"id": "1", "name": "Users"}],
        [{"id": 1}],
        [{"id": True, "name": "Users"}],
        None,
    ],
)
async def test_lists_that_are_not_as_documented(vendor: VendorServer, sources: Any, rows: object) -> None:
    vendor.script(faults.Respond(200, {"data": rows}))
    with pytest.raises(SourceResponseError):
        await sources().entities()


async def test_entities_are_listed(vendor: VendorServer, sources: Any) -> None:
    vendor.add_collection("Companies", {})
    source = sources(entity="whatever")
    assert await source.entities() == [Entity(1, "Users", 1), Entity(2, "Companies", 1)]
    vendor.script(faults.Respond(200, {"data": [{"id": 3, "name": "No library", "library_id": None}]}))
    assert await source.entities(timeout=2) == [Entity(3, "No library")]
    vendor.script(faults.Hang())
    with pytest.raises(SourceTimeout):
        await source.entities(timeout=0.05)


async def test_a_wrong_key_is_an_auth_error(vendor: VendorServer, sources: Any) -> None:
    source = sources(api_key="wrong-planted-key")
    for entity in ("Users", 1):
        with pytest.raises(SourceAuthError) as caught:
            await ask(sources(api_key="wrong-planted-key", entity=entity))
        assert caught.value.status == 401
        assert "planted" not in str(caught.value)
    with pytest.raises(SourceAuthError):
        await source.entities()


@pytest.mark.parametrize(
    ("fault", "kind", "wait"),
    [
        (faults.RateLimited(7), SourceRateLimited, 7.0),
        (faults.RateLimited(), SourceRateLimited, None),
        (faults.Unavailable(3), SourceUnavailable, 3.0),
        (faults.ServerError(), SourceUnavailable, None),
        (faults.Redirect(), SourceResponseError, None),
        (faults.Garbage(), SourceResponseError, None),
    ],
    ids=repr,
)
async def test_failures_are_named(
    vendor: VendorServer, sources: Any, fault: faults.Fault, kind: type[SourceError], wait: float | None
) -> None:
    vendor.script(fault)
    with pytest.raises(kind) as caught:
        await ask(sources(entity=1))
    assert caught.value.retry_after == wait


async def test_L7_a_304_renews_what_is_at_hand(sources: Any) -> None:
    with VendorServer({"u1": {"a": 1}}, key=KEY, etags=True) as vendor:
        vendor.headers["cache-control"] = "max-age=30"
        source = CensusSource(KEY, entity=1, base_url=vendor.base_url)
        found = await ask(source)
        assert isinstance(found, Found)
        assert found.freshness.max_age == 30.0
        assert found.freshness.validators is not None
        renewed = await ask(source, validators=found.freshness.validators)
        assert isinstance(renewed, NotModified)
        assert renewed.freshness.max_age == 30.0
        vendor.profiles["u1"] = {"a": 2}
        assert isinstance(await ask(source, validators=found.freshness.validators), Found)
        assert await ask(source, "nobody", validators=Validators('"x"')) == NotFound()
        await source.aclose()


async def test_only_the_primary_id_is_looked_up(vendor: VendorServer, sources: Any) -> None:
    with pytest.raises(InvalidKeyError, match="type 'id'"):
        await sources().fetch(ProfileKey("a@b.example", "email"), deadline=Deadline(1))
    assert vendor.call_count == 0


def test_regions_and_namespaces() -> None:
    us, eu = CensusSource("k1", entity="Users"), CensusSource("k1", entity="Users", region="eu")
    assert us.base_url == "https://app.getcensus.com/api/v1"
    assert eu.base_url == "https://app-eu.getcensus.com/api/v1"
    others = [us, eu, CensusSource("k2", entity="Users"), CensusSource("k1", entity="1"), CensusSource("k1", entity=1)]
    assert len({source.namespace for source in others}) == 5
    assert us.namespace == CensusSource("k1", entity="Users").namespace
    assert "k1" not in us.namespace.split("|")
    assert us.name == "census"
    assert us.transport_name == "aiohttp"
    assert CensusSource("k", entity=1, transport="httpx").transport_name == "httpx"
    assert repr(us) == "<CensusSource entity 'Users' at https://app.getcensus.com/api/v1>"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"api_key": ""}, "api_key"),
        ({"api_key": "planted\n"}, "api_key"),
        ({"entity": ""}, "entity"),
        ({"entity": True}, "entity"),
        ({"entity": -1}, "entity"),
        ({"entity": None}, "entity"),
        ({"region": "mars"}, "region"),
        ({"base_url": "http://h.example"}, "base_url"),
        ({"base_url": ""}, "base_url"),
        ({"transport": "curl"}, "transport"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], names: str) -> None:
    arguments: dict[str, Any] = {"api_key": "k", "entity": "Users", **changes}
    with pytest.raises(ConfigurationError, match=names) as caught:
        CensusSource(**arguments)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "body", ['{"data":{"id":"u2","tier":"gold"}}', '{"data":{"tier":"gold"}}', '{"data":{"id":null}}']
)
async def test_L9_another_persons_record_is_refused(vendor: VendorServer, sources: Any, body: str) -> None:
    """L9: a proxy that mixes up responses never gives another's record if the id column is known."""
    source = sources(entity=vendor.entity_id, id_column="id")
    assert isinstance(await ask(source), Found)
    vendor.script(faults.Respond(200, body.encode(), {"Content-Type": "application/json"}), match="record")
    with pytest.raises(SourceResponseError, match="another record") as raised:
        await ask(source)
    assert "u1" not in str(raised.value)


@pytest.mark.parametrize("name", ["", 5])
def test_the_id_column_is_a_name(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="id_column"):
        CensusSource("secret", entity="Users", id_column=name)
