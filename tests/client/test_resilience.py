"""Unit tests of the circuit breaker, rate limit and retries."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import (
    AmbiguousMatch,
    Breaker,
    ClientClosed,
    ConfigurationError,
    InvalidKeyError,
    RateLimit,
    RetryPolicy,
    SourceAuthError,
    SourceConnectionError,
    SourceError,
    SourceRateLimited,
    SourceRequestError,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
)
from profile_enrich.client.breaker import Permit
from profile_enrich.testing import ManualClock

DOWN = SourceConnectionError("down")


def permit_of(breaker: Breaker) -> Permit:
    permit = breaker.ask()
    assert permit is not None
    return permit


def state_of(breaker: Breaker) -> str:
    return breaker.state


def fail(breaker: Breaker, times: int, error: Any = DOWN) -> None:
    for _ in range(times):
        permit_of(breaker).end(error)


class TestBreaker:
    def test_L10_it_opens_after_failures_in_a_row(self) -> None:
        """L10: repeated failures open the breaker."""
        breaker = Breaker(3, timer=ManualClock())
        fail(breaker, 2)
        permit_of(breaker).end(None)
        fail(breaker, 2)
        assert state_of(breaker) == "closed"
        fail(breaker, 1)
        assert state_of(breaker) == "open"
        assert breaker.ask() is None

    def test_its_pause_is_over_while_one_is_trying(self) -> None:
        clock = ManualClock()
        breaker = Breaker(1, open_for=5, timer=clock)
        assert breaker.pause() == 0.0
        breaker.failed(0, 60.0)
        assert breaker.pause() == 60.0
        clock.advance(59.0)
        assert breaker.pause() == 1.0
        clock.advance(1.0)
        assert breaker.ask() is not None
        assert (breaker.state, breaker.pause()) == ("half_open", 0.0)

    def test_a_trial_is_permitted_while_it_is_open_and_decides_as_any_other(self) -> None:
        breaker = Breaker(1, open_for=5, timer=ManualClock())
        changes: list[str] = []
        breaker.on_change = changes.append
        breaker.trial().end(None)
        assert (breaker.state, changes) == ("closed", [])
        breaker.trial().end(DOWN)  # a call of the closed breaker: its failure counts
        assert (state_of(breaker), changes) == ("open", ["open"])
        trial = breaker.trial()
        assert (breaker.state, changes, breaker.ask()) == ("half_open", ["open", "half_open"], None)
        assert breaker.pause() == 0.0  # although it would still be open
        trial.end(DOWN)
        assert state_of(breaker) == "open"
        breaker.trial().end(None)
        assert (state_of(breaker), changes[2:]) == ("closed", ["open", "half_open", "closed"])
        assert breaker.pause() == 0.0

    def test_L10_half_open_lets_exactly_one_of_a_hundred_through(self) -> None:
        """L10: a half-open breaker lets exactly 1 of 100 through."""
        clock = ManualClock()
        breaker = Breaker(1, open_for=5, timer=clock)
        fail(breaker, 1)
        clock.advance(5)
        permits: list[Permit | None] = []
        barrier = threading.Barrier(20)

        def ask() -> None:
            barrier.wait()
            for _ in range(5):
                permits.append(breaker.ask())

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(permits) == 100
        assert len([permit for permit in permits if permit is not None]) == 1
        assert state_of(breaker) == "half_open"

    def test_L10_a_try_that_succeeds_closes_it_and_one_that_fails_opens_it_for_longer(self) -> None:
        """L10: backs off."""
        clock = ManualClock()
        breaker = Breaker(1, open_for=5, max_open=15, timer=clock)
        fail(breaker, 1)
        for pause in (5, 10, 15, 15):
            clock.advance(pause - 0.01)
            assert breaker.ask() is None
            clock.advance(0.01)
            fail(breaker, 1)
            assert state_of(breaker) == "open"
        clock.advance(15)
        permit_of(breaker).end(None)
        assert state_of(breaker) == "closed"
        fail(breaker, 1)
        clock.advance(5)
        assert breaker.ask() is not None, "after a success it starts from the first pause again"

    @pytest.mark.parametrize(
        "error", [ClientClosed(), InvalidKeyError(), ConfigurationError(), AmbiguousMatch(), SourceRequestError()]
    )
    def test_L10_what_says_nothing_about_the_source_counts_neither_way(self, error: Any) -> None:
        """L10: a cancellation is neither a success nor a failure."""
        clock = ManualClock()
        breaker = Breaker(3, timer=clock)
        fail(breaker, 2)
        fail(breaker, 10, error)
        assert state_of(breaker) == "closed"
        fail(breaker, 1)
        assert state_of(breaker) == "open", "the consecutive failures were not interrupted"
        clock.advance(5)
        fail(breaker, 1, error)
        assert state_of(breaker) == "open"
        assert breaker.ask() is not None, "the next call may be tried at once"

    @pytest.mark.parametrize(
        "error",
        [SourceTimeout(), DOWN, SourceUnavailable(), SourceRateLimited(), SourceAuthError(), SourceResponseError()],
    )
    def test_what_says_something_about_the_source_counts(self, error: Any) -> None:
        breaker = Breaker(1, timer=ManualClock())
        fail(breaker, 1, error)
        assert state_of(breaker) == "open"

    def test_L10_a_retry_after_opens_it_for_as_long_as_the_vendor_asked(self) -> None:
        """L10: honour `Retry-After`."""
        clock = ManualClock()
        breaker = Breaker(5, open_for=5, max_open=60, timer=clock)
        fail(breaker, 1, SourceRateLimited(retry_after=7))
        clock.advance(6.9)
        assert breaker.ask() is None
        clock.advance(0.1)
        fail(breaker, 1, SourceRateLimited(retry_after=10_000))
        clock.advance(59.9)
        assert breaker.ask() is None
        clock.advance(0.1)
        assert breaker.ask() is not None

    def test_outcomes_from_before_a_change_say_nothing_about_now(self) -> None:
        clock = ManualClock()
        breaker = Breaker(1, open_for=5, timer=clock)
        late = [permit_of(breaker) for _ in range(3)]
        fail(breaker, 1)
        clock.advance(5)
        trial = permit_of(breaker)
        late[0].end(None)
        late[1].end(DOWN)
        late[2].end(ClientClosed())
        assert state_of(breaker) == "half_open"
        trial.end(None)
        trial.end(DOWN)
        assert state_of(breaker) == "closed", "a permit reports its outcome once"

    def test_it_tells_its_changes(self) -> None:
        clock, changes = ManualClock(), list[str]()
        breaker = Breaker(1, open_for=1, timer=clock)
        breaker.on_change = changes.append
        fail(breaker, 1)
        clock.advance(1)
        fail(breaker, 1, ClientClosed())
        fail(breaker, 1, None)
        assert changes == ["open", "half_open", "open", "half_open", "closed"]
        assert repr(breaker) == "<Breaker closed>"

    def test_L10_a_try_that_fails_opens_it_however_many_failures_it_takes_otherwise(self) -> None:
        """L10: one failed trial call reopens it."""
        clock = ManualClock()
        breaker = Breaker(3, open_for=5, timer=clock)
        fail(breaker, 3)
        clock.advance(5)
        fail(breaker, 1)
        assert state_of(breaker) == "open"
        clock.advance(10)
        fail(breaker, 1, None)
        fail(breaker, 2)
        assert state_of(breaker) == "closed", "the count of consecutive failures starts over"

    def test_L10_a_short_retry_after_is_taken_at_its_word(self) -> None:
        """L10: honour `Retry-After`, also one that is shorter than the breaker's own pause."""
        clock = ManualClock()
        breaker = Breaker(5, open_for=5, timer=clock)
        fail(breaker, 1, SourceUnavailable(retry_after=0.5))
        clock.advance(0.49)
        assert breaker.ask() is None
        clock.advance(0.01)
        assert breaker.ask() is not None

    def test_L10_a_retry_after_of_the_try_itself_stands_before_the_doubling(self) -> None:
        """L10: honour `Retry-After`: a vendor with a limit per second is called again after seconds, not minutes."""
        clock = ManualClock()
        breaker = Breaker(1, open_for=5, timer=clock)
        for _ in range(4):
            fail(breaker, 1, SourceRateLimited(retry_after=1))
            assert breaker.pause() == 1.0
            clock.advance(1)
        fail(breaker, 1)
        assert breaker.pause() > 5

    def test_its_pause_is_what_is_left_until_a_try(self) -> None:
        clock = ManualClock()
        breaker = Breaker(1, open_for=5, timer=clock)
        assert breaker.pause() == 0.0
        fail(breaker, 1)
        clock.advance(2)
        assert breaker.pause() == 3.0
        clock.advance(4)
        assert breaker.pause() == 0.0
        assert breaker.ask() is not None
        assert breaker.pause() == 0.0, "one trial call runs, and can end at any time"

    def test_its_defaults_are_those_that_are_documented(self) -> None:
        clock = ManualClock()
        breaker = Breaker(timer=clock)
        fail(breaker, 4)
        assert state_of(breaker) == "closed"
        fail(breaker, 1)
        assert state_of(breaker) == "open"
        for pause in (5, 10, 20, 40, 60, 60):
            clock.advance(pause - 0.01)
            assert breaker.ask() is None
            clock.advance(0.01)
            fail(breaker, 1)

    def test_it_survives_an_outage_of_any_length(self) -> None:
        clock = ManualClock()
        breaker = Breaker(1, open_for=0.001, max_open=60, timer=clock)
        for _ in range(1_100):
            fail(breaker, 1)
            clock.advance(60)
        assert breaker.ask() is not None

    def test_a_permit_tells_its_outcome_once(self) -> None:
        breaker = Breaker(2, timer=ManualClock())
        permit = permit_of(breaker)
        permit.end(DOWN)
        permit.end(DOWN)
        assert state_of(breaker) == "closed"

    def test_outcomes_from_an_earlier_closed_time_say_nothing_about_a_later_try(self) -> None:
        clock = ManualClock()
        breaker = Breaker(1, open_for=5, timer=clock)
        fail(breaker, 1)
        clock.advance(5)
        fail(breaker, 1, None)
        late = permit_of(breaker)
        fail(breaker, 1)
        clock.advance(5)
        permit_of(breaker)
        late.end(None)
        assert state_of(breaker) == "half_open"

    def test_it_can_be_switched_off(self) -> None:
        breaker = Breaker(0, timer=ManualClock())
        fail(breaker, 1000)
        assert state_of(breaker) == "closed"

    def test_a_fork_frees_a_try_that_was_under_way(self) -> None:
        clock = ManualClock()
        breaker = Breaker(1, open_for=1, timer=clock)
        fail(breaker, 1)
        clock.advance(1)
        permit_of(breaker)
        breaker.after_fork()
        assert state_of(breaker) == "open"
        assert breaker.ask() is not None

    @pytest.mark.parametrize(
        "setting",
        [{"failures": -1}, {"failures": True}, {"open_for": 0}, {"max_open": 1, "open_for": 2}, {"open_for": "5"}],
    )
    def test_bad_settings_are_refused_by_name(self, setting: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=f"^{next(iter(setting))} must be"):
            Breaker(**setting)


