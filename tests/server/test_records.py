"""Writes of single records: the allowed keys, and rejected requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from profile_enrich.errors import StoreError
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.server.endpoints import records as writing
from profile_enrich.store import LocalStore
from profile_enrich.store.files.manifest import locked
from tests.helpers import NOT_STRICT

from .helpers import KEYS, SECRET, build, served

ADMIN = "the-secret-of-the-admin"
USERS_ADMIN = "the-secret-of-the-admin-of-users"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[ProfileAPI, httpx.Client]]:
    keys = [
        *KEYS,
        ApiKey.from_secret(ADMIN, workspace="acme", admin=True),
        ApiKey.from_secret(USERS_ADMIN, workspace="acme", admin=True, entities=["Users"]),
    ]
    app = ProfileAPI(build(tmp_path_factory.mktemp("writing")), keys=keys, workspace="acme")
    headers = {"amperity-tenant": "acme", "api-version": "2025-07-31"}
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield app, client


def send(client: httpx.Client, method: str, url: str, body: Any = None, secret: str = ADMIN, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"authorization": f"Bearer {secret}", "content-type": "application/json", **headers}
    return client.request(method, url, content=content, headers=given)


RECORD = "/api/v1/entities/1/record?record_id="
ROW = {"email": "new@x.example", "tier": "gold", "n": 1, "none": None}


def test_a_record_is_put_read_and_deleted_in_both_dialects(api: tuple[ProfileAPI, httpx.Client]) -> None:
    app, client = api
    profiles = f"/api/indexes/{app.store.collection('Users').index_id}/profiles/"
    for url in (f"{RECORD}new%2F1", f"{profiles}new%2F1"):
        made = send(client, "PUT", url, ROW)
        assert (made.status_code, made.json()) == (201, {"id": "new/1", "created": True})
        changed = send(client, "PUT", url, {**ROW, "id": "new/1", "tier": "silver"})
        assert (changed.status_code, changed.json()["created"]) == (200, False)
        assert send(client, "GET", f"{RECORD}new%2F1").json()["data"]["tier"] == "silver"
        assert send(client, "GET", f"{profiles}new%2F1").json()["attributes"]["tier"] == "silver"
        gone = send(client, "DELETE", url)
        assert (gone.status_code, gone.content) == (204, b"")
        assert "content-length" not in gone.headers
        assert send(client, "DELETE", url).status_code == 404
        assert send(client, "GET", url).status_code == 404


@pytest.mark.parametrize(
    ("url", "secret", "status"),
    [
        (f"{RECORD}u1", "no such key is there", 401),
        (f"{RECORD}u1", SECRET, 405),
        ("/api/v1/entities/2/record?record_id=o1", USERS_ADMIN, 403),
        ("/api/v1/entities/99/record?record_id=o1", ADMIN, 404),
        ("/api/v1/entities", ADMIN, 405),
        (RECORD, ADMIN, 400),
        ("/api/v1/entities/1/record", ADMIN, 400),
        (f"{RECORD}{'x' * 3000}", ADMIN, 400),
    ],
)
def test_P2_who_may_not_write_changes_nothing(
    api: tuple[ProfileAPI, httpx.Client], url: str, secret: str, status: int
) -> None:
    app, client = api
    before = app.store.generation
    for method in ("PUT", "DELETE"):
        assert send(client, method, url, ROW, secret).status_code == status
    assert app.store.generation == before


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"planted", "application/json", "not JSON"),
        (b"\xff", "application/json", "not JSON"),
        (b'{"n":NaN}', "application/json", "not JSON"),
        *[(line.encode(), "application/json", "not JSON: ") for line in NOT_STRICT],
        (json.dumps({f"c{n}": 1 for n in range(2_000)}).encode(), "application/json", "more than 2,000 columns"),
        (json.dumps({"c" * 2_000: 1}).encode(), "application/json", "the name of a column"),
        (b"[" * 100_000, "application/json", "not JSON"),
        (b"[]", "application/json", "must be a JSON object"),
        (b"{}", "text/plain", "application/json"),
        (b'{"id":"planted"}', "application/json", "another id"),
    ],
)
def test_P3_a_body_that_makes_no_sense_is_refused(
    api: tuple[ProfileAPI, httpx.Client], body: bytes, kind: str, said: str
) -> None:
    answer = send(api[1], "PUT", f"{RECORD}u1", body, **{"content-type": kind})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert "planted" not in answer.text


def test_P3_a_body_that_is_too_large_is_refused(api: tuple[ProfileAPI, httpx.Client]) -> None:
    assert send(api[1], "PUT", f"{RECORD}u1", b" " * (1024 * 1024 + 1)).status_code == 413


def test_while_the_store_cannot_be_written_it_is_read_on(
    api: tuple[ProfileAPI, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any, **__: Any) -> None:
        raise StoreError("another build is running")

    monkeypatch.setattr(LocalStore, "put_record", busy)
    monkeypatch.setattr(LocalStore, "delete_record", busy)
    for method in ("PUT", "DELETE"):
        refused = send(api[1], method, f"{RECORD}u1", ROW)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert send(api[1], "GET", f"{RECORD}u1").status_code == 200


def test_many_writers_in_a_build_leave_threads_for_others(
    api: tuple[ProfileAPI, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes wait for the build in threads, the others queue; each waits a short time."""
    monkeypatch.setattr(writing, "_WAIT", 0.2)
    monkeypatch.setattr(writing, "_PATIENCE", 0.1)
    app, client = api
    threads: set[str] = set()
    put_record = LocalStore.put_record

    def watched(*arguments: Any, **options: Any) -> bool:
        threads.add(threading.current_thread().name)
        return put_record(*arguments, **options)

    def put(number: int) -> httpx.Response:
        answer: httpx.Response = send(client, "PUT", f"{RECORD}u{number}", ROW)
        return answer

    monkeypatch.setattr(LocalStore, "put_record", watched)
    assert isinstance(app.store, LocalStore)
    with locked(app.store.path), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(put, range(8)))
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["retry-after"] for answer in answers} == {"5"}
    assert len(threads) <= 2
    assert send(client, "PUT", f"{RECORD}u1", ROW).status_code == 200
