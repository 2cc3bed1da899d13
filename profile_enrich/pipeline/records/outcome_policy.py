"""Outcome policy: whether a record is returned, dropped, written to the dead letters, or ends the run."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import MissingKeyError, ProfileEnrichError, ProfileMissing, TooManyErrors
from ...profile import Profile, Reason
from ..options import EnrichOptions, OnError

__all__ = ["OutcomePolicy", "Rejection", "RunStats"]

_LEAST_ROWS = 1000
"""The minimal base of `max_errors` as a fraction, so that the first failure does not end the run."""

KEYLESS_ROWS = 1000
"""The number of leading records without a key after which the key's name is reported as probably wrong."""


@dataclass(slots=True)
class RunStats:
    """The counts of a run, without personal data.

    Args:
        rows: finished records: `enriched + missing + keyless + failed`.
        enriched: records with a profile.
        missing: records whose profile is missing or excluded.
        keyless: records without a key.
        failed: records that could not be enriched.
        dropped: dropped records.
        failures: failed records by the `code` of the error.
        dead_letters: records in the dead-letter output, by reason.
    """

    rows: int = 0
    enriched: int = 0
    missing: int = 0
    keyless: int = 0
    failed: int = 0
    dropped: int = 0
    failures: dict[str, int] = field(default_factory=dict[str, int])
    dead_letters: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def dead(self) -> int:
        """The number of records in the dead-letter output."""
        return sum(self.dead_letters.values())

    @property
    def passed(self) -> int:
        """The number of records in the output."""
        return self.rows - self.dropped - self.dead


class Rejection(NamedTuple):
    """The reason why a record is not in the output.

    Args:
        code: one word: the `code` of an error, `not_found` or `excluded`.
        message: a sentence without values.
        dropped: whether the record is dropped; otherwise it is a dead letter.
    """

    code: str
    message: str
    dropped: bool


class OutcomePolicy:
    """Apply `on_missing`, `on_error` and `max_errors`, and count. A record that ends the run is not counted.

    Args:
        options: the options of the run.
        on_error: the meaning of `options.on_error=None`.
        stats: the counts of an interrupted run. Default: zero.
    """

    def __init__(self, options: EnrichOptions, *, on_error: OnError, stats: RunStats | None = None) -> None:
        self.stats = RunStats() if stats is None else stats
        self._on_missing = options.on_missing
        self._on_error = options.on_error or on_error
        self._max_errors = options.max_errors

    def apply(self, profile: Profile | None, problem: ProfileEnrichError | None, place: str | int) -> Rejection | None:
        """Decide about one record.

        Args:
            profile: its profile, found or not.
            problem: the error, if there is no profile.
            place: the position of the record, for messages.

        Returns:
            The rejection; `None` if the record stays in the output, with or without a profile.

        Raises:
            ProfileMissing: `on_missing` is `"raise"`.
            ProfileEnrichError: the problem, with a note about the position, if `on_error` is `"raise"`.
        """
        if problem is None:
            if profile is not None and profile.found:
                self.stats.rows += 1
                self.stats.enriched += 1
                return None
            excluded = profile is not None and profile.reason is Reason.EXCLUDED
            rejection = self._without((Reason.EXCLUDED if excluded else Reason.NOT_FOUND).value, place)
            self.stats.missing += 1
            return rejection
        if isinstance(problem, MissingKeyError):
            rejection = self._without(problem.code, place)
            self.stats.keyless += 1
            return rejection
        return self.fail(problem.code, str(problem), place, problem)

    def fail(self, code: str, message: str, place: str | int, problem: ProfileEnrichError) -> Rejection | None:
        """Decide about a record that failed for any reason; see `apply`.

        Raises:
            ProfileEnrichError: the problem, if `on_error` is `"raise"`.
        """
        if self._on_error == "raise":
            error = copy.copy(problem)
            error.add_note(f"at {_spoken(place)}")
            raise error
        stats = self.stats
        stats.rows += 1
        stats.failed += 1
        stats.failures[code] = stats.failures.get(code, 0) + 1
        return None if self._on_error == "null" else self._dead_letter(code, message)

    def demote(
        self, profile: Profile | None, code: str, message: str, place: str | int, problem: ProfileEnrichError
    ) -> Rejection | None:
        """Reverse the decision about the last record, because it cannot be written; see `fail`."""
        stats = self.stats
        stats.rows -= 1
        if profile is None:
            stats.keyless -= 1
        elif profile.found:
            stats.enriched -= 1
        else:
            stats.missing -= 1
        return self.fail(code, message, place, problem)

    def _without(self, code: str, place: str | int) -> Rejection | None:
        message = _WITHOUT[code]
        if self._on_missing == "raise":
            raise ProfileMissing(f"{_spoken(place)}: {message}")
        self.stats.rows += 1
        if self._on_missing == "null":
            return None
        if self._on_missing == "drop":
            self.stats.dropped += 1
            return Rejection(code, message, True)
        return self._dead_letter(code, message)

    def _dead_letter(self, code: str, message: str) -> Rejection:
        reasons = self.stats.dead_letters
        reasons[code] = reasons.get(code, 0) + 1
        return Rejection(code, message, False)

    def check(self) -> None:
        """Raise an error if too many records failed.

        Raises:
            TooManyErrors: the message has the number and the reasons.
        """
        stats, most = self.stats, self._max_errors
        share = isinstance(most, float)
        if stats.failed <= most * (max(stats.rows, _LEAST_ROWS) if share else 1):
            return
        ways = ", ".join(f"{code} {count:,}" for code, count in sorted(stats.failures.items()))
        allowed = f"{most:.2%} of at least {_LEAST_ROWS:,}" if share else f"{most:,}"
        raise TooManyErrors(
            f"{stats.failed:,} of {stats.rows:,} records failed ({ways}), and max_errors allows {allowed}"
        )


_WITHOUT = {
    Reason.NOT_FOUND.value: "the source has no such profile",
    Reason.EXCLUDED.value: "the source excludes the profile",
    MissingKeyError.code: "the record has no key",
}


def _spoken(place: str | int) -> str:
    return place if isinstance(place, str) else f"record {place}, counted from 0"
