"""The Census dialect of the embedded Profile API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from profile_enrich.server import ProfileAPI
from profile_enrich.store import LocalStore

from .helpers import KEYS, LIMITED, ODD_ID, SECRET, STRANGER, USERS, amperity, api, ask, basic, bearer, build


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalStore(build(tmp_path_factory.mktemp("census"))) as store:
        yield api(store)


RECORD = "/api/v1/entities/1/record?record_id="


def test_entities(app: ProfileAPI) -> None:
    for target in ("/api/v1/entities", "/api/v1/entities/"):
        answer = ask(app, target, headers=bearer())
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json == {
            "data": [
                {"id": 1, "name": "Users", "library_id": 1},
                {"id": 2, "name": "Orders", "library_id": 1},
                {"id": 3, "name": "Wide", "library_id": 1},
            ]
        }


def test_record(app: ProfileAPI) -> None:
    for target in (
        RECORD + "u7",
        "/api/v1/entities/1/record/?record_id=u7",
        "/api/v1/entities/1/record?x=1&record_id=u7",
    ):
        answer = ask(app, target, headers=bearer())
        assert answer.status == 200
        assert answer.json == {"data": USERS[7]}
    assert len(ask(app, "/api/v1/entities/3/record?record_id=w", headers=bearer()).json["data"]) == 41


@pytest.mark.parametrize("encode", [lambda value: quote(value, safe=""), lambda value: urlencode({"": value})[1:]])
def test_any_id_is_decoded_exactly(app: ProfileAPI, encode: Any) -> None:
    assert ask(app, RECORD + encode(ODD_ID), headers=bearer()).json == {"data": USERS[-1]}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"bearer {SECRET}"},
        {"Authorization": f"BEARER   {SECRET} "},
        {"Authorization": f"Bearer secret-token:{SECRET}"},
        {"Authentication": f"bearer {SECRET}"},
        {"Authorization": basic("bearer", SECRET)},  # curl http://bearer:KEY@…
        {"Authorization": basic("bearer", f"secret-token:{SECRET}")},
    ],
)
def test_spellings_of_the_key(app: ProfileAPI, headers: dict[str, str]) -> None:
    assert ask(app, RECORD + "u7", headers=headers).status == 200


def error(answer: Any, status: int, code: str) -> None:
    assert answer.status == status
    assert set(answer.json) == {"error"}
    assert set(answer.json["error"]) == {"code", "message"}
    assert answer.json["error"]["code"] == code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": basic("somebody", SECRET)},
        {"Authorization": basic("bearer", f"{SECRET}x")},
        {"Authorization": basic(SECRET, "")},
        {"Authorization": "Basic !!!"},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Bearer {SECRET[:-1]}"},
        {"Authorization": f"Bearer {SECRET.upper()}"},
        {"Authorization": "Bearer wrong", "Authentication": f"Bearer {SECRET}"},
        {"Authorization": "Bearer \xff\xfe"},
    ],
)
def test_P2_no_key_or_a_wrong_one_learns_nothing(app: ProfileAPI, headers: dict[str, str]) -> None:
    answers = {
        ask(app, target, headers=headers).body
        for target in (
            RECORD + "u7",
            RECORD + "none",
            RECORD,
            "/api/v1/entities/99/record",
            "/api/v1/entities",
            "/api/v1/x",
        )
    }
    assert len(answers) == 1
    answer = ask(app, RECORD + "u7", headers=headers)
    error(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_P2_the_header_twice_is_refused(app: ProfileAPI) -> None:
    twice = [(b"authorization", f"Bearer {SECRET}".encode())] * 2
    error(ask(app, RECORD + "u7", headers=twice), 401, "unauthorized")


def test_P2_a_key_of_another_workspace_is_refused_alike_everywhere(app: ProfileAPI) -> None:
    targets = (RECORD + "u7", RECORD + "none", "/api/v1/entities/99/record?record_id=1", "/api/v1/entities", "/status")
    answers = [ask(app, target, headers=bearer(STRANGER)) for target in targets]
    assert {answer.body for answer in answers} == {answers[0].body}
    error(answers[0], 403, "forbidden")


def test_P2_a_key_without_the_entity_cannot_tell_it_from_one_that_is_not_there(app: ProfileAPI) -> None:
    assert ask(app, RECORD + "u7", headers=bearer(LIMITED)).status == 200
    assert ask(app, "/api/v1/entities", headers=bearer(LIMITED)).json["data"] == [
        {"id": 1, "name": "Users", "library_id": 1}
    ]
    targets = [
        f"/api/v1/entities/{entity}/record{query}"
        for entity in ("2", "99", "x", "%C3%A9")
        for query in ("?record_id=o1", "?record_id=none", "")
    ]
    answers = [ask(app, target, headers=bearer(LIMITED)) for target in targets]
    assert {(answer.status, answer.body) for answer in answers} == {(403, answers[0].body)}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?record_id",
        "?record_id=",
        "?x=u7",
        "?record_id=u7&record_id=u7",
        "?record_id=u7&record_id=",
        "?RECORD_ID=u7",
    ],
)
def test_P3_record_id_once_and_not_empty(app: ProfileAPI, query: str) -> None:
    error(ask(app, "/api/v1/entities/1/record" + query, headers=bearer()), 400, "bad_request")


@pytest.mark.parametrize("value", ["%", "%zz", "%4", "%ff", "%ed%a0%80", "x" * 2049, "%C3%A9" * 1025, "u7%"])
def test_P3_ids_that_are_not_properly_encoded(app: ProfileAPI, value: str) -> None:
    error(ask(app, RECORD + value, headers=bearer()), 400, "bad_request")


@pytest.mark.parametrize("value", ["u61", "U7", "u7%00", "%20u7", "u7+", "u7/", "x" * 2048, "u7%2500", "*", "%25"])
def test_P3_ids_that_are_not_there(app: ProfileAPI, value: str) -> None:
    error(ask(app, RECORD + value, headers=bearer()), 404, "not_found")


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/entities/99/record?record_id=u7",
        "/api/v1/entities/01/record?record_id=u7",
        "/api/v1/entities/%D9%A1/record?record_id=u7",
        "/api/v1/entities/Users/record?record_id=u7",
        "/api/v1/entities/-1/record?record_id=u7",
        "/api/v1/entities//record?record_id=u7",
        "/api/v1/entities/" + "1" * 30 + "/record?record_id=u7",
        "/api/v1/entities/1",
        "/api/v1/entities/1/record/u7",
        "/api/v1/entities/1/records?record_id=u7",
        "/api/v1/",
        "/api/v1",
        "/api/v1/../v1/entities",
        "/api//v1/entities",
    ],
)
def test_P3_paths_that_are_not_there(app: ProfileAPI, target: str) -> None:
    error(ask(app, target, headers=bearer()), 404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"])
def test_other_methods(app: ProfileAPI, method: str) -> None:
    answer = ask(app, RECORD + "u7", method=method, headers=bearer())
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


def test_head(app: ProfileAPI) -> None:
    answer = ask(app, RECORD + "u7", method="HEAD", headers=bearer())
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(ask(app, RECORD + "u7", headers=bearer()).body)


def test_mounted_or_behind_a_root_path(app: ProfileAPI) -> None:
    mounted = Starlette(routes=[Mount("/profile api", app=app)])
    assert ask(mounted, "/profile%20api" + RECORD + "u7", headers=bearer()).json == {"data": USERS[7]}
    assert ask(app, "/gate" + RECORD + "u7", headers=bearer(), root_path="/gate").json == {"data": USERS[7]}
    # A server that removes the root path from the path.
    assert ask(app, RECORD + "u7", headers=bearer(), root_path="/gate").json == {"data": USERS[7]}
    index = ask(app, "/api/indexes", headers=amperity()).json["data"][0]["id"]
    target = f"/profile%20api/api/indexes/{index}/profiles/x%2Fy"
    assert ask(mounted, target, headers=amperity()).json["id"] == "x/y"


def test_without_raw_path(app: ProfileAPI) -> None:
    assert ask(app, RECORD + "u7", headers=bearer(), raw_path=False).json == {"data": USERS[7]}


def test_one_key_of_many(tmp_path: Path) -> None:
    with LocalStore(build(tmp_path)) as store:
        assert ask(ProfileAPI(store, keys=KEYS[:2]), RECORD + "u7", headers=bearer()).status == 200
