"""The change feed's wire format: events, their recipients, and how streams end."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from profile_enrich.errors import StoreError
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.server.auth.api_keys import KeyRing
from profile_enrich.server.auth.field_scopes import FieldScope
from profile_enrich.server.endpoints import change_feed as feed_module
from profile_enrich.store import CollectionSpec, LocalStore, build_store

from .helpers import KEYS, LIMITED, ODD_ID, SECRET, STRANGER, USERS, amperity, api, ask, bearer, build

ADMIN = "the-secret-of-the-admin"
CENSUS = "/api/v1/entities/1/changes"


class Listener:
    """A client of the feed, directly at the application. `stuck`: it stops reading."""

    def __init__(self, app: Any, target: str, headers: dict[str, str], root_path: str = "") -> None:
        path, _, query = target.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": root_path,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.text = ""
        self.ended = False
        self.stuck = False
        self._gone = asyncio.Event()
        self._more = asyncio.Event()
        self.task = asyncio.create_task(app(self.scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.text += message.get("body", b"").decode()
            self.ended = not message.get("more_body", False)
        self._more.set()

    async def until(self, text: str) -> str:
        async with asyncio.timeout(20):
            while text not in self.text:
                self._more.clear()
                await self._more.wait()
        return self.text

    @property
    def last_id(self) -> str:
        return self.text.rpartition("id: ")[2].partition("\n")[0]

    def go(self) -> None:
        self._gone.set()


@asynccontextmanager
async def listening(app: Any, target: str = CENSUS, root_path: str = "", **headers: str) -> AsyncGenerator[Listener]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    given = named if "authorization" in named else {**bearer(), **named}
    listener = Listener(app, target, given, root_path)
    try:
        await listener.until("\n\n" if not listener.status else "")
        yield listener
    finally:
        listener.go()
        async with asyncio.timeout(20):
            await listener.task


def quick(path: Path, **feed: Any) -> ProfileAPI:
    store = LocalStore(path, check_every=0.01)
    return api(store, feed={"poll": 0.01, **feed})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build(tmp_path)


async def test_both_dialects_name_what_changed(path: Path) -> None:
    app = quick(path)
    index = app.store.collection("Users").index_id
    async with (
        listening(app) as census,
        listening(app, f"/api/indexes/{index}/changes", **amperity()) as other,
    ):
        assert census.status == other.status == 200
        assert census.headers[b"content-type"] == b"text/event-stream"
        assert census.headers[b"cache-control"] == b"no-store"
        assert census.text.startswith("retry: 1000\nevent: ready\nid: ")
        app.store.put_record("Users", ODD_ID, USERS[-1] | {"n": 7})
        app.store.delete_record("Users", "u1")
        for listener in (census, other):
            text = await listener.until('"u1"')
            keys = [key for line in text.splitlines() if line.startswith("data: ") for key in _keys(line)]
            assert set(keys) == {ODD_ID, "u1"}


def _keys(line: str) -> list[str]:
    return list(json.loads(line.removeprefix("data: ")).get("keys", []))


async def test_it_goes_on_where_the_client_was(path: Path) -> None:
    app = quick(path)
    async with listening(app) as first:
        seen = first.last_id
    app.store.put_record("Users", "u5", USERS[5] | {"n": -5})
    async with listening(app, last_event_id=seen) as second:
        assert '{"keys":["u5"]}' in await second.until("event: changes")
        newest = second.last_id
    async with listening(app, last_event_id=newest) as third:
        await asyncio.sleep(0.05)
        assert "changes" not in third.text


@pytest.mark.parametrize("id", ["", "nonsense", "00000000-1", "{mark}-99999"])
async def test_an_id_that_nobody_can_know_gives_a_reset(path: Path, id: str) -> None:
    app = quick(path)
    async with listening(app) as first:
        mark = first.last_id.partition("-")[0]
    async with listening(app, last_event_id=id.replace("{mark}", mark)) as second:
        assert second.text.startswith("event: reset\nid: ")


async def test_a_full_rebuild_is_a_reset(path: Path) -> None:
    app = quick(path)
    async with listening(app) as listener:
        build_store(path, [CollectionSpec("Users", USERS, filterable=["tier", "email"])])
        await listener.until("event: reset")


async def test_more_changes_than_allowed_are_a_reset(path: Path) -> None:
    app = quick(path, max_keys=2)
    async with listening(app) as listener:
        for number in range(3):
            app.store.put_record("Users", f"u{number}", USERS[number] | {"n": -1})
        await listener.until("event: reset")
        assert "event: changes" not in listener.text


async def test_many_keys_take_several_events_and_the_last_one_carries_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_EVENT_BYTES", 20)
    events = list(feed_module._encode([f"key-{number}\n\u2028" for number in range(5)], "m-1"))
    assert len(events) > 1
    assert [b"id: m-1\n" in event for event in events] == [False] * (len(events) - 1) + [True]
    keys = [
        key for event in events for line in event.decode().split("\n") if line[:5] == "data:" for key in _keys(line)
    ]
    assert keys == [f"key-{number}\n\u2028" for number in range(5)]


async def test_silence_is_filled_with_heartbeats(path: Path) -> None:
    async with listening(quick(path, heartbeat=0.01)) as listener:
        await listener.until(": heartbeat\n\n: heartbeat\n\n")


async def test_a_stream_ends_in_time_and_when_the_server_stops(path: Path) -> None:
    async with listening(quick(path, max_age=0.02)) as old:
        async with asyncio.timeout(20):
            await old.task
        assert old.ended
    app = quick(path)
    async with listening(app) as listener:
        app.end_streams()
        async with asyncio.timeout(20):
            await listener.task
        assert listener.ended
        assert ask(app, CENSUS, headers=bearer()).status == 503


async def test_a_uvicorn_that_stops_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        should_exit = False

        def handle_exit(self, number: int, frame: object) -> None: ...

    server = Server()
    monkeypatch.setattr(signal, "getsignal", lambda number: server.handle_exit)
    async with listening(quick(path)) as listener:
        server.should_exit = True
        async with asyncio.timeout(20):
            await listener.task
        assert listener.ended


async def test_a_client_that_takes_nothing_is_let_go(path: Path) -> None:
    app = quick(path, stall=0.05, heartbeat=0.01)
    async with listening(app) as listener:
        listener.stuck = True
        async with asyncio.timeout(20):
            await listener.task
    assert app._feed.streams == 0


async def test_a_client_that_goes_leaves_nothing_behind(path: Path) -> None:
    app = quick(path)
    async with listening(app):
        assert app._feed.streams == 1
    assert app._feed.streams == 0
    await asyncio.sleep(0.02)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_number_of_streams_is_bounded(path: Path) -> None:
    app = quick(path, max_streams=1)
    async with listening(app):
        refused = ask(app, CENSUS, headers=bearer())
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")


def test_P2_who_may_not_read_learns_nothing(path: Path) -> None:
    blind = ApiKey.from_secret(ADMIN, workspace="acme", fields={"Users": FieldScope(show=frozenset({"tier"}))})
    app = api(path, keys=[*KEYS, blind])
    assert ask(app, CENSUS).status == 401
    assert ask(app, CENSUS, headers=bearer(STRANGER)).status == 403
    assert ask(app, "/api/v1/entities/2/changes", headers=bearer(LIMITED)).status == 403
    assert ask(app, "/api/v1/entities/99/changes", headers=bearer(LIMITED)).status == 403
    assert ask(app, "/api/v1/entities/99/changes", headers=bearer()).status == 404
    assert ask(app, CENSUS, headers=bearer(ADMIN)).json["error"]["message"].startswith("This key may not see the ids")
    assert ask(app, CENSUS, method="POST", headers=bearer()).status == 405
    index = app.store.collection("Users").index_id
    assert ask(app, f"/api/indexes/{index}/changes", headers=bearer()).status == 401


def test_HEAD_says_what_it_is(path: Path) -> None:
    answer = ask(api(path), CENSUS, method="HEAD", headers=bearer())
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")


async def test_P2_a_key_that_is_taken_back_ends_its_streams(path: Path) -> None:
    app = quick(path, heartbeat=0.01)
    async with listening(app) as listener:
        app._admission._ring = KeyRing(KEYS[1:])  # a ring without the first key
        async with asyncio.timeout(20):
            await listener.task
        assert listener.ended


async def test_a_collection_that_is_dropped_ends_its_streams(path: Path) -> None:
    from profile_enrich.store import drop_collections

    async with listening(quick(path, heartbeat=0.01)) as listener:
        drop_collections(path, ["Users"])
        async with asyncio.timeout(20):
            await listener.task
        assert listener.ended


async def test_what_cannot_be_read_is_a_reset_and_a_bug_ends_the_stream(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: Exception) -> Any:
        def raises(*_: Any, **__: Any) -> None:
            raise error

        return raises

    app = quick(path)
    async with listening(app) as listener:
        monkeypatch.setattr(LocalStore, "changes_since", fail(StoreError("damaged")))
        app.store.put_record("Users", "u1", USERS[1] | {"n": -1})
        await listener.until("event: reset")
        monkeypatch.setattr(LocalStore, "changes_since", fail(RuntimeError("planted-key")))
        app.store.put_record("Users", "u1", USERS[1] | {"n": 2})
        async with asyncio.timeout(20):
            await listener.task
    assert "RuntimeError in the change feed" in caplog.text
    assert "planted-key" not in caplog.text


async def test_it_is_there_in_an_application_that_it_is_mounted_in(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = quick(path)
    outer = Starlette(routes=[Mount("/profile-api", app=app)])
    async with listening(outer, f"/profile-api{CENSUS}") as listener:
        app.store.put_record("Users", "u1", USERS[1] | {"n": 2})
        await listener.until('{"keys":["u1"]}')
    assert "u1" not in "".join(record.getMessage() for record in caplog.records if "profile_enrich" in record.name)
    assert SECRET not in caplog.text
