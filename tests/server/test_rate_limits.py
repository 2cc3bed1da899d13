"""Rate limits of keys, and their response headers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError
from profile_enrich.server import ApiKey, ProfileAPI, Rate
from profile_enrich.server.auth.rate_limits import Quotas
from profile_enrich.server.cross_worker_state import SharedState
from profile_enrich.store import LocalStore
from profile_enrich.testing import ManualClock

from .helpers import LIMITED, SECRET, Answer, amperity, ask, bearer, build


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("quota"))


def get(app: ProfileAPI, secret: str = SECRET) -> Answer:
    return ask(app, "/api/v1/entities/1/record?record_id=u7", headers=bearer(secret))


def keys(rate: Rate | None = None) -> list[ApiKey]:
    return [ApiKey.from_secret(SECRET, id="k1", rate=rate), ApiKey.from_secret(LIMITED, id="k2")]


def test_no_limit_by_default(path: Path) -> None:
    with LocalStore(path) as store:
        answer = get(ProfileAPI(store, keys=keys()))
    assert not [name for name in answer.headers if name.startswith("ratelimit")]


def test_429_in_both_envelopes_with_what_is_left(path: Path) -> None:
    with LocalStore(path) as store:
        app = ProfileAPI(store, keys=keys(), rate="3/h")
        left = []
        for _ in range(3):
            answer = get(app)
            assert answer.status == 200
            assert answer.headers["ratelimit-policy"] == '"key";q=3;w=3600'
            found = re.fullmatch(r'"key";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
            assert found is not None
            left.append(int(found[1]))
            assert 0 < int(found[2]) <= 3600
        assert left == [2, 1, 0]
        answer = get(app)
        assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limited")
        assert 1100 < int(answer.headers["retry-after"]) <= 1200
        assert answer.headers["ratelimit"].startswith('"key";r=0;t=')
        headers = amperity(tenant="default")
        answer = ask(app, "/api/indexes", headers=headers)
        assert (answer.status, answer.json["status"]) == (429, 429)
        assert set(answer.json) == {"status", "message", "request_id", "trace_id"}
        assert "retry-after" in answer.headers
        assert get(app, LIMITED).status == 200  # another key has its own bucket
        assert ask(app, "/healthz").status == 200
        assert ask(app, "/api/v1/entities", headers=bearer("nobody's key at all")).status == 401
        bad = ask(app, "/api/v1/entities/1/record", headers=bearer(LIMITED))
        assert bad.status == 400
        assert "ratelimit" in bad.headers


def test_a_key_has_its_own_rate(path: Path) -> None:
    with LocalStore(path) as store:
        app = ProfileAPI(store, keys=keys(Rate(1, 60)), rate=Rate(5, 60))
        assert [get(app).status for _ in range(2)] == [200, 429]
        assert [get(app, LIMITED).status for _ in range(6)] == [200] * 5 + [429]


def test_a_shared_rate_is_the_workspaces(path: Path) -> None:
    with LocalStore(path) as store:
        app = ProfileAPI(store, keys=keys(), rate=Rate(2, 3600, shared=True))
        assert [get(app, secret).status for secret in (SECRET, LIMITED, SECRET, LIMITED)] == [200, 200, 429, 429]
        assert get(app).headers["ratelimit-policy"] == '"workspace";q=2;w=3600'


def test_the_bucket_fills_with_time() -> None:
    clock = ManualClock()
    quotas = Quotas(Rate(10, 1), timer=clock)

    def grants(count: int) -> int:
        taken = [quotas.take("k", "w", None) for _ in range(count)]
        return sum(each is not None and each.granted for each in taken)

    assert grants(20) == 10
    clock.advance(0.25)
    assert grants(20) == 2
    clock.advance(100)
    assert grants(20) == 10
    changed = quotas.take("k", "w", Rate(1000, 1))  # requests at the old rate are waited for, at most one window
    assert changed is not None
    assert not changed.granted
    clock.advance(1)
    changed = quotas.take("k", "w", Rate(1000, 1), 1000)
    assert changed is not None
    assert changed.granted


def test_P7_several_processes_keep_one_rate_together() -> None:
    with SharedState.create(several=True) as shared:
        quotas = Quotas(Rate(30, 3600), buckets=shared.buckets)
        reader, writer = os.pipe()
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                granted = [quotas.take(f"k{n % 2}", "w", None) for n in range(200)]
                os.write(writer, bytes([sum(each is not None and each.granted for each in granted)]))
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        assert sum(os.read(reader, 4)) == 60  # two keys, 30 each, regardless of the process
        os.close(reader)
        os.close(writer)


def test_P7_a_full_table_gives_less_not_more() -> None:
    clock = ManualClock()
    quotas = Quotas(Rate(2, 60), timer=clock)

    def granted(name: str) -> bool:
        taken = quotas.take(name, "w", None)
        return taken is not None and taken.granted

    assert all(granted(f"k{n}") for n in range(4096))
    sharing = [granted("one more") for _ in range(9)]
    assert sharing.count(True) <= 2
    clock.advance(61)
    assert [granted("one more") for _ in range(3)] == [True, True, False]  # full buckets are removed


@given(
    st.integers(1, 50),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 60)), max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_never_more_than_the_rate(requests: int, seconds: int, asks: list[tuple[float, int]]) -> None:
    """Grants never exceed the bucket and its refill; a client that waits for `Retry-After` is admitted."""
    clock = ManualClock()
    quotas = Quotas(Rate(requests, seconds), timer=clock)
    granted, passed = 0.0, 0.0
    for pause, cost in asks:
        clock.advance(pause)
        passed += pause
        taken = quotas.take("k", "w", None, cost)
        assert taken is not None
        if taken.granted:
            granted += cost
        elif cost > requests:
            assert b"retry-after" in dict(taken.headers)
        else:
            wait = int(dict(taken.headers)[b"retry-after"])
            assert wait >= 1
            clock.advance(wait)
            passed += wait
            again = quotas.take("k", "w", None, cost)
            assert again is not None
            assert again.granted
            granted += cost
        assert granted <= requests + passed * requests / seconds + 0.1


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100)),
        ("700/m", Rate(700, 60)),
        ("5/h", Rate(5, 3600)),
        ("9/d", Rate(9, 86400)),
        ("amperity", Rate(2000, 1, shared=True)),
    ],
)
def test_rates_are_written_as_people_do(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate
    assert str(rate) == text


@pytest.mark.parametrize("text", ["", "100", "0/s", "-1/s", "1/y", "1.5/s", "1 /s", "nobody", "9" * 20 + "/s"])
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a rate is written"):
        Rate.parse(text)


def test_rates_that_make_no_sense(path: Path) -> None:
    wrong: Any
    for wrong in (0, -1, True, "3", 1.5):
        with pytest.raises(ConfigurationError):
            Rate(wrong)
        with pytest.raises(ConfigurationError):
            Rate(1, wrong)
    assert str(Rate(3, 10)) == "3/10s"
