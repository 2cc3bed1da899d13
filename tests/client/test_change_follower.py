"""The change follower: removed entries, a lost feed, and closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from profile_enrich import AmperitySource, CensusSource, MemorySource, ProfileClient, ProfileKey, ProfileMiddleware
from profile_enrich.client import change_follower as following
from profile_enrich.errors import (
    ConfigurationError,
    ProfileEnrichError,
    SourceAuthError,
    SourceConnectionError,
    SourceRequestError,
    SourceTimeout,
)
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.sources.base import ChangeBatch
from profile_enrich.store import LocalStore
from profile_enrich.testing import VendorServer

from ..helpers import until
from ..server.helpers import build, served

ADMIN = "the-secret-of-the-admin"
HOUR = 3600.0


class Feed(MemorySource):
    """A source with a scripted feed. An exception in the queue breaks the stream, `None` ends it."""

    def __init__(self, rows: dict[str, dict[str, Any]]) -> None:
        super().__init__(rows)
        self.said: asyncio.Queue[ChangeBatch | Exception | None] = asyncio.Queue()
        self.asked: list[str | None] = []
        self.ended = 0

    async def changes(self, after: str | None = None) -> AsyncGenerator[ChangeBatch]:
        self.asked.append(after)
        try:
            yield ChangeBatch(id=after or "0", retry=0.001)
            while (said := await self.said.get()) is not None:
                if isinstance(said, Exception):
                    raise said
                yield said
        finally:
            self.ended += 1


def feed_of(client: ProfileClient) -> Any:
    return client.stats().feed


async def live(client: ProfileClient) -> None:
    """Make the client follow the feed, with the key u1 in the cache."""
    await client.get("u1")
    await until(lambda: feed_of(client).state == "live")
    await client.get("u1")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FIRST_PAUSE", 0.01)


def test_a_source_without_a_feed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"follow_changes needs a source with a change feed.*MemorySource"):
        ProfileClient(MemorySource({}), follow_changes=True)


def test_nothing_is_followed_unless_asked_for() -> None:
    client = ProfileClient(Feed({}))
    assert client.stats().feed is None
    assert client.health().feed is None


async def test_exactly_the_named_keys_are_dropped() -> None:
    source = Feed({"u1": {"n": 1}, "u2": {"n": 2}})
    async with ProfileClient(source, ttl=HOUR, follow_changes=True) as client:
        assert feed_of(client).state == "idle"
        await live(client)
        await client.get("u2")
        await source.said.put(ChangeBatch(keys=(ProfileKey("u1"),), id="1"))
        await until(lambda: feed_of(client).keys == 1)
        assert client.peek("u1") is None
        assert client.peek("u2") is not None
        assert client.health().feed == "live"
    assert client.health().feed == "closed"
    assert source.ended == 1


async def test_what_was_loaded_before_the_feed_was_there_is_not_trusted() -> None:
    source = Feed({"u1": {"n": 1}})
    async with ProfileClient(source, ttl=HOUR, follow_changes=True) as client:
        await client.get("u1")
        await until(lambda: feed_of(client).state == "live")
        assert client.peek("u1") is None


async def test_a_reset_drops_everything() -> None:
    source = Feed({"u1": {"n": 1}})
    async with ProfileClient(source, ttl=HOUR, follow_changes=True) as client:
        await live(client)
        await source.said.put(ChangeBatch(reset=True, id="9"))
        await until(lambda: feed_of(client).resets == 1)
        assert client.stats().entries == 0


async def test_it_comes_back_where_it_was_and_keeps_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    source = Feed({"u1": {"n": 1}})
    async with ProfileClient(source, ttl=HOUR, follow_changes=True) as client:
        await live(client)
        await source.said.put(ChangeBatch(id="7"))
        for broken in (SourceConnectionError("it broke"), RuntimeError("planted-value"), None):
            await source.said.put(broken)
        await until(lambda: feed_of(client).connections == 4)
        assert source.asked == [None, "7", "7", "7"]
        assert client.peek("u1") is not None
        assert feed_of(client).last_error is None
    assert "planted-value" not in caplog.text


async def test_while_it_is_lost_the_ttl_counts_and_the_log_says_it_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(Feed):
        lost = True

        async def changes(self, after: str | None = None) -> AsyncGenerator[ChangeBatch]:
            self.asked.append(after)
            if self.lost:
                raise SourceConnectionError("no connection to the source: refused")
            async for change in super().changes(after):
                yield change

    monkeypatch.setattr(following, "LONGEST_PAUSE", 0.02)
    source = Lost({"u1": {"n": 1}})
    async with ProfileClient(source, ttl=HOUR, follow_changes=True) as client:
        await client.get("u1")
        await until(lambda: len(source.asked) > 4)
        stats = feed_of(client)
        assert (stats.state, stats.last_error) == ("lost", "source_connection")
        assert client.health().ok
        assert client.peek("u1") is not None
        source.lost = False
        await until(lambda: feed_of(client).state == "live")
    lost = [message for message in caplog.messages if "no change feed" in message]
    assert len(lost) == 1
    assert "profiles are kept for their ttl" in lost[0]
    assert len([message for message in caplog.messages if "is back" in message]) == 1


async def test_a_vendor_without_a_feed_is_asked_rarely(caplog: pytest.LogCaptureFixture) -> None:
    class None404(Feed):
        async def changes(self, after: str | None = None) -> AsyncGenerator[ChangeBatch]:
            self.asked.append(after)
            if self.asked:
                raise SourceRequestError("census refused the request", status=404)
            yield ChangeBatch()

    source = None404({"u1": {"n": 1}})
    async with ProfileClient(source, follow_changes=True) as client:
        await client.get("u1")
        await until(lambda: feed_of(client).state == "lost")
        assert source.asked == [None]
        assert "it has none at this URL" in caplog.text
        assert (await client.get("u1"))["n"] == 1


async def test_closing_ends_it_and_leaves_no_task() -> None:
    source = Feed({"u1": {"n": 1}})
    client = ProfileClient(source, follow_changes=True)
    await live(client)
    await client.aclose()
    assert source.ended == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_it_ends_when_nobody_holds_the_client() -> None:
    source = Feed({"u1": {"n": 1}})
    client = ProfileClient(source, follow_changes=True)
    await live(client)
    del client
    gc.collect()
    await source.said.put(ChangeBatch(id="1"))
    await until(lambda: source.ended == 1)


def test_on_a_new_loop_it_starts_anew_from_its_position() -> None:
    source = Feed({"u1": {"n": 1}, "u2": {"n": 2}})
    client = ProfileClient(source, ttl=HOUR, follow_changes=True)

    async def first() -> None:
        await live(client)
        await source.said.put(ChangeBatch(id="3"))
        await until(lambda: client._follower is not None and client._follower._position == "3")

    async def second() -> None:
        source.said = asyncio.Queue()
        await client.get("u2")
        await until(lambda: len(source.asked) == 2)
        await client.aclose()

    asyncio.run(first())
    asyncio.run(second())
    assert source.asked == [None, "3"]


def test_another_loop_can_end_it() -> None:
    source = Feed({"u1": {"n": 1}})
    client = ProfileClient(source, follow_changes=True)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(live(client))
    asyncio.run(client.aclose())
    loop.run_until_complete(until(lambda: source.ended == 1))
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
async def test_A9_a_forked_child_follows_by_itself() -> None:
    source = Feed({"u1": {"n": 1}})
    client = ProfileClient(source, ttl=HOUR, follow_changes=True)
    await live(client)
    child = os.fork()
    if not child:
        state = client.stats().feed
        os._exit(0 if state is not None and state.state == "idle" and client.peek("u1") is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert feed_of(client).state == "live"
    await client.aclose()


# --- against the server ---------------------------------------------------------------------------------------------


@pytest.fixture
def api(tmp_path: Path) -> ProfileAPI:
    return ProfileAPI(build(tmp_path), keys=[ApiKey.from_secret(ADMIN, admin=True)])


def put(url: str, record_id: str, record: dict[str, Any]) -> None:
    import httpx

    answer = httpx.put(
        f"{url}/api/v1/entities/1/record",
        params={"record_id": record_id},
        json=record,
        headers={"authorization": f"Bearer {ADMIN}"},
        trust_env=False,
    )
    assert answer.status_code in (200, 201), answer.text


async def test_a_change_is_there_within_a_second_though_the_ttl_is_an_hour(api: ProfileAPI) -> None:
    with served(api) as url:
        census = CensusSource(ADMIN, entity="Users", base_url=f"{url}/api/v1")
        index = AmperitySource(tenant="default", token=ADMIN, index="Users", base_url=f"{url}/api")
        async with (
            ProfileClient(census, ttl=HOUR, follow_changes=True) as one,
            ProfileClient(index, ttl=HOUR, follow_changes=True) as two,
        ):
            email = ProfileKey("u2@x.example", type="email")
            for _ in range(2):  # the second one is kept
                await asyncio.gather(*(client.get(key) for client in (one, two) for key in ("u1", "u2")))
                await two.get(email)
                await until(lambda: feed_of(one).state == feed_of(two).state == "live")
            before = one.stats().source_calls
            await asyncio.to_thread(put, url, "u2", {"email": "u2@x.example", "tier": "platinum", "n": 2})
            for client, key in ((one, "u2"), (two, "u2"), (two, email)):
                async with asyncio.timeout(20):
                    while (await client.get(key))["tier"] != "platinum":
                        await asyncio.sleep(0.01)
            assert one.peek("u1") is not None
            assert one.stats().source_calls == before + 1


async def test_what_changed_while_the_server_was_away_is_told_afterwards(tmp_path: Path) -> None:
    path = build(tmp_path)
    keys = [ApiKey.from_secret(ADMIN, admin=True)]
    api = ProfileAPI(path, keys=keys)
    with served(api) as url:
        port = int(url.rpartition(":")[2])
        client = ProfileClient(
            CensusSource(ADMIN, entity="Users", base_url=f"{url}/api/v1"), ttl=HOUR, follow_changes=True
        )
        await live(client)
        await client.get("u3")
    await until(lambda: feed_of(client).state != "live")
    with LocalStore(path) as store:
        store.put_record("Users", "u1", {"id": "u1", "email": None, "tier": "later", "n": 1, "none": None})
    with served(ProfileAPI(path, keys=keys), port=port):
        async with asyncio.timeout(30):
            while (await client.get("u1"))["tier"] != "later":
                await asyncio.sleep(0.02)
        assert client.peek("u3") is not None
        assert feed_of(client).resets == 0
        await client.aclose()


async def test_the_hosted_vendor_has_no_feed() -> None:
    with VendorServer({"u1": {"n": 1}}, entity="Users", key=ADMIN) as vendor:
        source = CensusSource(ADMIN, entity="Users", base_url=vendor.base_url)
        async with ProfileClient(source, follow_changes=True) as client:
            assert (await client.get("u1"))["n"] == 1
            await until(lambda: feed_of(client).state == "lost")
            assert feed_of(client).last_error == "source_request"


def test_a_page_changes_within_a_second_of_a_PUT(api: ProfileAPI) -> None:
    with served(api) as url:
        client = ProfileClient(
            CensusSource(ADMIN, entity="Users", base_url=f"{url}/api/v1"), ttl=HOUR, follow_changes=True
        )

        async def home(request: Request) -> PlainTextResponse:
            return PlainTextResponse(f"Hello {request.state.profile.get('tier', 'stranger')}")

        shop = Starlette(
            routes=[Route("/", home)],
            lifespan=client.lifespan,
            middleware=[Middleware(ProfileMiddleware, client=client, identify=lambda connection: "u4", budget=2.0)],
        )
        with TestClient(shop) as browser:
            assert browser.get("/").text == "Hello gold"
            end = time.monotonic() + 20
            while feed_of(client).state != "live" and time.monotonic() < end:
                time.sleep(0.01)
            calls = 0
            for _ in range(5):
                assert browser.get("/").text == "Hello gold"
                calls = client.stats().source_calls
            put(url, "u4", {"email": "u4@x.example", "tier": "platinum", "n": 4})
            end = time.monotonic() + 20
            while (text := browser.get("/").text) != "Hello platinum" and time.monotonic() < end:
                time.sleep(0.01)
            assert text == "Hello platinum"
            assert client.stats().source_calls == calls + 1


class Raw:
    """A feed endpoint that answers exactly these bytes."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    async def __aenter__(self) -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answers.pop(0) if self.answers else b"")
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                writer.close()
                await writer.wait_closed()

        self.server = await asyncio.start_server(answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/api/v1"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()
        await asyncio.sleep(0.01)  # the next iterations of the loop handle the closed connections


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (b"", "source_connection", "closed the connection before it answered"),
        (b"nonsense\r\n\r\n", "source_connection", "closed the connection|the connection failed"),
        (STREAM.replace(b"text/event-stream", b"text/html"), "source_response", "not a stream of server-sent events"),
        (STREAM.replace(b"connection: close", b"content-length: 9"), "source_response", "cut short"),
        (STREAM + b'event: changes\ndata: {"keys":[1]}\n\n', "source_response", "a key is not text"),
        (STREAM + b"event: changes\ndata: {}\n\n", "source_response", "keys"),
        (STREAM + b"event: changes\ndata: planted\n\n", "source_response", "not JSON"),
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "source_auth", "refused the credentials"),
        (
            b"HTTP/1.1 500 No\r\nconnection: close\r\n\r\n" + b"x" * 70_000,
            "source_connection",
            "response that is too large",
        ),
    ],
)
async def test_A18_a_feed_that_makes_no_sense_is_a_typed_error(answer: bytes, code: str, message: str) -> None:
    async with Raw(answer) as url:
        with pytest.raises(ProfileEnrichError, match=message) as caught:
            async for _ in CensusSource("planted-secret", entity=1, base_url=url).changes("7"):
                pass
    assert caught.value.code == code
    assert caught.value.__context__ is None
    assert "planted" not in str(caught.value)


