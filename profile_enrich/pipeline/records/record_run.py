"""One run over records: enriched dicts, dead letters, progress. Shared by `enrich` and `enrich_blocking`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..._utils.validation import check_number
from ...client.client import ProfileClient
from ...errors import ConfigurationError, TooManyErrors
from ..keys import KeyOf
from ..options import EnrichOptions, options_of
from .merge import RecordMerger
from .outcome import Outcome
from .outcome_policy import KEYLESS_ROWS, OutcomePolicy
from .queue import LookupQueue

__all__ = ["DeadLetter", "Progress", "RecordRun", "Row", "Sink"]

logger = logging.getLogger("profile_enrich")

Row = dict[str, Any]
"""An enriched record: its own fields, then the profile's."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was not enriched.

    Args:
        position: of the record in the input, from 0.
        row: the record itself, unchanged. It does not show in the `repr`.
        code: why, in one word: the `code` of an error, or `not_found` or `excluded`.
        message: why, in a sentence without any value.
    """

    position: int
    row: Any = field(repr=False)
    code: str
    message: str


class _Collector(Protocol):
    def append(self, letter: DeadLetter, /) -> object: ...


Sink = Callable[[DeadLetter], object] | _Collector
"""A function that takes each dead letter (it may be async, but not for `enrich_blocking`), or a list."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Free of personal data.

    Args:
        rows: records that are done: `enriched + missing + keyless + errors`.
        enriched: records with a profile.
        missing: records whose profile the source does not have or excludes.
        keyless: records without a key.
        errors: records that failed.
        failures: how many failed in which way, by the `code` of the error.
        passed: records in the output.
        dropped: records left out, as `on_missing` says.
        dead_letters: records in the dead-letter output.
        clashes: records that had a field of the profile's name already; theirs was kept.
        held: records that are being looked up or wait to leave.
        hits: records, of those read so far, that waited for no lookup.
        lookups: distinct keys, of those read so far, for which the source had to be asked.
        source_calls: calls of the source since the run began, also those of others who use the client.
        seconds: since the run began.
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
        """Records a second."""
        return self.rows / self.seconds if self.seconds else 0.0


class RecordRun:
    """The state of one run: its queue, its policy, its counts.

    Args:
        client: looks up.
        key: of a record.
        fields, into, prefix: see `RecordMerger`.
        options: see `EnrichOptions`.
        dead_letter: takes the dead letters. Default: they are kept, at most `window` of them.
        progress: takes a `Progress` now and then, and at the end.
        progress_every: seconds between two of these.

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
        self.dead_letters: list[DeadLetter] = []
        """The dead letters, where no `dead_letter` takes them."""
        self._policy = OutcomePolicy(chosen, on_error="dead_letter")
        self._merger = RecordMerger(fields, into, prefix)
        self._sink = _sink(dead_letter)
        self._max_kept = chosen.window
        self._client = client
        self._report = progress
        self._calls = 0
        self._started = self._ended = 0.0

    # --- records ----------------------------------------------------------------------------------------------------

    def apply(self, outcome: Outcome[Any]) -> Row | DeadLetter | None:
        """Return the enriched record, or its dead letter; `None` when it is left out.

        Raises:
            ProfileMissing, ProfileEnrichError: as `on_missing` and `on_error` ask for.
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

    def deliver(self, letter: DeadLetter) -> object:
        """Pass a dead letter to its taker, and return what that returned.

        Raises:
            TooManyErrors: nobody takes them, and there are too many to keep in memory.
        """
        if self._sink is not None:
            return self._sink(letter)
        self.dead_letters.append(letter)
        if len(self.dead_letters) > self._max_kept:
            raise TooManyErrors(
                f"more than {self._max_kept:,} dead letters, which are kept in memory: pass dead_letter=, a function "
                "that writes them somewhere"
            )
        return None

    def check(self) -> None:
        """End the run when too many records failed. See `OutcomePolicy.check`."""
        self._policy.check()

    # --- progress ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._calls = self._client._observer.source_calls

    def end(self, complete: bool) -> None:
        """Stop the clock, and log what looks like a mistake in the arguments."""
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
        """Return the counts of now."""
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
        """Whether a function takes the progress."""
        return self._report is not None

    def report(self) -> None:
        """Call the user's function. If it raises, that is logged and it is not called again."""
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


def _sink(given: Sink | None) -> Callable[[DeadLetter], object] | None:
    if given is None:
        return None
    append = getattr(given, "append", None)
    taker = append if callable(append) else given
    if not callable(taker):
        raise ConfigurationError(f"dead_letter must be a function or a list, not {type(given).__name__}")
    return taker
