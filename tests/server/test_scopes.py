"""Every endpoint is called with every scope, and its response searched for data outside the scope (P7)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from profile_enrich.server import ApiKey, FieldScope, ProfileAPI
from profile_enrich.store import CollectionSpec, LocalStore, build_store

from .helpers import amperity, ask, bearer, served

SECRETS = {name: f"the-secret-of-{name}-key" for name in ("all", "people", "fields", "orders", "nothing")}
KEYS = [
    ApiKey.from_secret(SECRETS["all"], id="all"),
    ApiKey.from_secret(SECRETS["people"], id="people", entities=["People"]),
    ApiKey.from_secret(
        SECRETS["fields"],
        id="fields",
        fields={"People": FieldScope(frozenset({"pid"}), frozenset({"hashed_column"}), frozenset({"redacted_column"}))},
    ),
    ApiKey.from_secret(SECRETS["orders"], id="orders", entities=["Orders"]),
    ApiKey.from_secret(SECRETS["nothing"], id="nothing", entities=["Vanished"]),
]
PEOPLE = {
    "pid": "p1",
    "hashed_column": "hashed-value",
    "redacted_column": "redacted-value",
    "open_column": "open-value",
}
ORDERS = {"order_key": "o1", "order_column": "order-value"}
ERROR = "People: column 'open_column' is text, was number; Orders: column 'order_column' is gone"
FEED = {"poll": 0.02, "heartbeat": 0.05, "max_age": 0.2}

IN_PEOPLE = {"People", "people-description", "pid", "hashed_column", "redacted_column", "open_column", "open-value"}
IN_ORDERS = {"Orders", "orders-description", "order_key", "order_column", "order-value"}
HIDDEN = {
    "all": {"hidden-nowhere"},
    "people": IN_ORDERS,
    "fields": IN_ORDERS | {"open_column", "open-value", "hashed-value", "redacted-value"},
    "orders": IN_PEOPLE | {"hashed-value", "redacted-value"},
    "nothing": IN_ORDERS | IN_PEOPLE,
    "no key": IN_ORDERS | IN_PEOPLE,
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> ProfileAPI:
    return scoped_app(tmp_path_factory.mktemp("scopes") / "s")


def scoped_app(path: Path) -> ProfileAPI:
    people = CollectionSpec(
        "People", [PEOPLE], key="pid", description="people-description", filterable=["open_column", "hashed_column"]
    )
    orders = CollectionSpec(
        "Orders", [ORDERS], key="order_key", description="orders-description", filterable=["order_column"]
    )
    build_store(path, [people, orders])
    # A new generation of one collection: keys of other collections must not be able to notice it.
    with LocalStore(path) as store:
        for n in range(3):
            store.put_record(store.collection("Orders"), f"o{n}", {**ORDERS, "order_key": f"o{n}"})
    return ProfileAPI(
        path,
        keys=KEYS,
        metrics="open",
        feed=FEED,
        refreshing=lambda: {"every": 60.0, "last_error": ERROR, "failures": 1},
    )


def targets(app: ProfileAPI) -> list[tuple[str, str, bytes]]:
    """Return every endpoint, for each collection and an unknown one."""
    indexes = [item.index_id for item in app.store.collections()] + ["idx-000000000000"]
    found: list[tuple[str, str, bytes]] = [
        ("GET", path, b"")
        for path in ("/", "/healthz", "/status", "/metrics", "/openapi.json", "/api/v1/entities", "/api/indexes",
                     "/api/indexes?with_total=true", "/nowhere", "/attribute/v0/x")
    ]  # fmt: skip
    ids = ["p1", "o1", "nobody"]
    body = json.dumps({"ids": ids}).encode()
    for entity in (1, 2, 3):
        found += [("GET", f"/api/v1/entities/{entity}/record?record_id={id}", b"") for id in ids]
        found += [
            ("POST", f"/api/x/entities/{entity}/records", body),
            ("PUT", f"/api/v1/entities/{entity}/record?record_id=p1", b"{}"),
            ("DELETE", f"/api/v1/entities/{entity}/record?record_id=p1", b""),
        ]
    for index in indexes:
        found += [("GET", f"/api/indexes/{index}/profiles/{id}", b"") for id in ids]
        found += [("POST", f"/api/x/indexes/{index}/profiles", body), ("GET", f"/api/indexes/{index}", b"")]
        found += [
            ("GET", f"/api/indexes/{index}/profiles?with_total=true{more}", b"")
            for more in ("", "&filter[open_column]=open-value", "&filter[order_column]=order-value", "&filter[x]=y",
                         "&next_token=x", "&limit=0")
        ]  # fmt: skip
    return found


def headers_of(who: str) -> dict[str, str]:
    """Return the request headers with the key of `who`, in both dialects."""
    headers = amperity(SECRETS.get(who, "no key at all that exists"), tenant="default")
    return {**headers, "content-type": "application/json"}


def seen_of(who: str, target: str, text: str) -> set[str]:
    """Return hidden data that the response contains. The response may repeat names from the request."""
    return {secret for secret in HIDDEN[who] if secret in text and secret not in target}


def all_of(answer: Any) -> str:
    return f"{answer.headers} {answer.body.decode()}"


@pytest.mark.parametrize("who", HIDDEN)
def test_P7_no_endpoint_shows_what_is_outside_of_the_scope(app: ProfileAPI, who: str) -> None:
    answers = 0
    for method, target, body in targets(app):
        answer = ask(app, target, method=method, headers=headers_of(who), body=body)
        answers += answer.status == 200
        text = all_of(answer)
        seen = seen_of(who, target, text)
        assert not seen, (method, target, seen, text)
        if target not in ("/healthz", "/"):
            assert "authorization" in answer.headers["vary"]
    assert answers >= 2


def test_P7_what_is_inside_of_the_scope_is_shown(app: ProfileAPI) -> None:
    status = {who: ask(app, "/status", headers=bearer(secret)).json for who, secret in SECRETS.items()}
    assert [item["name"] for item in status["all"]["collections"]] == ["People", "Orders"]
    assert status["all"]["refreshing"]["last_error"] == ERROR
    reason = "the refresh failed; a key with access to all collections can read the reason"
    assert status["people"]["refreshing"]["last_error"] == reason
    assert status["all"]["generation"] == status["orders"]["generation"] > status["people"]["generation"]
    assert "feed" in status["all"]
    assert "feed" not in status["people"]
    people = status["fields"]["collections"][0]
    assert [column["name"] for column in people["columns"]] == ["pid", "hashed_column", "redacted_column"]
    assert people["filterable"] == []
    assert status["people"]["collections"][0]["filterable"] == ["open_column", "hashed_column"]


@pytest.mark.parametrize("who", SECRETS)
def test_P7_no_feed_shows_what_is_outside_of_the_scope(app: ProfileAPI, who: str) -> None:
    with served(app) as url, httpx.Client(base_url=url, headers=bearer(SECRETS[who]), trust_env=False) as client:
        text = ""
        for entity in (1, 2, 3):
            stream = client.get(f"/api/v1/entities/{entity}/changes", headers={"last-event-id": "x"})
            text += f"{stream.headers} {stream.text}"
    assert not {secret for secret in HIDDEN[who] if secret in text}
    assert ("event: ready" in text or "event: reset" in text) is (who != "nothing")


async def test_P8_one_key_may_not_take_all_streams(tmp_path: Path) -> None:
    build_store(tmp_path / "s", [CollectionSpec("People", [PEOPLE], key="pid")])
    app = ProfileAPI(tmp_path / "s", keys=KEYS, feed={"max_streams": 10, "max_key_streams": 4})
    with served(app) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:

            async def open_stream(who: str) -> tuple[int, Any]:
                request = client.build_request("GET", "/api/v1/entities/1/changes", headers=bearer(SECRETS[who]))
                response = await client.send(request, stream=True)
                return response.status_code, response

            made = await asyncio.gather(*(open_stream("all") for _ in range(9)))
            assert sorted(status for status, _ in made) == [200] * 4 + [429] * 5
            refused = next(response for status, response in made if status == 429)
            assert "too many streams open" in (await refused.aread()).decode()
            assert (await open_stream("people"))[0] == 200
            for status, response in made:
                if status == 200:
                    await response.aclose()
            async with asyncio.timeout(30):
                while (await open_stream("all"))[0] != 200:
                    await asyncio.sleep(0.05)
