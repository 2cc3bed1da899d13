"""The smaller helpers of `profile_enrich.testing`: the clock, the offline source, the plugin, recorded calls."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import SourceConnectionError, SourceRateLimited
from profile_enrich.profile import ProfileKey
from profile_enrich.sources.base import Excluded, Found, NotFound, ProfileSource
from profile_enrich.testing import Call, ManualClock, OfflineSource, offline

pytest_plugins = ["profile_enrich.testing.pytest_plugin"]


def test_the_clock_stands_still_until_it_is_moved(profile_clock: ManualClock) -> None:
    deadline = Deadline(5, timer=profile_clock)
    assert profile_clock() == profile_clock.now == 1000.0
    assert profile_clock.advance(4.5) == 1004.5
    assert deadline.remaining() == 0.5
    profile_clock.advance(0.5)
    assert deadline.passed
    for backwards in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="does not go back"):
            profile_clock.advance(backwards)
    assert repr(profile_clock) == "ManualClock(1005.000 s)"


async def test_the_offline_source_answers_from_memory() -> None:
    with offline({"u1": {"email": "a@b.example", "tier": "gold"}}) as source:
        assert isinstance(source, ProfileSource)
        soon = Deadline(1)
        found = await source.fetch(ProfileKey("u1"), deadline=soon)
        assert isinstance(found, Found)
        assert (found.record.attributes["tier"], found.record.id, found.record.source) == ("gold", "u1", "offline")
        by_email = await source.fetch(ProfileKey("a@b.example", type="email"), deadline=soon)
        assert isinstance(by_email, Found)
        assert isinstance(await source.fetch(ProfileKey("b@b.example", type="email"), deadline=soon), NotFound)
        assert isinstance(await source.fetch(ProfileKey("u2"), deadline=soon), NotFound)
        source.exclude("u1")
        assert isinstance(await source.fetch(ProfileKey("u1"), deadline=soon), Excluded)
        source.put("u1", {"tier": "silver"})
        assert isinstance(await source.fetch(ProfileKey("u1"), deadline=soon), Found)
        source.remove("u1")
        assert isinstance(await source.fetch(ProfileKey("u1"), deadline=soon), NotFound)
        assert len(source.calls) == 7
        source.fail(SourceRateLimited("slow down", status=429, retry_after=3))
        with pytest.raises(SourceRateLimited) as caught:
            await source.fetch(ProfileKey("u1"), deadline=soon)
        assert caught.value.retry_after == 3
        source.heal()
        source.fail()
        with pytest.raises(SourceConnectionError):
            await source.fetch(ProfileKey("u1"), deadline=soon)
        assert "a@b" not in repr(source)
        await source.aclose()
    assert source.calls == []


async def test_without_profiles_the_offline_source_is_unreachable() -> None:
    async with OfflineSource(name="vendor", namespace="vendor/eu") as source:
        assert (source.name, source.namespace) == ("vendor", "vendor/eu")
        assert "unreachable" in repr(source)
        source.remove("u1")
        with pytest.raises(SourceConnectionError):
            await source.fetch(ProfileKey("u1"), deadline=Deadline(1))
        source.put("u1", {})
        assert isinstance(await source.fetch(ProfileKey("u1"), deadline=Deadline(1)), Found)


def test_only_the_plugin_imports_pytest() -> None:
    code = "import sys, profile_enrich.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_call_is_a_plain_value() -> None:
    call = Call("GET", "/x?a=1", "/x", {}, b"", 0.0)
    assert (call.query, call.raw_path, call.key) == ([("a", "1")], "/x", None)
    assert json.loads(json.dumps(call.target)) == "/x?a=1"
