"""The relay in front of a vendor that is slow, faulty or shut down."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from profile_enrich import AmperitySource, CensusSource
from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.relay import Relay, compare, mirror_ids, mirror_index
from profile_enrich.server import ApiKey
from profile_enrich.store import CollectionSpec
from profile_enrich.store.mirror_store import MirrorStore
from profile_enrich.testing import VendorServer, faults

SECRET = "the-secret-of-the-relay"
HEAD = {"authorization": f"Bearer {SECRET}", "amperity-tenant": "default", "api-version": "2025-07-31"}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def vendor() -> Generator[VendorServer]:
    people: dict[str, dict[str, object]] = {f"u{n}": {"tier": "gold", "n": n} for n in range(40)}
    with VendorServer(profiles=people, entity="Users", key="vendors-key", tenant="acme", id_column="user_id") as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mirror(tmp_path: Path, clock: Clock, vendor: VendorServer) -> Generator[MirrorStore]:
    with MirrorStore(tmp_path / "users.mirror", clock=clock) as store:
        store.add_collection("Users", key="user_id", id=vendor.entity_id, index_id=vendor.index_id, filterable=["tier"])
        yield store


def census(vendor: VendorServer) -> CensusSource:
    return CensusSource("vendors-key", entity="Users", base_url=vendor.base_url, id_column="user_id")


@pytest.fixture
async def relay(mirror: MirrorStore, vendor: VendorServer) -> AsyncGenerator[Relay]:
    made = Relay(mirror, {"Users": census(vendor)}, max_age=100, missing_max_age=10, budget=10, deadline=20)
    async with made:
        yield made


@pytest.fixture
async def client(relay: Relay) -> AsyncGenerator[httpx.AsyncClient]:
    api = relay.app(keys=[ApiKey.from_secret(SECRET), ApiKey.from_secret("a-key-of-another-kind", entities=["Other"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://relay", headers=HEAD) as made:
        yield made
    api.close()


def record(vendor: VendorServer, id: str) -> str:
    return f"/api/v1/entities/{vendor.entity_id}/record?record_id={id}"


def calls(vendor: VendorServer) -> int:
    return sum("record" in call.path for call in vendor.calls)


async def test_R1_what_is_lacking_is_asked_for_once_and_then_served_from_the_mirror(
    client: httpx.AsyncClient, vendor: VendorServer
) -> None:
    vendor.always(faults.Latency(0.1))
    answers = await asyncio.gather(*(client.get(record(vendor, "u7")) for _ in range(50)))
    assert {(each.status_code, each.text) for each in answers} == {
        (200, '{"data":{"user_id":"u7","tier":"gold","n":7}}')
    }
    assert calls(vendor) == 1
    assert (await client.get(f"/api/indexes/{vendor.index_id}/profiles/u7")).json()["attributes"]["n"] == "7"
    assert calls(vendor) == 1
    page = (await client.get(f"/api/indexes/{vendor.index_id}/profiles?filter[tier]=gold&with_total=true")).json()
    assert ([row["id"] for row in page["data"]], page["total"]) == (["u7"], 1)


async def test_R1_what_is_too_old_is_asked_for_again(
    client: httpx.AsyncClient, vendor: VendorServer, clock: Clock
) -> None:
    await client.get(record(vendor, "u1"))
    assert (await client.get(record(vendor, "nobody"))).status_code == 404
    vendor.profiles["u1"] = {"tier": "platinum"}
    vendor.profiles["nobody"] = {"tier": "new"}
    asked = calls(vendor)
    assert (await client.get(record(vendor, "u1"))).json()["data"]["tier"] == "gold"
    assert (await client.get(record(vendor, "nobody"))).status_code == 404
    assert calls(vendor) == asked
    clock.now += 11
    assert (await client.get(record(vendor, "nobody"))).json()["data"]["tier"] == "new"
    assert (await client.get(record(vendor, "u1"))).json()["data"]["tier"] == "gold"
    clock.now += 100
    assert (await client.get(record(vendor, "u1"))).json()["data"]["tier"] == "platinum"


async def test_R2_a_batch_is_filled_too(client: httpx.AsyncClient, vendor: VendorServer) -> None:
    answer = await client.post(f"/api/x/entities/{vendor.entity_id}/records", json={"ids": ["u1", "x", "u2", "u1"]})
    assert [row["found"] for row in answer.json()["data"]] == [True, False, True, True]
    assert calls(vendor) == 3


async def test_R2_who_may_not_ask_costs_the_vendor_nothing(client: httpx.AsyncClient, vendor: VendorServer) -> None:
    for key, status in (("wrong-wrong-wrong-wrong", 401), ("a-key-of-another-kind", 403)):
        answer = await client.get(record(vendor, "u1"), headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status
    assert calls(vendor) == 0


@pytest.mark.parametrize(
    "fault",
    [faults.ServerError(), faults.Reset(), faults.Garbage(), faults.Unauthorized()],
    ids=lambda f: type(f).__name__,
)
async def test_R3_a_vendor_that_fails_changes_nothing_that_is_mirrored(
    client: httpx.AsyncClient, vendor: VendorServer, clock: Clock, fault: Any
) -> None:
    before = (await client.get(record(vendor, "u1"))).content
    vendor.always(fault)
    clock.now += 1000
    for _ in range(5):
        answer = await client.get(record(vendor, "u1"))
        assert (answer.status_code, answer.content) == (200, before)
    # This key is unknown to the mirror, which is not "no such record".
    assert (await client.get(record(vendor, "u2"))).status_code == 503
    vendor.heal()


@pytest.mark.long
async def test_R3_a_slow_vendor_costs_the_budget_and_its_answer_is_kept(
    client: httpx.AsyncClient, vendor: VendorServer, clock: Clock, relay: Relay
) -> None:
    await client.get(record(vendor, "u1"))
    vendor.profiles["u1"] = {"tier": "later"}
    vendor.always(faults.Hang())
    relay._budget = 0.2
    clock.now += 1000
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await client.get(record(vendor, "u1"))).json()["data"]["tier"] == "gold"
    assert 0.15 < loop.time() - began < 10
    vendor.heal()
    vendor.release()
    async with asyncio.timeout(30):
        while (await client.get(record(vendor, "u1"))).json()["data"]["tier"] != "later":
            await asyncio.sleep(0.01)
    assert calls(vendor) == 2


async def test_R3_not_found_to_everything_deletes_nothing(
    client: httpx.AsyncClient, vendor: VendorServer, mirror: MirrorStore, clock: Clock, relay: Relay
) -> None:
    """A vendor whose shutdown shows as an empty database, or as 404 from a gateway."""
    for n in range(10):
        await client.get(record(vendor, f"u{n}"))
    again = Relay(mirror, {"Users": census(vendor)}, max_age=100)  # it never saw the vendor find anything
    vendor.profiles.clear()
    clock.now += 1000
    async with again:
        api = again.app(no_auth=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://relay") as asking:
            for n in range(10):
                assert (await asking.get(record(vendor, f"u{n}"))).status_code == 200
    assert mirror.collections()[0].rows == 10


async def test_R3_a_record_that_is_really_gone_is_removed(
    client: httpx.AsyncClient, vendor: VendorServer, clock: Clock
) -> None:
    await client.get(record(vendor, "u1"))
    clock.now += 1000
    del vendor.profiles["u1"]
    await client.get(record(vendor, "u2"))  # the vendor is healthy
    assert (await client.get(record(vendor, "u1"))).status_code == 404


async def test_R4_the_vendors_end_loses_nothing_that_was_mirrored(
    vendor: VendorServer, tmp_path: Path, mirror: MirrorStore, clock: Clock
) -> None:
    """The whole migration: mirror, compare, switch, shutdown of the vendor, and loading of the warehouse's table."""
    source = census(vendor)
    ids = [f"u{n}" for n in range(40)] + ["nobody"]
    vendor.script(faults.ServerError(), faults.Reset())  # a run repeats what failed
    report = await mirror_ids(source, mirror, "Users", ids, rate=500)
    assert (report.found, report.missing, report.failed, report.fresh) == (40, 1, 0, 0)
    asked = calls(vendor)
    report = await mirror_ids(source, mirror, "Users", ids)
    assert (report.fresh, calls(vendor)) == (41, asked)
    assert (await compare(source, mirror, "Users", ids)).equal
    vendor.profiles["u1"] = {"tier": "other", "n": "1"}
    vendor.profiles["nobody"] = {"tier": "new"}
    del vendor.profiles["u2"]
    found = await compare(source, mirror, "Users", ids)
    assert (found.same, found.different, found.only_vendor, found.only_store) == (38, 1, 1, 1)
    assert dict(found.attributes) == {"tier": 1, "n": 1}
    assert dict(found.types) == {"n": 1}
    assert "other" not in repr(found)
    assert "u1" not in repr(found)
    before = {id: mirror.get_payload("Users", id) for id in ids}
    vendor.close()  # 2027-01-15
    clock.now += 10**8
    relay = Relay(mirror, {"Users": source}, deadline=30, budget=0.1)
    async with relay:
        api = relay.app(keys=[ApiKey.from_secret(SECRET)])
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=api), base_url="http://r", headers=HEAD
        ) as asking:
            for id in ids:
                answer = await asking.get(record(vendor, id))
                expected = before[id]
                assert (
                    (answer.status_code, answer.content) == (200, expected) if expected else answer.status_code == 404
                )
            assert (await asking.get("/api/v1/entities")).json()["data"][0]["id"] == vendor.entity_id
            table = tmp_path / "warehouse.jsonl"
            table.write_text(
                "".join(json.dumps({"user_id": id, "tier": "of the table"}) + "\n" for id in ["u1", "new"])
            )
            assert mirror.load(CollectionSpec("Users", table, key="user_id")) == 2
    with MirrorStore(tmp_path / "users.mirror") as store:  # without a vendor: the same file, the same URLs
        api = Relay(store, {}).app(keys=[ApiKey.from_secret(SECRET)])
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=api), base_url="http://r", headers=HEAD
        ) as asking:
            assert (await asking.get(record(vendor, "new"))).json()["data"]["tier"] == "of the table"
            assert (await asking.get(record(vendor, "u1"))).json()["data"]["tier"] == "of the table"
            assert (await asking.get(record(vendor, "u3"))).json()["data"]["tier"] == "gold"
            assert (await asking.get(record(vendor, "never"))).status_code == 404


