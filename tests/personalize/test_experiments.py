"""Percentage splits: stable, fair, independent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import ConfigurationError, InvalidKeyError, Profile, ProfileKey, Reason
from profile_enrich.personalize.experiments import Experiment

HALVES = Experiment("hero", {"blue": 50, "green": 50})


def test_the_same_person_is_on_the_same_side_in_every_release() -> None:
    assert [HALVES.variant_of(f"u{number}") for number in range(8)] == [
        "blue", "blue", "green", "green", "green", "green", "green", "green",
    ]  # fmt: skip
    assert HALVES.variant_of(ProfileKey("u3", "email")) == Experiment("hero", {"blue": 50, "green": 50}).variant_of(
        ProfileKey("u3", "email")
    )


def test_variants_have_the_share_that_they_were_given() -> None:
    shares = Experiment("layout", {"a": 10, "b": 30, "c": 0, "d": 40.5})
    count = Counter(shares.variant_of(f"person-{number}") for number in range(40_000))
    expected = {"a": 4_000, "b": 12_000, "d": 16_200, None: 7_800}
    assert set(count) == set(expected)
    # Chi-square with 3 degrees of freedom: 16.3 is passed by chance once in a thousand, and these keys are fixed.
    assert sum((count[variant] - wanted) ** 2 / wanted for variant, wanted in expected.items()) < 16.3


def test_two_experiments_are_independent() -> None:
    other = Experiment("footer", {"blue": 50, "green": 50})
    together = Counter((HALVES.variant_of(f"u{number}"), other.variant_of(f"u{number}")) for number in range(10_000))
    assert all(2_300 < count < 2_700 for count in together.values())
    assert len(together) == 4


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()), st.floats(0, 100), st.floats(0, 100))
def test_raising_the_first_share_moves_nobody_out_of_it(key: str, one: float, two: float) -> None:
    small, large = sorted((one, two))
    if Experiment("rollout", {"new": small}).variant_of(key) == "new":
        assert Experiment("rollout", {"new": large}).variant_of(key) == "new"


def test_all_is_all_and_nothing_is_nothing() -> None:
    assert {Experiment("x", {"on": 100}).variant_of(f"u{number}") for number in range(200)} == {"on"}
    assert {Experiment("x", {"on": 0}).variant_of(f"u{number}") for number in range(200)} == {None}


def test_takes_profiles_also_of_people_that_the_source_does_not_know() -> None:
    known = Profile(reason=Reason.NOT_FOUND, key=ProfileKey("u3"))
    assert HALVES.variant_of(known) == HALVES.variant_of("u3") == "green"
    assert HALVES.on("green")(known) is True
    assert HALVES.on("blue")(known) is False
    assert HALVES.variant_of(Profile(reason=Reason.ANONYMOUS)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Experiment("", {"a": 1}),
        lambda: Experiment("x", {}),
        lambda: Experiment("x", {"a": -1}),
        lambda: Experiment("x", {"a": 101}),
        lambda: Experiment("x", {"a": True}),
        lambda: Experiment("x", {"a": 60, "b": 41}),
        lambda: HALVES.on("red"),
    ],
)
def test_refuses_what_is_no_split(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_refuses_a_key_that_is_none() -> None:
    with pytest.raises(InvalidKeyError):
        HALVES.variant_of("")


def test_says_what_it_is() -> None:
    assert repr(HALVES) == "<Experiment hero: blue 50 %, green 50 %>"