async def test_nobody_there_and_silence_are_typed_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Raw() as url:
        pass
    source = CensusSource("planted-secret", entity=1, base_url=url)
    with pytest.raises(SourceConnectionError, match="refused"):
        await anext(source.changes())
    monkeypatch.setattr("profile_enrich.sources.embedded_change_feed.SILENCE_SECONDS", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    source = CensusSource(
        "planted-secret", entity=1, base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
    )
    with pytest.raises(SourceTimeout, match="sent no heartbeat"):
        await anext(source.changes())
    await asyncio.sleep(0.05)  # the server notices the disconnect
    server.close()
    await server.wait_closed()


async def test_events_of_a_later_version_are_left_aside() -> None:
    stream = STREAM + b'event: note\ndata: {}\n\nevent: changes\nid: 4\ndata: {"keys":["u1",""]}\n\n'
    async with Raw(stream) as url:
        said = [change async for change in CensusSource("planted-secret", entity=1, base_url=url).changes()]
    assert [(change.keys, change.id) for change in said] == [((ProfileKey("u1"),), "4")]


async def test_a_token_that_ran_out_is_renewed_once() -> None:
    class Renewing:
        def __init__(self) -> None:
            self.refused: list[str | None] = []

        async def token(self, transport: Any, *, deadline: Any, refused: str | None = None) -> str:
            self.refused.append(refused)
            return f"token-{len(self.refused)}"

        async def aclose(self) -> None: ...

    no = b"HTTP/1.1 401 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    async with Raw(no, STREAM + b"event: ready\nid: 4\ndata: {}\n\n", no, no, no) as url:
        auth = Renewing()
        source = AmperitySource(tenant="acme", token=auth, index="idx-1", base_url=url)
        assert [change.id async for change in source.changes()] == ["4"]
        assert auth.refused == [None, "token-1"]
        with pytest.raises(SourceAuthError):
            await anext(source.changes())
        assert auth.refused[2:] == [None, "token-3"]
        fixed = AmperitySource(tenant="acme", token="planted-token", index="idx-1", base_url=url)
        with pytest.raises(SourceAuthError) as caught:
            await anext(fixed.changes())
        assert "planted" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="index was not given"):
        await anext(AmperitySource(tenant="acme", token=ADMIN, base_url=url).changes())
