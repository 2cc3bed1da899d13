"""`CensusSource(batch=True)` against the embedded server: lookups made together are one call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import BatchSource, CensusSource, ProfileClient, ProfileKey, SourcePolicy, Status
from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import ConfigurationError, ProfileEnrichError, SourceRequestError, SourceResponseError
from profile_enrich.server import ProfileAPI
from profile_enrich.sources.base import Found, NotFound
from profile_enrich.store import LocalStore

from ..server.helpers import ODD_ID, SECRET, USERS, api, build, served


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, ProfileAPI]]:
    with LocalStore(build(tmp_path_factory.mktemp("batch"))) as store:
        app = api(store)
        with served(app) as url:
            yield f"{url}/api/v1", app


def source(url: str, **options: Any) -> CensusSource:
    return CensusSource(SECRET, **{"entity": "Users", "base_url": url, "id_column": "id", "batch": True, **options})


async def test_L13_lookups_made_together_are_one_call(running: tuple[str, ProfileAPI]) -> None:
    url, app = running
    before = dict(app.requests)
    ids = [f"u{number}" for number in range(60)] + [ODD_ID, "nobody"]
    async with ProfileClient(source(url), source_policy=SourcePolicy(batch_window=0.05)) as client:
        profiles = await asyncio.gather(*(client.lookup(id, budget=10) for id in ids))
    assert [profile.get("email") for profile in profiles[:60]] == [user["email"] for user in USERS[:60]]
    assert profiles[60]["email"] == "odd@x.example"
    assert not profiles[61]
    assert profiles[61].status is Status.MISS
    assert app.requests["census.batch"] - before.get("census.batch", 0) == 1
    assert app.requests.get("census.record") == before.get("census.record")


async def test_told_nothing_it_asks_one_by_one(running: tuple[str, ProfileAPI]) -> None:
    url, app = running
    before = app.requests.get("census.batch", 0)
    single = source(url, batch=False)
    assert single.batch_size == 1
    async with ProfileClient(single) as client:
        assert await client.get("u1")
    assert app.requests.get("census.batch", 0) == before
    with pytest.raises(ConfigurationError, match="without batch=True"):
        await single.fetch_many([ProfileKey("u1")], deadline=Deadline(5))


async def test_answers_by_key(running: tuple[str, ProfileAPI]) -> None:
    url, _ = running
    many = source(url)
    assert isinstance(many, BatchSource)
    assert many.batch_size == 100
    odd, mail = ProfileKey("é\n"), ProfileKey("u1", type="email")
    found = await many.fetch_many([ProfileKey("u1"), odd, mail], deadline=Deadline(5))
    assert isinstance(found[ProfileKey("u1")], Found)
    assert isinstance(found[odd], NotFound)
    assert mail not in found
    assert await many.fetch_many([mail], deadline=Deadline(5)) == {}
    await many.aclose()


async def test_what_cannot_be(running: tuple[str, ProfileAPI]) -> None:
    url, _ = running
    missing = source(url, entity=99)
    with pytest.raises(ConfigurationError):
        await missing.fetch_many([ProfileKey("planted-id")], deadline=Deadline(5))
    await missing.aclose()
    wrong = source(url, id_column="tier")
    with pytest.raises(SourceResponseError, match="id_column"):
        await wrong.fetch_many([ProfileKey("u1")], deadline=Deadline(5))
    await wrong.aclose()
    for options in ({"base_url": None}, {"base_url": "https://x.example/api"}):
        with pytest.raises(ConfigurationError, match="batch=True"):
            source(url, **options)


class Answers:
    """A server with entities and scripted batch responses."""

    def __init__(self) -> None:
        self.status = 200
        self.content: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        entities = {"data": [{"id": 1, "name": "Users"}]}
        status, content = (200, entities) if scope["method"] == "GET" else (self.status, self.content)
        body = json.dumps(content).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (200, {"data": [{"id": "planted-other", "found": True, "record": {"id": "planted-id"}}]}, SourceResponseError),
        (200, {"data": []}, SourceResponseError),
        (200, {"data": None}, SourceResponseError),
        (200, [], SourceResponseError),
        (200, {"data": [{"id": "planted-id", "found": True}]}, SourceResponseError),
        (200, {"data": [{"id": "planted-id", "found": True, "record": {"id": "planted-other"}}]}, SourceResponseError),
        (404, {"error": {"code": "not_found", "message": "planted-id"}}, ConfigurationError),
        (405, {"error": {"code": "x", "message": "planted-id"}}, SourceRequestError),
    ],
)
async def test_nonsense_is_refused_and_not_quoted(status: int, content: Any, error: type[ProfileEnrichError]) -> None:
    answers: Any = Answers()
    answers.status, answers.content = status, content
    import httpx

    async with httpx.AsyncClient(transport=httpx.ASGITransport(answers)) as http:
        asked = source("http://127.0.0.1/api/v1", transport=http)
        with pytest.raises(error) as caught:
            await asked.fetch_many([ProfileKey("planted-id")], deadline=Deadline(5))
    assert "planted" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_servers_limit_and_the_sources_are_the_same(tmp_path: Path) -> None:
    from profile_enrich.server.endpoints import batch
    from profile_enrich.sources import embedded_batch as _batch

    assert batch.MAX_BATCH == _batch.MAX_BATCH
