"""A short soak test: it runs, and detects violations."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools

import pytest

from profile_enrich import Profile, ProfileKey, Reason, Record, Status
from profile_enrich.cache.cache import LoadToken, ProfileCache
from profile_enrich.cache.expiry import Expiry
from profile_enrich.client.loader import CacheKey, Loader
from profile_enrich.client.retry import RetryPolicy

from .soak import __main__ as command
from .soak.checker import Checker
from .soak.expected_state import Sight
from .soak.run import Outcome, soak, table
from .soak.settings import Settings

MINIATURE = Settings(
    seed=7, chapters=3, chapter_seconds=1.2, visitors=50, socket_visitors=8, people=60, think=0.1, pace=0.2,
    max_entries=40, max_negative_entries=10,
)  # fmt: skip

SABOTAGED = dataclasses.replace(MINIATURE, chapters=1, chapter_seconds=1.5)


def run(settings: Settings) -> Outcome:
    return asyncio.run(soak(settings, loud=False))


def found(*rules: str, settings: Settings = SABOTAGED) -> bool:
    """Whether runs with other seeds violate every rule. What a second and a half meets is chance on a busy machine."""
    missing = set(rules)
    for seed in range(7, 17):
        violations = run(dataclasses.replace(settings, seed=seed)).checker.violations
        missing -= {rule for rule in missing if any(name.startswith(rule) for name in violations)}
        if not missing:
            return True
    return False


@pytest.mark.long
def test_L8_L9_L10_L14_A10_a_shop_under_faults_serves_every_page_and_mixes_nobody_up() -> None:
    events = ("fault: ", "elsewhere: blocking", "elsewhere: short loop", "left: ", "operator: ")
    for seed in (7, 8, 9):  # A busy machine may meet too little in one run.
        outcome = run(dataclasses.replace(MINIATURE, seed=seed))
        checker = outcome.checker
        assert checker.violations == {}
        if all(checker.total(event) for event in events):
            break
    assert [event for event in events if not checker.total(event)] == []
    assert checker.counts["response: 200"] == checker.total("response: ") > 50
    assert len(checker.part("page status: ")) >= 3
    assert {name.split(" ")[2].rstrip(",") for name in checker.part("chapter: ")} == {"aiohttp", "httpx2", "httpx"}
    assert "too short a run" in table(outcome, MINIATURE)


@pytest.mark.long
def test_it_sees_two_people_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed(self: Loader, key: ProfileKey) -> CacheKey:
        return ("", key.type, key.value[:-1])

    monkeypatch.setattr(Loader, "cache_key", mixed)
    assert found("isolation: another owner", "isolation: a response holds another person's data")


@pytest.mark.long
def test_it_sees_what_outlives_its_invalidation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProfileCache, "_invalidate", lambda self, key: False)
    assert found("L6: what was invalidated came back", "an overlay came back after it was invalidated")


@pytest.mark.long
def test_it_sees_profiles_that_are_kept_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Expiry, "_factor", lambda self: 100.0)
    settings = dataclasses.replace(SABOTAGED, pace=0.1, slack=0.1, chapter_seconds=4.0)
    assert found("staleness", settings=settings)


@pytest.mark.long
def test_it_sees_lost_tokens_and_too_many_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: ProfileCache[CacheKey], load: LoadToken[CacheKey]) -> None:
        return None

    monkeypatch.setattr(ProfileCache, "end", forget)
    monkeypatch.setattr(RetryPolicy, "pause", lambda self, error, attempt, left: 0.0 if attempt == 1 else None)
    assert found("L14: tokens of loads are left after closing", "L10: more retries than 10 %")


@pytest.mark.long
def test_a_violation_is_told_with_its_first_case_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Settings] = []

    async def violated(settings: Settings) -> Outcome:
        seen.append(settings)
        outcome = await soak(dataclasses.replace(MINIATURE, chapters=1, chapter_seconds=0.2), loud=False)
        for number in range(7):
            outcome.checker.check(False, "a rule", f"case {number}")
        return outcome

    monkeypatch.setattr(command, "soak", violated)
    assert command.main(["--minutes", "3", "--seed", "5", "--visitors", "10"]) == 1
    said = capsys.readouterr().out
    assert "seed 5" in said
    assert "- a rule: 7 times" in said
    assert "case 0" in said
    assert "case 6" not in said
    assert (seen[0].seed, seen[0].visitors, seen[0].chapters) == (5, 10, 12)
    assert 150 < seen[0].chapters * (seen[0].chapter_seconds + 1) <= 180


def test_the_checker_counts_by_prefix() -> None:
    checker = Checker(loud=False)
    checker.count("fault: hang", 2)
    checker.count("fault: 500")
    checker.check(True, "holds")
    assert checker.total("fault: ") == 3
    assert list(checker.part("fault: ")) == ["hang", "500"]
    assert checker.violations == {}


def test_a_sight_is_of_one_moment_though_another_thread_caches_the_profile_between_two_reads() -> None:
    reads = itertools.count()

    def cached_at_the_third_read() -> None:
        if next(reads) == 2:
            profile._facts = Profile(Record({"owner": "u1"}), status=Status.HIT)._facts

    profile = Profile(reason=Reason.NOT_LOOKED_UP, on_read=cached_at_the_third_read)
    sight = Sight.of(profile)
    assert (sight.attributes, sight.status, sight.reason) == ({"owner": "u1"}, Status.HIT.value, None)