class TestRateLimit:
    def test_L10_so_many_at_once_and_so_many_a_second(self) -> None:
        """L10: the client-side rate limit."""
        clock = ManualClock()
        limit = RateLimit(10, burst=3, timer=clock)
        assert [limit.take() for _ in range(3)] == [0.0] * 3
        assert limit.take() == pytest.approx(0.1)
        clock.advance(0.1)
        assert limit.take() == 0.0
        assert limit.take() > 0
        clock.advance(100)
        assert [limit.take() == 0.0 for _ in range(4)] == [True, True, True, False]
        assert repr(limit) == "RateLimit(10/s, burst=3)"

    def test_L10_those_who_wait_leave_a_tenth_of_the_burst_to_those_who_do_not(self) -> None:
        """L10: a page gets a call while a pipeline uses the rest of the rate."""
        clock = ManualClock()
        limit = RateLimit(10, burst=20, timer=clock)
        assert [limit.take(yields=True) for _ in range(18)] == [0.0] * 18
        assert limit.take(yields=True) == pytest.approx(0.1)  # two tokens are left, and the third must be refilled
        assert [limit.take(), limit.take()] == [0.0, 0.0]
        assert limit.take() == pytest.approx(0.1)
        assert limit.take(yields=True) == pytest.approx(0.3)
        clock.advance(0.3)
        assert limit.take(yields=True) == 0.0
        single = RateLimit(10, burst=1, timer=clock)
        assert single.take(yields=True) == 0.0  # with a burst of one nothing is reserved
        assert single.take(yields=True) == pytest.approx(0.1)

    @given(st.floats(0.1, 1000), st.floats(1, 50), st.lists(st.floats(0, 2), max_size=60))
    def test_L10_never_more_than_the_rate_allows(self, rate: float, burst: float, pauses: list[float]) -> None:
        """L10: for any pattern of calls."""
        clock = ManualClock(0.0)
        limit = RateLimit(rate, burst=burst, timer=clock)
        taken = 0
        for pause in pauses:
            clock.advance(pause)
            taken += sum(limit.take() == 0.0 for _ in range(20))
        assert taken <= burst + rate * clock.now + 1e-3

    def test_the_wait_it_names_is_until_a_whole_token_is_there(self) -> None:
        clock = ManualClock()
        limit = RateLimit(2, burst=1, timer=clock)
        assert limit.take() == 0.0
        clock.advance(0.125)
        assert limit.take() == pytest.approx(0.375)

    def test_without_a_burst_it_lets_through_what_a_second_allows_and_at_least_one(self) -> None:
        for rate, at_once in ((0.5, 1), (1, 1), (3, 3)):
            limit = RateLimit(rate, timer=ManualClock())
            assert [limit.take() == 0.0 for _ in range(at_once + 1)] == [True] * at_once + [False]

    @pytest.mark.parametrize(
        ("setting", "complaint"),
        [
            ({"rate": 0}, "rate must be a number of calls a second, above 0"),
            ({"rate": -1}, "rate must be a number of calls a second, above 0"),
            ({"rate": None}, "rate must be a number of calls a second, above 0"),
            ({"rate": 5, "burst": 0.5}, "burst must be a number of calls, 1 or more"),
        ],
    )
    def test_bad_settings_are_refused_by_name(self, setting: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{complaint}"):
            RateLimit(**setting)


class TestRetries:
    def rich(self, **settings: Any) -> RetryPolicy:
        policy = RetryPolicy(**settings)
        for _ in range(100):
            policy.began()
        return policy

    def test_L10_retries_stay_within_a_tenth_of_the_calls(self) -> None:
        """L10: retries stay at or below 10 % of calls (a budget)."""
        policy = RetryPolicy(2)
        retries = 0
        for calls in range(1, 1001):
            policy.began()
            retries += policy.pause(DOWN, 1, 5.0) is not None
            assert retries <= calls * 0.1
        assert retries == 100

    def test_L10_quiet_times_save_up_no_storm(self) -> None:
        """L10: the saved-up retries are bounded."""
        policy = RetryPolicy(2)
        for _ in range(10_000):
            policy.began()
        assert sum(policy.pause(DOWN, 1, 5.0) is not None for _ in range(100)) == RetryPolicy.MOST_SAVED

    @pytest.mark.parametrize(("attempt", "longest"), [(1, 0.05), (2, 0.1), (3, 0.2), (6, 1.0), (5_000, 1.0)])
    def test_L10_pauses_grow_with_full_jitter(self, attempt: int, longest: float) -> None:
        """L10: back off exponentially with full jitter."""
        for rng in (0.0, 0.5, 0.999):
            policy = self.rich(attempts=10_000, rng=lambda rng=rng: rng)
            assert policy.pause(DOWN, attempt, 5.0) == pytest.approx(longest * rng)

    def test_L10_a_retry_after_is_the_least_and_no_wait_is_past_the_deadline(self) -> None:
        """L10: honour `Retry-After`."""
        policy = self.rich()
        assert policy.pause(SourceUnavailable(retry_after=2.0), 1, 5.0) == 2.0
        assert policy.pause(SourceRateLimited(retry_after=2.0), 1, 5.0) == 2.0
        assert policy.pause(SourceRateLimited(retry_after=5.0), 1, 5.0) is None
        assert policy.pause(SourceRateLimited(retry_after=6.0), 1, 5.0) is None
        assert policy.pause(SourceRateLimited(), 1, 5.0) is None

    @pytest.mark.parametrize(
        "error", [SourceTimeout(), SourceAuthError(), SourceRequestError(), SourceResponseError(), SourceError()]
    )
    def test_L10_only_what_may_help_is_repeated(self, error: SourceError) -> None:
        """L10: only calls that are safe to repeat are retried."""
        assert self.rich().pause(error, 1, 5.0) is None

    def test_no_more_attempts_than_allowed(self) -> None:
        policy = self.rich(attempts=3, rng=lambda: 0.0)
        assert [policy.pause(DOWN, attempt, 5.0) for attempt in (1, 2, 3)] == [0.0, 0.0, None]
        assert self.rich(attempts=1).pause(DOWN, 1, 5.0) is None
        assert self.rich().pause(DOWN, 2, 5.0) is None, "by default a load makes two calls at most"
        assert repr(policy) == "RetryPolicy(attempts=3, ratio=0.1)"

    @pytest.mark.parametrize(
        ("setting", "complaint"),
        [
            ({"attempts": 0}, "attempts must be a whole number"),
            ({"attempts": 1.5}, "attempts must be a whole number"),
            ({"ratio": 1.5}, "ratio must be a number of retries a call, 0 or more and at most 1"),
            ({"ratio": -1}, "ratio must be a number of retries a call"),
            ({"wait_initial": 0}, "wait_initial must be a number of seconds, above 0"),
            ({"wait_max": 0}, "wait_max must be a number of seconds, above 0"),
            ({"wait_max": None}, "wait_max must be a number of seconds, above 0"),
        ],
    )
    def test_bad_settings_are_refused_by_name(self, setting: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{complaint}"):
            RetryPolicy(**setting)


def test_all_of_them_renew_their_locks_after_a_fork() -> None:
    for thing in (Breaker(), RateLimit(1), RetryPolicy()):
        thing._lock.acquire()
        thing.after_fork()
        assert thing._lock.acquire(blocking=False)