@pytest.mark.parametrize("name", ["u.csv", "u.jsonl"])
def test_E5_a_table_that_is_replaced_while_a_mirror_takes_it_in_changes_nothing(
    mirror: MirrorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """E5: by another one of the same size, with its time put back, after some rows were taken in."""
    source = tmp_path / name
    head, line = (
        ("id,tier\n", "u{n:04},{v}{n:04}\n")
        if name == "u.csv"
        else (
            "",
            '{{"id":"u{n:04}","tier":"{v}{n:04}"}}\n',
        )
    )
    rows = {value: head + "".join(line.format(n=n, v=value) for n in range(2_000)) for value in "abc"}
    source.write_text(rows["a"])
    assert mirror.load(CollectionSpec("Users", source)) == 2_000
    source.write_text(rows["b"])
    facts, written, taken_in = source.stat(), MirrorStore._write, list[str]()

    def write(self: MirrorStore, run: Any, known: Any, key: str, text: str) -> None:
        written(self, run, known, key, text)
        taken_in.append(key)
        if len(taken_in) == 500:
            (tmp_path / "other").write_text(rows["c"])
            (tmp_path / "other").replace(source)
            os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    monkeypatch.setattr(MirrorStore, "_write", write)
    with pytest.raises(StoreError, match="changed while it was read"):
        mirror.load(CollectionSpec("Users", source))
    assert len(taken_in) >= 500
    for key in ("u0001", "u1999"):
        found = mirror.get("Users", key)
        assert found is not None
        assert found.attributes["tier"] == f"a{key[1:]}"


async def test_R5_an_amperity_index_is_mirrored_by_paging(
    vendor: VendorServer, mirror: MirrorStore, clock: Clock
) -> None:
    source = AmperitySource(index="Users", tenant="acme", token="vendors-key", base_url=vendor.amperity_url)
    report = await mirror_index(source, mirror, "Users", limit=7)
    assert report.found == 40
    relay = Relay(mirror, {"Users": source}, max_age=100)
    async with relay:
        api = relay.app(keys=[ApiKey.from_secret(SECRET)])
        theirs = await source.list_profiles({"tier": "gold"}, limit=40)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=api), base_url="http://r", headers=HEAD
        ) as asking:
            url = f"/api/indexes/{vendor.index_id}/profiles"
            ours = (await asking.get(f"{url}?filter[tier]=gold&limit=40")).json()["data"]
            assert {row["id"]: row["attributes"] for row in ours} == {row.id: row.attributes for row in theirs.data}
            vendor.profiles["later"] = {"tier": "gold"}
            assert (await asking.get(f"{url}/later")).status_code == 200
            vendor.close()
            clock.now += 1000
            assert (await asking.get(f"{url}/u7")).status_code == 200


def test_a_source_needs_its_collection(mirror: MirrorStore, vendor: VendorServer) -> None:
    with pytest.raises(ConfigurationError, match="no collection 'Orders'"):
        Relay(mirror, {"Orders": census(vendor)})


async def test_odd_ids_reach_nobody(client: httpx.AsyncClient, vendor: VendorServer) -> None:
    for id in ("%00", "%ED%A0%80", "%F0%9F%98%80", "a%2Fb", "x" * 2000):
        assert (await client.get(record(vendor, id))).status_code in (400, 404)
