"""The frames of a source's exception hold no value of a vendor's response."""

from __future__ import annotations

import json
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import AmperitySource, CensusSource, MemorySource, ProfileClient, ProfileKey, StoreSource
from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import ProfileEnrichError
from profile_enrich.store import CollectionSpec, LocalStore, build_store
from profile_enrich.testing import VendorServer, faults

PLANTED = "Planted-Ann"


def nested(depth: int = 80) -> dict[str, Any]:
    value: dict[str, Any] = {"name": PLANTED}
    for _ in range(depth):
        value = {"in": value}
    return value


CENSUS: dict[str, Any] = {
    "another person's": {"data": {"id": PLANTED, "name": PLANTED}},
    "no object": {"data": [PLANTED]},
    "no data": {PLANTED: PLANTED},
    "nested too deeply": {"data": {"id": "u1", **nested()}},
    "no JSON": f'{{"data": {{"name": "{PLANTED}"'.encode(),
    "NaN": f'{{"data": {{"id": "u1", "name": "{PLANTED}", "n": NaN}}}}'.encode(),
    "not UTF-8": f'{{"data": {{"name": "{PLANTED}"}}}}'.encode() + b"\xff",
    "half a surrogate pair": f'{{"data": {{"name": "{PLANTED}", "x": "\\ud800"}}}}'.encode(),
}

ROW = {"id": "u1", "index_id": "idx-1", "attributes": {"email": "u1", "name": PLANTED}}

AMPERITY: dict[str, Any] = {
    "another person's": {**ROW, "id": PLANTED},
    "no id": {**ROW, "id": None},
    "attributes that are no object": {**ROW, "attributes": [PLANTED]},
    "nested too deeply": {**ROW, "attributes": nested()},
    "no object": [ROW],
    "no JSON": json.dumps(ROW)[:-1].encode(),
}

AMPERITY_LIST: dict[str, Any] = {
    "another person's": {"data": [{**ROW, "attributes": {"email": PLANTED}}]},
    "two": {"data": [ROW, {**ROW, "id": PLANTED}]},
    "a row that is no object": {"data": [ROW, PLANTED]},
    "no array": {"data": ROW},
    "a token that is none": {"data": [ROW], "next_token": 7},
    "a total that is none": {"data": [ROW], "total": PLANTED},
}


async def report_of(fetch: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(Exception) as raised:  # any exception: its frames are checked
        await fetch()
    error = raised.value
    if isinstance(error, ProfileEnrichError):
        assert error.__cause__ is None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename != __file__]
    assert frames
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    values = [repr(value) for frame in frames for value in frame.f_locals.values()]
    return "\n".join([shown, *values])


def respond(vendor: VendorServer, body: Any) -> None:
    vendor.script(faults.Respond(200, body))


def census(vendor: VendorServer) -> CensusSource:
    return CensusSource(api_key="secret", entity=1, id_column="id", base_url=vendor.base_url)


def amperity(vendor: VendorServer) -> AmperitySource:
    return AmperitySource(index="idx-1", tenant="acme", token="secret", base_url=vendor.base_url)


async def fetch(source: Any, key: ProfileKey) -> Any:
    try:
        return await source.fetch(key, deadline=Deadline(5))
    finally:
        await source.aclose()


async def get(source: Any, key: ProfileKey) -> Any:
    client = ProfileClient(source)
    try:
        return await client.get(key)
    finally:
        await client.aclose()


@pytest.mark.parametrize("ask", [fetch, get])
@pytest.mark.parametrize("answer", CENSUS)
async def test_A24_census(answer: str, ask: Any) -> None:
    with VendorServer(key="secret") as vendor:
        respond(vendor, CENSUS[answer])
        report = await report_of(lambda: ask(census(vendor), ProfileKey("u1")))
    assert PLANTED not in report


@pytest.mark.parametrize("ask", [fetch, get])
@pytest.mark.parametrize("answer", [*AMPERITY, *AMPERITY_LIST])
async def test_A24_amperity(answer: str, ask: Any) -> None:
    by_id = answer in AMPERITY and answer != "two"
    with VendorServer(key="secret") as vendor:
        respond(vendor, AMPERITY[answer] if by_id else AMPERITY_LIST[answer])
        key = ProfileKey("u1") if by_id else ProfileKey("u1", "email")
        report = await report_of(lambda: ask(amperity(vendor), key))
    assert PLANTED not in report


async def test_A24_census_in_batches() -> None:
    with VendorServer(key="secret") as vendor:
        source = CensusSource(api_key="secret", entity=1, id_column="id", base_url=vendor.base_url, batch=True)
        for row in ({"id": PLANTED}, {"id": "u1", "record": [PLANTED]}, {"id": "u1", "record": {"id": PLANTED}}):
            respond(vendor, {"data": [row]})
            report = await report_of(lambda: source.fetch_many([ProfileKey("u1")], deadline=Deadline(5)))
            assert PLANTED not in report
        await source.aclose()


@pytest.mark.parametrize("ask", [fetch, get])
async def test_A24_memory(ask: Any) -> None:
    planted = {"u1": nested(), "u2": {"name": PLANTED}}
    report = await report_of(lambda: ask(MemorySource(planted), ProfileKey("u1")))
    assert PLANTED not in report
    report = await report_of(lambda: ask(MemorySource(lambda key: [PLANTED]), ProfileKey("u1")))  # type: ignore[arg-type,return-value]
    assert PLANTED not in report


@pytest.mark.parametrize("ask", [fetch, get])
async def test_A24_store(tmp_path: Path, ask: Any) -> None:
    path = tmp_path / "p.store"
    rows = [{"id": f"u{number}", "name": PLANTED, "city": "Oslo"} for number in range(3)]
    build_store(path, [CollectionSpec("Users", rows, filterable=["city"])])
    with LocalStore(path) as store:
        source = StoreSource(store, collection="Users")
        report = await report_of(lambda: ask(source, ProfileKey("Oslo", "city")))
    assert PLANTED not in report
