"""Decisions: the first variant whose audience matches the profile, or the default.

```python
vip = Audience("vip", tier="gold", ltv=gte(500))
hero = choose(request.state.profile, {vip: "vip.html"}, default="hero.html").value
```
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from .._utils.log_once import LogOnce
from ..errors import ConfigurationError, MissingAttribute
from ..profile import Profile
from .audiences import Audience, gt, gte, lt, lte, one_of
from .experiments import Experiment

__all__ = [
    "Audience",
    "Decision",
    "DecisionReason",
    "Decisions",
    "Experiment",
    "Exposure",
    "choose",
    "counts",
    "gt",
    "gte",
    "lt",
    "lte",
    "one_of",
]

T = TypeVar("T")


class DecisionReason(StrEnum):
    """The reason for a decision."""

    MATCHED = "matched"
    """The profile belongs to the audience."""
    NO_MATCH = "no_match"
    """It belongs to no audience: the default."""
    MISSING_ATTRIBUTE = "missing_attribute"
    """It belongs to no audience, and an attribute for at least one was missing: the default."""
    NO_PROFILE = "no_profile"
    """There is no profile, and no audience matches without one: the default."""
    FAILED = "failed"
    """A predicate raised: the default, without trying further audiences. The error was logged."""


@dataclass(frozen=True, slots=True)
class Decision(Generic[T]):
    """The decision for one profile.

    Args:
        value: the variant, or the default.
        audience: the name of the audience; `None` for the default.
        reason: why.
    """

    value: T = field(repr=False)
    audience: str | None
    reason: DecisionReason


@dataclass(frozen=True, slots=True)
class Exposure:
    """The argument of an exposure hook, without personal data.

    Args:
        name: the name of the decision.
        audience: the name of the audience; `None` for the default.
        reason: why.
        key: a salted hash of the profile's key (see `ProfileKey.digest`); `""` if nobody is signed in.
    """

    name: str
    audience: str | None
    reason: DecisionReason
    key: str


class Decisions:
    """Make decisions, count them, and call a hook.

    Args:
        on_exposure: called with an `Exposure` for each decision. An exception is logged once and otherwise ignored.
    """

    def __init__(self, on_exposure: Callable[[Exposure], object] | None = None) -> None:
        self._on_exposure = on_exposure
        self._counts: Counter[tuple[str, str | None, DecisionReason]] = Counter()
        self._lock = threading.Lock()
        self._once = LogOnce()

    def choose(
        self, profile: Profile, variants: Mapping[Audience, T], *, default: T, name: str = "choice"
    ) -> Decision[T]:
        """Return the first variant whose audience matches the profile. Never raises because of the profile.

        An audience is skipped if an attribute of its conditions is missing, null or of another type. Any other
        exception of a function ends the search with the default.

        Args:
            profile: the profile, which may be empty. It counts as read (see `ProfileMiddleware`).
            variants: the variants by audience, in the order of evaluation.
            default: the variant for everyone else.
            name: the name of the decision in counts and exposures.

        Raises:
            ConfigurationError: a variant's key is not an `Audience`.
        """
        decision = self._decide(profile, variants, default)
        with self._lock:
            self._counts[name, decision.audience, decision.reason] += 1
        if self._on_exposure is not None:
            key = profile.key
            exposure = Exposure(name, decision.audience, decision.reason, "" if key is None else key.digest())
            try:
                self._on_exposure(exposure)
            except Exception as error:  # noqa: BLE001  # a hook is the user's code: it must not break a page
                self._once.failed("the exposure hook", self._on_exposure, error, instead="the page goes on")
        return decision

    def counts(self) -> dict[tuple[str, str | None, DecisionReason], int]:
        """Return the number of decisions by name, audience and reason."""
        with self._lock:
            return dict(self._counts)

    def _decide(self, profile: Profile, variants: Mapping[Audience, T], default: T) -> Decision[T]:
        reason = DecisionReason.NO_MATCH
        for audience, value in variants.items():
            if not isinstance(audience, Audience):
                raise ConfigurationError(f"variants are given by Audience, not by {type(audience).__name__}")
            try:
                if audience.matches(profile):
                    return Decision(value, audience.name, DecisionReason.MATCHED)
            except MissingAttribute:
                reason = DecisionReason.MISSING_ATTRIBUTE
            except Exception as error:  # noqa: BLE001  # a predicate is the user's code: it must not break a page
                role = f"the audience {audience.name!r}"
                self._once.failed(role, audience, error, instead="the default is shown")
                return Decision(default, None, DecisionReason.FAILED)
        return Decision(default, None, reason if profile else DecisionReason.NO_PROFILE)


_shared = Decisions()


def choose(profile: Profile, variants: Mapping[Audience, T], *, default: T, name: str = "choice") -> Decision[T]:
    """Return the first variant whose audience matches the profile, counted in `counts()`; see `Decisions.choose`.

    For an exposure hook, make your own `Decisions`.
    """
    return _shared.choose(profile, variants, default=default, name=name)


def counts() -> dict[tuple[str, str | None, DecisionReason], int]:
    """Return the number of decisions of `choose` in this process, by name, audience and reason."""
    return _shared.counts()
