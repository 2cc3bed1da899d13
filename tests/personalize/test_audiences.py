"""Matching of audiences, and the errors if a profile cannot be matched."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import ConfigurationError, MissingAttribute, Profile, Record
from profile_enrich.personalize.audiences import Audience, gt, gte, lt, lte, one_of

wrong: Any = {}


def profile(**attributes: Any) -> Profile:
    return Profile(Record(attributes))


class TestConditions:
    @pytest.mark.parametrize(
        ("wanted", "yes", "no"),
        [
            ("gold", ["gold"], ["Gold", "silver", "", 5]),
            (30, [30, 30.0, "30", " 30.0 "], [31, "31"]),
            (True, [True, "true", "TRUE"], [False, "false", 1, "1"]),
            (["a", 1], [["a", 1]], [["a"], "a"]),
            (gte(500), [500, "500", 612.5, "612.50"], [499.99, "-500"]),
            (gt(500), [501], [500]),
            (lte(500), [500, "12"], [501]),
            (lt("m"), ["a"], ["m", "z"]),
            (gte(date(2026, 1, 1)), ["2026-01-01", "2026-01-01T00:00:00Z"], ["2025-12-31", "2025-12-31T23:59:59"]),
            (
                gt(datetime(2026, 1, 1, 12, tzinfo=UTC)),
                ["2026-01-01T12:00:01Z", "2026-01-01T13:00:00", "2026-01-02"],
                ["2026-01-01T13:00:00+02:00"],
            ),
            (gte(datetime(2026, 1, 1, 12)), ["2026-01-01T12:00:00Z"], ["2026-01-01T11:00:00Z"]),
            (one_of({"gold", "silver"}), ["gold", ["bronze", "silver"]], ["bronze", ["bronze"], []]),
            (one_of([1, 2]), [2, "2"], [3]),
            (lambda value: value.endswith("@example.com"), ["ada@example.com"], ["ada@example.org"]),
        ],
    )
    def test_tell_values_apart(self, wanted: object, yes: list[object], no: list[object]) -> None:
        audience = Audience("some", value=wanted)
        assert [audience.matches(profile(value=value)) for value in yes] == [True] * len(yes)
        assert [_told(audience, value) for value in no] == [False] * len(no)

    @pytest.mark.parametrize(
        ("wanted", "value"),
        [
            (5, "five"),
            (5, True),
            (gte(5), "n/a"),
            (gte(5), [5]),
            (gte("a"), 5),
            (gte(date(2026, 1, 1)), "yesterday"),
            (gte(date(2026, 1, 1)), 20260101),
            ("gold", None),
        ],
    )
    def test_A18_a_value_of_another_kind_is_as_good_as_missing(self, wanted: object, value: object) -> None:
        """A18: and the value is not quoted."""
        with pytest.raises(MissingAttribute) as raised:
            Audience("some", value=wanted).matches(profile(value=value))
        assert str(value) not in str(raised.value) or value is None
        assert raised.value.__context__ is None

    def test_none_asks_for_what_is_not_there(self) -> None:
        audience = Audience("unsubscribed", email=None)
        assert audience.matches(profile())
        assert audience.matches(profile(email=None))
        assert not audience.matches(profile(email=""))

    @given(st.floats(allow_nan=False) | st.integers(), st.floats(allow_nan=False) | st.integers())
    def test_numbers_compare_like_the_text_that_spells_them(self, value: float, bound: float) -> None:
        for condition in (gte, gt, lte, lt):
            audience = Audience("some", value=condition(bound))
            spelled = profile(value=repr(float(value)))
            assert audience.matches(spelled) == audience.matches(profile(value=float(value)))

    @given(st.text() | st.integers() | st.none() | st.booleans() | st.lists(st.integers()) | st.floats())
    def test_any_value_is_told_or_called_unusable(self, value: Any) -> None:
        for wanted in ("x", 5, True, gte(5), gte("x"), gte(date(2026, 1, 1)), one_of(["a", 5])):
            with contextlib.suppress(MissingAttribute):
                assert Audience("some", value=wanted).matches(profile(value=value)) in (True, False)


def _told(audience: Audience, value: object) -> bool:
    """A value of another type does not match either."""
    with contextlib.suppress(MissingAttribute):
        return audience.matches(profile(value=value))
    return False


class TestAudience:
    def test_all_its_conditions_must_hold(self) -> None:
        vip = Audience("vip", tier="gold", ltv=gte(500))
        assert vip.matches(profile(tier="gold", ltv=500))
        assert not vip.matches(profile(tier="gold", ltv=499))
        assert not vip.matches(profile(tier="silver", ltv=501))

    def test_names_with_spaces_and_a_function_beside(self) -> None:
        rich = Audience("rich", lambda who: who["visits"] > 3, where={"Lifetime Value": gte(5)})
        assert rich.matches(profile(visits=4, **{"Lifetime Value": "6"}))
        assert not rich.matches(profile(visits=3, **{"Lifetime Value": "6"}))

    def test_a_function_may_take_those_without_a_profile(self) -> None:
        assert Audience("nobody", lambda who: not who).matches(Profile())

    def test_an_attribute_that_a_function_misses_is_missing(self) -> None:
        with pytest.raises(MissingAttribute, match="audience 'frequent'") as raised:
            Audience("frequent", lambda who: who[who["secret"]] > 3).matches(profile(secret="alice@example.com"))
        assert "alice" not in str(raised.value)

    def test_other_errors_of_a_function_are_its_own(self) -> None:
        own = {"a": 1}
        numbered: dict[int, int] = {}
        with pytest.raises(KeyError, match="visits"):
            Audience("broken", lambda who: bool(own["visits"])).matches(profile(visits=1))
        with pytest.raises(KeyError):
            Audience("broken", lambda who: bool(numbered[0])).matches(profile())
        with pytest.raises(ZeroDivisionError):
            Audience("broken", lambda who: 1 / 0 > 0).matches(profile())

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            (lambda: Audience("", tier="gold"), "needs a name"),
            (lambda: Audience("vip"), "audience 'vip' needs a condition"),
            (lambda: Audience("vip", wrong), "must be a function of the profile"),
            (lambda: one_of("gold"), "a collection of values"),
            (lambda: one_of([]), "a collection of values"),
            (lambda: gte(True), "not bool"),
            (lambda: gte(wrong), "not dict"),
        ],
    )
    def test_refuses_what_tells_nobody(self, make: Any, complaint: str) -> None:
        with pytest.raises(ConfigurationError, match=complaint):
            make()

    def test_says_its_name_only(self) -> None:
        assert repr(Audience("vip", email="ada@example.com")) == "<Audience vip>"
