"""ETags, 304s, Cache-Control and gzip, in both dialects and end to end."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import AmperitySource, CachePolicy, CensusSource, ProfileClient
from profile_enrich.errors import ConfigurationError
from profile_enrich.server import ProfileAPI
from profile_enrich.server.http.etag import HttpCaching
from profile_enrich.server.http.gzip import Compression
from profile_enrich.testing import ManualClock

from .helpers import SECRET, amperity, api, ask, bearer, build, served

RECORD = "/api/v1/entities/1/record?record_id="


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> ProfileAPI:
    return api(build(tmp_path_factory.mktemp("caching")))


def places(app: ProfileAPI) -> list[tuple[str, dict[str, str]]]:
    index = f"/api/indexes/{app.store.collection('Users').index_id}"
    return [
        (f"{RECORD}u1", bearer()),
        (f"{index}/profiles/u1", amperity()),
        (f"{index}/profiles?limit=3&filter[tier]=gold", amperity()),
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_copy_that_is_still_good_is_not_sent_again(app: ProfileAPI, place: int) -> None:
    target, headers = places(app)[place]
    first = ask(app, target, headers=headers)
    tag = first.headers["etag"]
    assert tag.startswith('"')  # strong
    assert first.headers["cache-control"] == "private"
    for asked in (tag, f"W/{tag}", f'"other", {tag}', "*", tag[:-1] + '.gz"'):
        again = ask(app, target, headers={**headers, "if-none-match": asked}, method="HEAD")
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
    for asked in ('"other"', "nonsense", "", tag[:-1]):
        assert ask(app, target, headers={**headers, "if-none-match": asked}).status == 200


def test_P2_a_tag_opens_nothing(app: ProfileAPI) -> None:
    tag = ask(app, f"{RECORD}u1", headers=bearer()).headers["etag"]
    assert ask(app, f"{RECORD}u1", headers={"if-none-match": tag}).status == 401
    assert ask(app, f"{RECORD}u2", headers={**bearer(), "if-none-match": tag}).status == 200


def test_errors_are_never_kept(app: ProfileAPI) -> None:
    missing = ask(app, f"{RECORD}nobody", headers={**bearer(), "if-none-match": "*"})
    assert (missing.status, missing.headers["cache-control"]) == (404, "no-store")
    assert "etag" not in missing.headers


def test_how_long_is_up_to_the_owner(tmp_path: Path) -> None:
    app = api(build(tmp_path), max_age=30)
    assert ask(app, f"{RECORD}u1", headers=bearer()).headers["cache-control"] == "private, max-age=30"


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "60"])
def test_arguments_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_age must be"):
        HttpCaching(wrong)
    with pytest.raises(ConfigurationError, match="compress_from must be"):
        Compression(wrong)


@pytest.mark.parametrize("dialect", ["census", "amperity"])
async def test_L7_a_client_renews_what_it_has_with_304(app: ProfileAPI, dialect: str) -> None:
    clock = ManualClock()
    with served(app) as url:
        source: Any
        if dialect == "census":
            source = CensusSource(SECRET, entity="Users", base_url=f"{url}/api/v1")
        else:
            source = AmperitySource(tenant="acme", token=SECRET, index="Users", base_url=f"{url}/api")
        answers: list[Any] = []
        client = ProfileClient(
            source, ttl=60, stale_ttl=0, cache_policy=CachePolicy(max_stale=60), timer=clock, hooks=[answers.append]
        )
        async with client:
            first = await client.get("u1")
            clock.advance(70)
            again = await client.get("u1")
            assert dict(again) == dict(first)
    outcomes = [each.outcome for each in answers if hasattr(each, "outcome")]
    assert outcomes == ["found", "not_modified"]


# --- gzip -----------------------------------------------------------------------------------------------------------


def page(app: ProfileAPI, limit: int = 60) -> str:
    return f"/api/indexes/{app.store.collection('Users').index_id}/profiles?limit={limit}"


@pytest.mark.parametrize("accepted", ["gzip", "br, GZIP;q=0.5", "*", "x-gzip", "identity;q=0, gzip ; q=1.000"])
def test_pages_are_compressed_for_who_takes_it(app: ProfileAPI, accepted: str) -> None:
    plain = ask(app, page(app), headers=amperity())
    packed = ask(app, page(app), headers={**amperity(), "accept-encoding": accepted})
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding, authorization, authentication"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    assert packed.headers["etag"] != plain.headers["etag"]
    again = {**amperity(), "accept-encoding": accepted, "if-none-match": packed.headers["etag"]}
    assert ask(app, page(app), headers=again).status == 304


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "*;q=0", "gzip;q=0, *", "br", "gzip;q=x"])
def test_nobody_gets_what_they_do_not_take(app: ProfileAPI, accepted: str) -> None:
    answer = ask(app, page(app), headers={**amperity(), "accept-encoding": accepted})
    assert "content-encoding" not in answer.headers


def test_small_answers_stay_as_they_are(app: ProfileAPI, tmp_path: Path) -> None:
    for target in (f"{RECORD}u1", f"{RECORD}nobody"):
        answer = ask(app, target, headers={**bearer(), "accept-encoding": "gzip"})
        assert "content-encoding" not in answer.headers
        assert "accept-encoding" not in answer.headers["vary"]
    never = api(build(tmp_path), compress_from=None)
    whole = ask(never, page(never), headers={**amperity(), "accept-encoding": "gzip"})
    assert "accept-encoding" not in whole.headers["vary"]
