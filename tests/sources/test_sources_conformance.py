"""A conformance suite for every source: the guarantees of `ProfileSource`.

To make a source take part, add a function to `WORLDS` that puts `PROFILES` behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import InvalidKeyError, ProfileEnrichError, SourceTimeout
from profile_enrich.profile import ProfileKey
from profile_enrich.sources.amperity import AmperitySource
from profile_enrich.sources.base import Found, NotFound, ProfileSource, SourceResult
from profile_enrich.sources.bearer_tokens import ClientCredentials, IssuerToken
from profile_enrich.sources.census import CensusSource
from profile_enrich.sources.memory import MemorySource
from profile_enrich.sources.store import StoreSource
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.testing import Call, VendorServer, faults

HOSTILE = [
    "a/b",
    "/",
    "a//b/",
    "a?b=c",
    "a&limit=9",
    "a&record_id=u1",
    "a#b",
    "a+b",
    "100%",
    "%2e%2e",
    "%2F",
    "%",
    "%zz",
    " ",
    " a b ",
    ".",
    "..",
    "../u1",
    "../../entities",
    "..;/x",
    "a\nb",
    "a\r\nX-Evil: 1\r\n\r\nGET /x HTTP/1.1",
    "\0",
    "a\0b",
    "\x7f\x1b[0m",
    "a\tb",
    "ü",
    "é",
    "用户",
    "🦊",
    "\u2028\u202e\ufeff",
    "a\\b",
    "a;b=c",
    "a,b",
    "'\"<script>",
    "{id}",
    "$(id)",
    "' OR 1=1 --",
    "null",
    "x" * 2048,
]
SECRETS = ["planted-api-key", "planted-client-secret", "planted-issuer"]
PERSON = "planted.person@example.com"
VALUE = "planted-attribute-value"


def profiles() -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {
        id: {"me": f"me-{number}", "email": id} for number, id in enumerate(["u1", *HOSTILE])
    }
    return {**made, PERSON: {"me": VALUE, "email": PERSON, "list": "[1]"}}


@dataclass
class World:
    """A source, and the vendor behind it."""

    source: ProfileSource
    another: Callable[[], ProfileSource]
    """A second source of the same kind that asks for other data."""
    type: str = "id"
    vendor: VendorServer | None = None
    address: Callable[[Call], str | None] = field(default=lambda call: None)
    """The identifier in a call, if nothing but the identifier is different from what it should be."""
    other_types: bool = False
    """Whether keys of any type can be looked up."""

    async def ask(self, value: str, seconds: float = 30.0) -> SourceResult:
        return await self.source.fetch(ProfileKey(value, self.type), deadline=Deadline(seconds))

    def lookups(self) -> list[Call]:
        """The calls that asked for a profile (not for lists, and not for tokens)."""
        assert self.vendor is not None
        return [call for call in self.vendor.calls if "record" in call.raw_path or "/profiles" in call.raw_path]


def _memory(vendor: VendorServer, path: Path) -> World:
    return World(MemorySource(profiles()), lambda: MemorySource({}, name="other"), other_types=True)


def _census(transport: Any) -> Callable[[VendorServer, Path], World]:
    def build(vendor: VendorServer, path: Path) -> World:
        def make(entity: str | int) -> CensusSource:
            return CensusSource(SECRETS[0], entity=entity, base_url=vendor.base_url, transport=transport)

        def address(call: Call) -> str | None:
            ((name, value),) = call.query
            good = call.raw_path == f"/api/v1/entities/{vendor.entity_id}/record" and name == "record_id"
            return value if good else None

        return World(make("Users"), lambda: make(2), vendor=vendor, address=address)

    return build


def _amperity(token: Callable[[VendorServer], Any], type: str) -> Callable[[VendorServer, Path], World]:
    def build(vendor: VendorServer, path: Path) -> World:
        def make(index: str) -> AmperitySource:
            return AmperitySource(index=index, tenant="acme", token=token(vendor), base_url=vendor.amperity_url)

        base = f"/api/indexes/{vendor.index_id}/profiles"

        def by_id(call: Call) -> str | None:
            good = call.raw_path.startswith(base + "/") and call.raw_path.count("/") == base.count("/") + 1
            return unquote(call.raw_path.rpartition("/")[2]) if good and not call.query else None

        def by_filter(call: Call) -> str | None:
            (limit, (name, value)) = call.query
            good = call.raw_path == base and limit == ("limit", "2") and name == f"filter[{type}]"
            return value if good else None

        return World(
            make("Users"),
            lambda: make("Others"),
            type,
            vendor,
            by_id if type == "id" else by_filter,
            other_types=True,
        )

    return build


def _store(type: str) -> Callable[[VendorServer, Path], World]:
    def build(vendor: VendorServer, path: Path) -> World:
        rows = [{"id": id, **attributes} for id, attributes in profiles().items()]
        build_store(path / "s", [CollectionSpec("Users", rows, filterable=["email"]), CollectionSpec("Others", rows)])
        source = StoreSource(path / "s", collection="Users")
        return World(source, lambda: StoreSource(path / "s", collection="Others"), type)

    return build


WORLDS: dict[str, Callable[[VendorServer, Path], World]] = {
    "memory": _memory,
    "store": _store("id"),
    "store-filter": _store("email"),
    "census": _census("auto"),
    "census-httpx": _census("httpx"),
    "census-httpx2": _census("httpx2"),
    "amperity-id": _amperity(lambda vendor: SECRETS[0], "id"),
    "amperity-filter": _amperity(lambda vendor: SECRETS[0], "email"),
    "amperity-oauth": _amperity(lambda v: ClientCredentials(v.token_url, "client", SECRETS[1], "acme"), "id"),
    "amperity-issuer": _amperity(lambda v: IssuerToken("key-1", SECRETS[2], "acme", v.amperity_url), "id"),
}
OVER_HTTP = [name for name in WORLDS if not name.startswith(("memory", "store"))]


@pytest.fixture(scope="module")
def server() -> Generator[VendorServer]:
    with VendorServer(
        profiles(), key=SECRETS[0], client_secret=SECRETS[1], issuer_key=SECRETS[2], id_column="id"
    ) as running:
        yield running


@pytest.fixture
def vendor(server: VendorServer) -> Iterator[VendorServer]:
    server.heal()
    server.reset_calls()
    yield server
    server.heal()
    server.release()


@pytest.fixture
async def world(request: pytest.FixtureRequest, vendor: VendorServer, tmp_path: Path) -> AsyncGenerator[World]:
    built = WORLDS[request.param](vendor, tmp_path)
    yield built
    await built.source.aclose()


every = pytest.mark.parametrize("world", list(WORLDS), indirect=True)
over_http = pytest.mark.parametrize("world", OVER_HTTP, indirect=True)


@every
async def test_it_follows_the_protocol(world: World) -> None:
    assert isinstance(world.source, ProfileSource)
    assert world.source.name.isidentifier()
    assert world.source.name == world.source.name.lower()


@every
async def test_a_record_is_found_and_frozen(world: World) -> None:
    found = await world.ask("u1")
    assert isinstance(found, Found)
    assert found.record.attributes["me"] == "me-0"
    assert found.record.source == world.source.name
    assert found.record.id == "u1"
    assert not found.record.truncated
    with pytest.raises(TypeError):
        found.record.attributes["me"] = "changed"  # type: ignore[index]  # on purpose


@every
async def test_a_missing_record_is_not_found(world: World) -> None:
    for value in ("nobody", "U1", "u1 ", "u"):
        assert await world.ask(value) == NotFound()


@every
async def test_any_identifier_arrives_as_it_is_or_is_refused_before_a_call(world: World) -> None:
    refused: list[str] = []
    arrived: list[tuple[str, object]] = []
    for value in HOSTILE:
        try:
            found = await world.ask(value)
        except InvalidKeyError:
            refused.append(value)
        else:
            arrived.append((value, found.record.attributes["me"] if isinstance(found, Found) else None))
    # Where the identifier is a segment of the path, two cannot stand in any URL.
    assert refused in ([], [".", ".."])
    assert arrived == [(value, f"me-{at + 1}") for at, value in enumerate(HOSTILE) if value not in refused]
    if world.vendor is not None:
        assert [world.address(call) for call in world.lookups()] == [value for value, _ in arrived]


@pytest.mark.parametrize("value", ["", None, 5, b"u1", "x" * 4096, "ü" * 1025, "\ud800", ["u1"]])
def test_what_is_no_identifier_never_reaches_a_source(value: Any) -> None:
    with pytest.raises(InvalidKeyError):
        ProfileKey(value)


@every
async def test_a_type_that_the_source_has_not_is_refused_before_a_call(world: World) -> None:
    key = ProfileKey("u1", "no_such_attribute")
    if world.other_types:
        with contextlib.suppress(ProfileEnrichError):  # Amperity answers 400 for an attribute without a filter
            assert await world.source.fetch(key, deadline=Deadline(5)) == NotFound()
        return
    with pytest.raises(InvalidKeyError):
        await world.source.fetch(key, deadline=Deadline(5))
    assert world.vendor is None or world.vendor.call_count == 0


@every
async def test_L9_many_at_once_get_each_their_own(world: World) -> None:
    asked = [value for value in HOSTILE if value not in (".", "..")] * 3
    results = await asyncio.gather(*(world.ask(value) for value in asked))
    got = [result.record.attributes["me"] if isinstance(result, Found) else None for result in results]
    assert got == [f"me-{HOSTILE.index(value) + 1}" for value in asked]


@over_http
async def test_L2_a_cancelled_lookup_leaves_the_source_in_order(world: World) -> None:
    assert world.vendor is not None
    await world.ask("u1")
    for _ in range(3):
        world.vendor.reset_calls()
        world.vendor.script(faults.Hang())
        task = asyncio.create_task(world.ask("u1"))
        await world.vendor.calls_reached(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(await world.ask("u1"), Found)


@over_http
async def test_a_hanging_vendor_is_a_timeout_at_the_deadline(world: World) -> None:
    assert world.vendor is not None
    world.vendor.always(faults.Hang())
    began = time.monotonic()
    with pytest.raises(SourceTimeout):
        await world.ask("u1", 0.1)
    assert time.monotonic() - began < 10
    world.vendor.heal()
    world.vendor.release()
    assert isinstance(await world.ask("u1"), Found)


@every
async def test_L14_closing_frees_and_the_source_can_be_used_again(world: World) -> None:
    await world.source.aclose()
    assert isinstance(await world.ask("u1"), Found)
    await world.source.aclose()
    await world.source.aclose()
    assert isinstance(await world.ask("u1"), Found)


@pytest.mark.parametrize("name", list(WORLDS))
def test_L9_it_works_on_one_loop_after_the_other(name: str, vendor: VendorServer, tmp_path: Path) -> None:
    world = WORLDS[name](vendor, tmp_path)
    for _ in range(3):
        assert isinstance(asyncio.run(world.ask("u1")), Found)
    asyncio.run(world.source.aclose())


@pytest.mark.parametrize("name", list(WORLDS))
async def test_L9_it_works_on_several_loops_at_once(name: str, vendor: VendorServer, tmp_path: Path) -> None:
    world = WORLDS[name](vendor, tmp_path)

    async def several() -> list[SourceResult]:
        return await asyncio.gather(*(world.ask("u1") for _ in range(5)))

    results = await asyncio.gather(several(), *(asyncio.to_thread(asyncio.run, several()) for _ in range(3)))
    assert all(isinstance(result, Found) for batch in results for result in batch)
    await world.source.aclose()


async def test_L9_no_two_sources_share_a_namespace(vendor: VendorServer, tmp_path: Path) -> None:
    worlds = [build(vendor, tmp_path) for name, build in WORLDS.items() if "-" not in name or name == "amperity-id"]
    sources = [source for world in worlds for source in (world.source, world.another())]
    assert len({source.namespace for source in sources}) == len(sources)
    for source in sources:
        assert source.namespace == source.namespace
        assert not any(secret in source.namespace for secret in SECRETS)
        await source.aclose()


FAULTS = [
    faults.Hang(),
    faults.Reset(),
    faults.Reset("in_body"),
    faults.Truncated(),
    faults.Garbage(),
    faults.WrongType(),
    faults.Redirect(),
    faults.Unauthorized(),
    faults.RateLimited(1),
    faults.ServerError(),
    faults.Respond(400, {"message": f"{PERSON} {SECRETS[0]}", "request_id": PERSON}, {"X-Request-Id": SECRETS[0]}),
    faults.Respond(500, {"error": {"message": "planted.person%40example.com"}}),
    faults.Respond(200, {"data": {"me": VALUE}, "id": PERSON, "index_id": VALUE, "attributes": [VALUE]}),
    faults.Respond(200, {"data": [{"id": "other", "index_id": "i", "attributes": {"email": VALUE}}]}),
]


@every
async def test_A18_nothing_that_is_emitted_holds_a_person_or_a_secret(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "asyncio", "profile_enrich"):
            caplog.set_level(logging.DEBUG, logger=name)
    emitted: list[str] = [repr(world.source), str(world.source), world.source.namespace]
    emitted += [repr(await world.ask(PERSON)), repr(await world.ask(PERSON + "x"))]
    emitted.append(repr(ProfileKey(PERSON, world.type)))
    if world.vendor is not None:
        for fault in FAULTS:
            world.vendor.always(fault)
            try:
                emitted.append(repr(await world.ask(PERSON, 0.1)))
            except ProfileEnrichError as error:
                assert error.__cause__ is None  # noqa: PT017  # what is raised differs with the fault
                assert error.__context__ is None  # noqa: PT017
                emitted += [repr(error), str(error), repr(vars(error)), *traceback.format_exception(error)]
            world.vendor.heal()
            world.vendor.release()
    await world.source.aclose()
    for record in caplog.records:
        emitted += [record.getMessage(), repr(record.__dict__)]
    emitted += capfd.readouterr()
    everything = "\n".join(emitted).lower()
    for planted in (*SECRETS, PERSON, "planted.person", VALUE, "planted"):
        # The tests' own file and function names do not begin with it.
        assert planted.lower() not in everything
