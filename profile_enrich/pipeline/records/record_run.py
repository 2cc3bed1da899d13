"""The shared part of `enrich` and `enrich_blocking`: enriched dicts, dead letters, progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..._utils.validation import check_number
from ...client.client import ProfileClient
from ...errors import ConfigurationError
from ..keys import KeyOf
from ..options import EnrichOptions, options_of
from .dead_letters import DeadLetter, DeadLetterOutput, Sink
from .merge import RecordMerger
from .outcome import Outcome
from .outcome_policy import KEYLESS_ROWS, OutcomePolicy
from .queue import LookupQueue

__all__ = ["Progress", "RecordRun", "Row"]

logger = logging.getLogger("profile_enrich")

Row = dict[str, Any]
"""An enriched record: its fields, then the profile's."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run, without personal data.

    Args:
        rows: finished records: `enriched + missing + keyless + errors`.
        enriched: records with a profile.
        missing: records whose profile is missing or excluded.
        keyless: records without a key.
        errors: records that failed.
        failures: failed records by the `code` of the error.
        passed: records in the output.
        dropped: dropped records.
        dead_letters: records in the dead-letter output.
        clashes: records that already had a field of the profile's name, and kept it.
        held: records in progress.
        hits: records that did not wait for a lookup.
        lookups: distinct keys that were looked up in the source.
        source_calls: calls to the source since the start of the run, including those of other users of the client.
        seconds: the duration so far.
        done: whether the run has ended.
    """

    rows: int
    enriched: int
    missing: int
    keyless: int
    errors: int
    failures: Mapping[str, int]
    passed: int
    dropped: int
    dead_letters: int
    clashes: int
    held: int
    hits: int
    lookups: int
    source_calls: int
    seconds: float
    done: bool

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.rows / self.seconds if self.seconds else 0.0


class RecordRun:
    """The state of one run: its queue, its policy, its counts.

    Args:
        client: the client.
        key: returns the key of a record.
        fields, into, prefix: see `RecordMerger`.
        options: see `EnrichOptions`.
        dead_letter: called with each dead letter. Default: up to `window` of them are kept.
        progress: called with a `Progress`, at intervals and at the end.
        progress_every: the interval, in seconds.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    def __init__(
        self,
        client: ProfileClient,
        key: KeyOf,
        *,
        fields: Iterable[str] | None,
        into: str,
        prefix: str | None,
        options: EnrichOptions | None,
        dead_letter: Sink | None,
        progress: Callable[[Progress], object] | None,
        progress_every: float,
    ) -> None:
        chosen = options_of(options)
        self.queue: LookupQueue[Any] = LookupQueue(client, key, chosen)
        self.every = check_number("progress_every", progress_every, positive=True)
        if progress is not None and not callable(progress):
            raise ConfigurationError(f"progress must be a function, not {type(progress).__name__}")
        self._policy = OutcomePolicy(chosen, on_error="dead_letter")
        self._merger = RecordMerger(fields, into, prefix)
        self.dead_letters = DeadLetterOutput(dead_letter, chosen.window)
        self._client = client
        self._report = progress
        self._calls = 0
        self._started = self._ended = 0.0

    # --- records ----------------------------------------------------------------------------------------------------

    def apply(self, outcome: Outcome[Any]) -> Row | DeadLetter | None:
        """Return the enriched record, or its dead letter; `None` if it is dropped.

        Raises:
            ProfileMissing, ProfileEnrichError: with `on_missing="raise"` or `on_error="raise"`.
        """
        profile = outcome.profile
        rejection = self._policy.apply(profile, outcome.problem, outcome.position)
        stats = self._policy.stats
        if stats.keyless == stats.rows == KEYLESS_ROWS and profile is None:
            self._warn_keyless()
        if rejection is None:
            return self._merger.of(outcome.row, profile)
        if rejection.dropped:
            return None
        return DeadLetter(outcome.position, outcome.row, rejection.code, rejection.message)

    def check(self) -> None:
        """Raise an error if too many records failed; see `OutcomePolicy.check`."""
        self._policy.check()

    # --- progress ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._calls = self._client._observer.source_calls

    def end(self, complete: bool) -> None:
        """Stop the clock, and log probable mistakes in the arguments."""
        if self._ended:
            return
        self._ended = time.monotonic()
        stats = self._policy.stats
        if complete and 0 < stats.keyless == stats.rows < KEYLESS_ROWS:
            self._warn_keyless()
        if complete and stats.enriched and self._merger.unseen:
            names = ", ".join(repr(name) for name in sorted(self._merger.unseen))
            logger.warning("no profile of this run has the attribute %s; see fields", names)
        self.report()

    def progress(self) -> Progress:
        """Return the current counts."""
        now = self._ended or time.monotonic()
        stats = self._policy.stats
        return Progress(
            rows=stats.rows,
            enriched=stats.enriched,
            missing=stats.missing,
            keyless=stats.keyless,
            errors=stats.failed,
            failures=dict(stats.failures),
            passed=stats.passed,
            dropped=stats.dropped,
            dead_letters=stats.dead,
            clashes=self._merger.clashes,
            held=self.queue.held,
            hits=self.queue.hits,
            lookups=self.queue.lookups,
            source_calls=self._client._observer.source_calls - self._calls if self._started else 0,
            seconds=now - self._started if self._started else 0.0,
            done=bool(self._ended),
        )

    @property
    def reports(self) -> bool:
        """Return whether there is a progress function."""
        return self._report is not None

    def report(self) -> None:
        """Call the user's function. After an exception, which is logged, it is not called again."""
        if self._report is None:
            return
        try:
            self._report(self.progress())
        except Exception as error:  # noqa: BLE001  # the user's code: watching a run must not break it
            self._report = None
            logger.error("the progress function raised %s; the run continues without it", type(error).__name__)

    def _warn_keyless(self) -> None:
        rows = self._policy.stats.rows
        logger.warning("none of the first %d records has a key; is the key's name right?", rows)
