"""What became of one record."""

from __future__ import annotations

from typing import Generic, TypeVar

from ...errors import ProfileEnrichError
from ...profile import Profile

__all__ = ["Outcome"]

R = TypeVar("R")


class Outcome(Generic[R]):
    """What became of one record.

    Args:
        position: of the record in the input, from 0.
        row: the record itself, untouched.
        profile: its profile; empty and falsy when the source has none (`profile.reason` says which). `None` when that
            could not be found out.
        problem: why not; `None` when there is a profile. `MissingKeyError`: the record has no key. `InvalidKeyError`:
            its key is unusable. A `SourceError`: the source failed, again and again where it was worth repeating.
    """

    __slots__ = ("position", "problem", "profile", "row")

    def __init__(
        self, position: int, row: R, profile: Profile | None = None, problem: ProfileEnrichError | None = None
    ) -> None:
        self.position = position
        self.row = row
        self.profile = profile
        self.problem = problem

    def __repr__(self) -> str:
        # Neither the record nor the profile: both are personal.
        what = repr(self.profile) if self.problem is None else self.problem.code
        return f"<Outcome {self.position}: {what}>"
