"""P2, P3: malformed requests; `make hostile` sends 100,000, this test the first 4,000."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from .helpers import LIMITED, SECRET, STRANGER, Answer
from .hostile import PARTNER, Hostile, Question


@pytest.fixture
def hostile(tmp_path: Path) -> Generator[Hostile]:
    made = Hostile(tmp_path)
    yield made
    made.close()


@pytest.mark.long
def test_P2_P3_thousands_of_bad_requests_give_no_500_and_nothing_foreign(hostile: Hostile) -> None:
    hostile.run(4_000)
    # The requests must cover all kinds, or the test proves nothing.
    assert {200, 400, 401, 403, 404, 405} <= set(hostile.statuses)
    assert hostile.found > 100


def test_it_would_notice(hostile: Hostile) -> None:
    """Each check of the generator can fail."""

    def said(question: Question, content: object, status: int = 200) -> str | None:
        return hostile.problem(question, Answer(status, {}, json.dumps(content).encode()))

    record = b"/api/v1/entities/1/record"
    u1 = {"data": {"id": "u1"}}
    asks_u1 = Question("GET", record, [(b"record_id", b"u1")], SECRET)
    assert said(asks_u1, u1) is None
    assert said(asks_u1, {}, 500) == "status 500"
    assert said(asks_u1, {"x": 1}, 404) == "a strange envelope"
    assert said(asks_u1, {"error": {"code": "x"}}, 404) == "a strange envelope"
    assert said(asks_u1, {"data": {"id": "u2"}}) == "another record than was asked for"
    assert said(Question("GET", record, [], STRANGER), u1) == "an answer for somebody without a key"
    assert said(Question("GET", record, [], LIMITED), {"x": "planted-order"}) == "another entity's data"
    assert said(Question("GET", record, [], PARTNER), {"x": "@x.example"}) == "a field that the key does not see"
    single = Question("GET", b"/api/indexes/i/profiles/u1", [], SECRET)
    assert said(single, {"id": "u2"}) == "another profile than was asked for"
    batch = Question("POST", b"/api/x/entities/1/records", [], SECRET, body=b'{"ids":["u1"]}')
    assert said(batch, {"data": []}) == "answers that do not fit the ids"
    wrong = [{"id": "u1", "found": True, "record": {"id": "u2"}}]
    assert said(batch, {"data": wrong}) == "another record than was asked for"
    gold = (b"filter[tier]", b"gold")
    page = Question("GET", b"/api/indexes/i/profiles", [gold, (b"next_token", b"t")], SECRET, token=("t", b""))
    assert said(page, {"data": [{"id": "u1"}]}) == "a profile that does not fit the filter"
    assert said(page, {"data": [{"id": "u0"}]}) == "a page for a token that was changed, or is of another filter"
    page.token = ("t", b"filter[tier]=gold")
    assert said(page, {"data": [{"id": "u0"}]}) is None
