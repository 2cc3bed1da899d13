"""Choice of a variant: the first that matches, otherwise the default, also after errors."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import ConfigurationError, Profile, ProfileKey, Reason, Record
from profile_enrich.personalize import Audience, Decision, DecisionReason, Decisions, Exposure, choose, counts, gte


def profile(**attributes: Any) -> Profile:
    return Profile(Record(attributes), key=ProfileKey("alice@example.com"))


VIP = Audience("vip", tier="gold")
FREQUENT = Audience("frequent", orders=gte(5))
BROKEN = Audience("broken", lambda who: 1 / 0 > 0)
VARIANTS = {VIP: "lounge", FREQUENT: "thanks"}


class TestChoose:
    @pytest.mark.parametrize(
        ("who", "expected"),
        [
            (profile(tier="gold", orders=9), Decision("lounge", "vip", DecisionReason.MATCHED)),
            (profile(tier="silver", orders=9), Decision("thanks", "frequent", DecisionReason.MATCHED)),
            (profile(orders=9), Decision("thanks", "frequent", DecisionReason.MATCHED)),
            (profile(tier="silver", orders=1), Decision("hello", None, DecisionReason.NO_MATCH)),
            (profile(tier="silver"), Decision("hello", None, DecisionReason.MISSING_ATTRIBUTE)),
            (Profile(reason=Reason.ANONYMOUS), Decision("hello", None, DecisionReason.NO_PROFILE)),
        ],
    )
    def test_takes_the_first_that_fits_and_says_why(self, who: Profile, expected: Decision[str]) -> None:
        assert choose(who, VARIANTS, default="hello") == expected

    def test_A10_a_failing_predicate_means_the_default(self, caplog: pytest.LogCaptureFixture) -> None:
        """A10: bugs of users' functions are logged once per kind, with their place, without personal data."""
        decisions = Decisions()
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                found = decisions.choose(profile(tier="gold"), {BROKEN: "x", VIP: "lounge"}, default="hello")
                assert found == Decision("hello", None, DecisionReason.FAILED)
        (line,) = caplog.messages
        assert line.startswith("the audience 'broken' raised ZeroDivisionError; the default is shown\n")
        assert "test_decisions.py" in line
        assert "alice" not in line

    def test_what_comes_before_a_failing_predicate_still_counts(self) -> None:
        found = Decisions().choose(profile(tier="gold"), {VIP: "lounge", BROKEN: "x"}, default="hello")
        assert found.value == "lounge"

    def test_refuses_variants_without_an_audience(self) -> None:
        variants: Any = {"vip": "lounge"}
        with pytest.raises(ConfigurationError, match="by Audience, not by str"):
            choose(profile(), variants, default="hello")

    def test_each_decision_is_counted(self) -> None:
        decisions = Decisions()
        for who in (profile(tier="gold"), profile(tier="gold"), profile(tier="silver", orders=0)):
            decisions.choose(who, VARIANTS, default="hello", name="hero")
        decisions.choose(profile(), {BROKEN: "x"}, default="hello", name="footer")
        assert decisions.counts() == {
            ("hero", "vip", DecisionReason.MATCHED): 2,
            ("hero", None, DecisionReason.NO_MATCH): 1,
            ("footer", None, DecisionReason.FAILED): 1,
        }

    def test_the_plain_function_counts_for_the_whole_process(self) -> None:
        before = counts().get(("only here", "vip", DecisionReason.MATCHED), 0)
        choose(profile(tier="gold"), VARIANTS, default="hello", name="only here")
        assert counts()["only here", "vip", DecisionReason.MATCHED] == before + 1

    def test_counts_hold_under_threads(self) -> None:
        decisions = Decisions()
        who = profile(tier="gold")

        def work() -> None:
            for _ in range(500):
                decisions.choose(who, VARIANTS, default="hello")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert decisions.counts() == {("choice", "vip", DecisionReason.MATCHED): 2_000}

    @given(
        st.dictionaries(st.sampled_from(["tier", "orders", "x"]), st.text() | st.none() | st.integers() | st.floats())
    )
    def test_no_profile_makes_it_raise(self, attributes: dict[str, Any]) -> None:
        variants = {**VARIANTS, Audience("odd", lambda who: who["x"] > 3): "odd"}
        found = Decisions().choose(profile(**attributes), variants, default="hello")
        assert found.value in ("lounge", "thanks", "odd", "hello")
        assert (found.audience is None) == (found.value == "hello")


class TestExposures:
    def test_A18_a_hook_sees_each_decision_without_personal_data(self) -> None:
        """A18: the key is hashed."""
        seen: list[Exposure] = []
        decisions = Decisions(on_exposure=seen.append)
        who = profile(tier="gold")
        decisions.choose(who, VARIANTS, default="hello", name="hero")
        decisions.choose(Profile(reason=Reason.ANONYMOUS), VARIANTS, default="hello", name="hero")
        assert who.key is not None
        assert seen == [
            Exposure("hero", "vip", DecisionReason.MATCHED, who.key.digest()),
            Exposure("hero", None, DecisionReason.NO_PROFILE, ""),
        ]
        assert "alice" not in repr(seen)

    def test_a_hook_that_raises_changes_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def hook(exposure: Exposure) -> None:
            raise RuntimeError(str(profile(tier="alice").as_dict()) + exposure.key)

        decisions = Decisions(on_exposure=hook)
        with caplog.at_level(logging.ERROR):
            for _ in range(2):
                assert decisions.choose(profile(tier="gold"), VARIANTS, default="hello").value == "lounge"
        (line,) = caplog.messages
        assert line.startswith("the exposure hook raised RuntimeError; the page goes on")
        assert "{'tier'" not in line

    def test_A18_reprs_do_not_show_what_somebody_was_given(self) -> None:
        """A18: no personal data in reprs."""
        found = choose(profile(tier="gold"), {VIP: "alice's coupon"}, default="")
        assert "alice" not in repr(found)
