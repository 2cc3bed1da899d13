"""Several ids in one request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.server import ApiKey, FieldScope, ProfileAPI
from profile_enrich.server.endpoints.batch import MAX_BATCH
from profile_enrich.store import LocalStore

from .helpers import KEYS, LIMITED, ODD_ID, SECRET, STRANGER, USERS, Answer, amperity, api, ask, bearer, build

PARTNER = "the-secret-of-the-partner"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    partner = ApiKey.from_secret(
        PARTNER, workspace="acme", id="partner", fields={"Users": FieldScope(show=frozenset({"tier"}))}
    )
    with LocalStore(build(tmp_path_factory.mktemp("batch"))) as store:
        yield api(store, keys=[*KEYS, partner])


CENSUS = "/api/x/entities/1/records"


def post(app: ProfileAPI, ids: Any, target: str = CENSUS, headers: Any = None) -> Answer:
    body = ids if isinstance(ids, bytes) else json.dumps({"ids": ids}).encode()
    return ask(app, target, method="POST", headers=headers or bearer(), body=body)


def index_target(app: ProfileAPI) -> str:
    return f"/api/x/indexes/{app.store.collection('Users').index_id}/profiles"


def test_answers_are_in_order_each_with_its_own_id(app: ProfileAPI) -> None:
    asked = ["u3", "nobody", ODD_ID, "u3", "\ud800", "u1"]
    answer = post(app, asked)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "private, no-store"
    rows = answer.json["data"]
    assert [row["id"] for row in rows] == asked
    assert [row["found"] for row in rows] == [True, False, True, True, False, True]
    assert [row.get("record") for row in rows] == [USERS[3], None, USERS[-1], USERS[3], None, USERS[1]]


def test_profiles_are_as_the_single_endpoint_has_them(app: ProfileAPI) -> None:
    rows = post(app, ["u1", "nobody"], index_target(app), amperity()).json["data"]
    single = ask(app, index_target(app).replace("/x/", "/") + "/u1", headers=amperity()).json
    assert rows == [{"id": "u1", "found": True, "record": single}, {"id": "nobody", "found": False}]


def test_scopes_hold(app: ProfileAPI) -> None:
    rows = post(app, ["u1"], headers=bearer(PARTNER)).json["data"]
    assert rows == [{"id": "u1", "found": True, "record": {"tier": "silver"}}]
    rows = post(app, ["u1"], index_target(app), amperity(PARTNER)).json["data"]
    assert rows[0]["record"]["attributes"] == {"tier": "silver"}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"[]", b"{}", b"null", b'{"ids":"u1"}', b'{"ids":[]}', b'{"ids":[1]}', b'{"ids":[""]}',
        b'{"ids":[null]}', b'{"ids":[["u1"]]}', b"[" * 5000, b"\xff",
        json.dumps({"ids": ["a"] * (MAX_BATCH + 1)}).encode(),
    ],
)  # fmt: skip
def test_P3_bad_bodies(app: ProfileAPI, body: bytes) -> None:
    for target, headers in ((CENSUS, bearer()), (index_target(app), amperity())):
        answer = post(app, body, target, headers)
        assert answer.status == 400
        assert "error" in answer.json or answer.json["status"] == 400


def test_the_largest_batch_fits(app: ProfileAPI) -> None:
    ids = ["\x01" * 680 + str(number) for number in range(MAX_BATCH)]
    assert len(json.dumps({"ids": ids})) > 64 * 1024
    assert post(app, ids).status == 200
    assert post(app, b" " * 600_000).status == 413
    assert post(app, ["a" * 5000]).json["data"][0]["found"] is False  # no stored id is so long


def test_P2_who_may_not_learns_nothing(app: ProfileAPI) -> None:
    for headers, status in (({}, 401), (bearer("wrong-key-altogether"), 401), (bearer(STRANGER), 403)):
        assert post(app, ["u1"], headers=headers or [(b"x", b"y")]).status == status
    there, missing = ("/api/x/entities/2/records", "/api/x/entities/99/records")
    assert post(app, ["o1"], there, bearer(LIMITED)).body == post(app, ["o1"], missing, bearer(LIMITED)).body
    assert post(app, ["o1"], there, bearer(LIMITED)).status == 403
    assert post(app, ["o1"], missing).status == 404
    assert post(app, ["u1"], index_target(app), {**amperity(), "amperity-tenant": "other"}).status == 403
    assert post(app, ["u1"], "/api/x/entities/1").status == 404
    answer = ask(app, CENSUS, headers=bearer())
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_P7_each_id_counts(tmp_path: Path) -> None:
    with LocalStore(build(tmp_path)) as store:
        app = ProfileAPI(store, keys=[ApiKey.from_secret(SECRET)], rate="10/h")
        assert post(app, ["u1"] * 6).headers["ratelimit"].startswith('"key";r=4;')
        assert post(app, ["u1"] * 6).status == 429
        assert post(app, ["u1"] * 4).status == 200
        fresh = ProfileAPI(store, keys=[ApiKey.from_secret(SECRET)], rate="10/h")
        refused = post(fresh, ["u1"] * 11)  # more than the bucket's size: waiting would not help
        assert refused.status == 400
        assert "this key has 10/h: ids may have 10" in refused.json["error"]["message"]
        assert post(fresh, ["u1"] * 10).status == 200
        assert post(fresh, ["u1"]).status == 429
