"""Deciding what somebody sees: the first variant whose audience they belong to, else the default.

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
    """Why a decision is what it is."""

    MATCHED = "matched"
    """The profile belongs to the audience."""
    NO_MATCH = "no_match"
    """It belongs to none of them: the default."""
    MISSING_ATTRIBUTE = "missing_attribute"
    """It belongs to none of them, and at least one could not be told for lack of an attribute: the default."""
    NO_PROFILE = "no_profile"
    """There is no profile, and no audience takes people without: the default."""
    FAILED = "failed"
    """A predicate raised: the default, whatever comes after it. The error was logged."""


@dataclass(frozen=True, slots=True)
class Decision(Generic[T]):
    """What was decided for one profile.

    Args:
        value: the variant, or the default.
        audience: the name of the audience that it is for; `None` for the default.
        reason: why.
    """

    value: T = field(repr=False)
    audience: str | None
    reason: DecisionReason


@dataclass(frozen=True, slots=True)
class Exposure:
    """What an exposure hook gets. Free of personal data.

    Args:
        name: of the decision.
        audience: the name of the audience; `None` for the default.
        reason: why.
        key: a salted hash of the profile's key (see `ProfileKey.digest`); `""` when nobody is in session.
    """

    name: str
    audience: str | None
    reason: DecisionReason
    key: str


class Decisions:
    """Decides, counts, and tells a hook.

    Args:
        on_exposure: called with an `Exposure` for each decision. When it raises, that is logged once, and nothing else
            happens.
    """

    def __init__(self, on_exposure: Callable[[Exposure], object] | None = None) -> None:
        self._on_exposure = on_exposure
        self._counts: Counter[tuple[str, str | None, DecisionReason]] = Counter()
        self._lock = threading.Lock()
        self._once = LogOnce()

    def choose(
        self, profile: Profile, variants: Mapping[Audience, T], *, default: T, name: str = "choice"
    ) -> Decision[T]:
        """The first variant whose audience the profile belongs to. Never raises because of the profile.

        An audience that asks for an attribute which is missing, null or of another kind is passed over. One whose
        function raises anything else ends the search: the default is what was tried and tested.

        Args:
            profile: of whoever is in session; an empty one will do. It counts as read (see `ProfileMiddleware`).
            variants: by audience, in the order in which they are tried.
            default: for everybody else.
            name: of the decision, in counts and exposures.

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
        """How often each decision was taken, by its name, audience and reason."""
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
    """The first variant whose audience the profile belongs to; see `Decisions.choose`. Counted in `counts()`.

    Make a `Decisions` of your own to be told of each exposure.
    """
    return _shared.choose(profile, variants, default=default, name=name)


def counts() -> dict[tuple[str, str | None, DecisionReason], int]:
    """What `choose` decided in this process, by the decision's name, audience and reason."""
    return _shared.counts()
