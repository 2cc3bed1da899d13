"""The outcome of one record."""

from __future__ import annotations

from typing import Generic, TypeVar

from ...errors import ProfileEnrichError
from ...profile import Profile

__all__ = ["Outcome"]

R = TypeVar("R")


class Outcome(Generic[R]):
    """What became of one record.

    Args:
        position: the position in the input, from 0.
        row: the record, unchanged.
        profile: its profile; empty and falsy if it is missing or excluded (see `profile.reason`); `None` if the lookup
            failed.
        problem: the error; `None` if there is a profile. `MissingKeyError`: the record has no key. `InvalidKeyError`:
            its key is invalid. `SourceError`: the source failed, also after retries.
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
        # without record and profile, which are personal data
        what = repr(self.profile) if self.problem is None else self.problem.code
        return f"<Outcome {self.position}: {what}>"
