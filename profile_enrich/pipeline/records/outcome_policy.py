"""What becomes of each outcome of an enrichment: passed on, left out, put aside or raised. And the count of it all."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from ...client.client import ProfileClient
from ...errors import ConfigurationError, MissingKeyError, ProfileMissing, TooManyErrors
from ...profile import Reason
from .merge import RecordMerger
from .outcome import Outcome
from .queue import LookupQueue

__all__ = ["DeadLetter", "How", "OnError", "OnMissing", "OutcomePolicy", "Progress", "Sink"]

logger = logging.getLogger("profile_enrich")

How = Literal["left", "inner"]
OnMissing = Literal["null", "drop", "dead_letter", "raise"]
OnError = Literal["dead_letter", "null", "raise"]

_FEW = 1000
"""A fraction allowed to fail is one of so many records at least: the first failure of a run must not end it."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was put aside.

    Args:
        position: of the record in the input, from 0.
        row: the record itself, untouched. It does not show in the `repr`.
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
    """How far a run has come. Free of personal data.

    Args:
        rows: records that are done: `enriched + missing + keyless + errors`.
        enriched: records with a profile.
        missing: records whose profile the source does not have or withholds.
        keyless: records without a key.
        errors: records that failed.
        failures: how many failed in which way, by the `code` of the error.
        passed: records handed on.
        dropped: records left out, as `on_missing` or `how` says.
        dead_letters: records put aside.
        clashes: records that had a field of the profile's name already; theirs was kept.
        held: records that are being looked up or wait to be handed on.
        hits: records, of those read so far, that waited for nothing.
        lookups: different keys, of those read so far, for which the source had to be asked.
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


class OutcomePolicy:
    """Decides, and counts.

    Args:
        client: whose calls are counted.
        desk: where the records wait.
        shape: of the enriched records.
        how: `"left"` keeps records without a profile, `"inner"` does not.
        on_missing: what becomes of a record without a profile.
        on_error: what becomes of a record that failed.
        max_errors: failed records allowed: a fraction (of the records so far, at least of 1,000), or a number of them.
        most_letters: dead letters kept in memory at most, where there is no `dead_letter`.
        dead_letter: takes the dead letters.

    Raises:
        ConfigurationError: an argument makes no sense.
    """

    def __init__(
        self,
        client: ProfileClient,
        desk: LookupQueue[Any],
        shape: RecordMerger,
        *,
        how: How,
        on_missing: OnMissing,
        on_error: OnError,
        max_errors: float,
        most_letters: int,
        dead_letter: Sink | None,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        _one_of("how", how, How)
        _one_of("on_missing", on_missing, OnMissing)
        _one_of("on_error", on_error, OnError)
        if how == "inner" and on_error == "null":
            raise ConfigurationError(
                "how='inner' would lose the records that failed with on_error='null': put them aside or raise"
            )
        fraction = isinstance(max_errors, float)
        if isinstance(max_errors, bool) or not isinstance(max_errors, int | float) or not max_errors >= 0:
            raise ConfigurationError(f"max_errors must be a fraction or a number of records, not {max_errors!r}")
        if fraction and max_errors > 1:
            raise ConfigurationError(f"max_errors as a fraction must be at most 1.0, not {max_errors!r}")
        if progress is not None and not callable(progress):
            raise ConfigurationError(f"progress must be a function, not {type(progress).__name__}")
        self.letters: list[DeadLetter] = []
        """The dead letters, where nobody else takes them."""
        self._sink = _sink(dead_letter)
        self._most_letters = most_letters
        self._client = client
        self._desk = desk
        self._shape = shape
        self._drop = on_missing == "drop" or (how == "inner" and on_missing == "null")
        self._on_missing = on_missing
        self._on_error = on_error
        self._max_errors = max_errors
        self._fraction = fraction
        self._progress = progress
        self._broken_progress = False
        self._rows = self._enriched = self._missing = self._keyless = self._errors = 0
        self._dropped = self._dead = self._raised = 0
        self._failures: dict[str, int] = {}
        self._calls = 0
        self._started = self._ended = 0.0

    # --- decisions --------------------------------------------------------------------------------------------------

    def settle(self, outcome: Outcome[Any]) -> dict[str, Any] | DeadLetter | None:
        """The enriched record, or why it is put aside; `None` when it is left out.

        Raises:
            ProfileMissing, ProfileEnrichError: as `on_missing` and `on_error` ask for.
        """
        self._rows += 1
        problem, profile = outcome.problem, outcome.profile
        if problem is None:
            if profile is not None and profile.found:
                self._enriched += 1
                return self._shape.of(outcome.row, profile)
            self._missing += 1
            excluded = profile is not None and profile.reason is Reason.EXCLUDED
            return self._without(outcome, (Reason.EXCLUDED if excluded else Reason.NOT_FOUND).value)
        if isinstance(problem, MissingKeyError):
            self._keyless += 1
            if self._keyless == self._rows == _FEW:
                self._say_keyless()
            return self._without(outcome, problem.code)
        self._errors += 1
        self._failures[problem.code] = self._failures.get(problem.code, 0) + 1
        if self._on_error == "raise":
            self._raised += 1
            error = copy.copy(problem)
            error.add_note(f"with record {outcome.position}, counted from 0")
            raise error
        if self._on_error == "null":
            return self._shape.of(outcome.row, None)
        return self._letter(outcome, problem.code, str(problem))

    def _without(self, outcome: Outcome[Any], code: str) -> dict[str, Any] | DeadLetter | None:
        if self._drop:
            self._dropped += 1
            return None
        if self._on_missing == "null":
            return self._shape.of(outcome.row, None)
        message = _WITHOUT[code]
        if self._on_missing == "raise":
            self._raised += 1
            raise ProfileMissing(f"record {outcome.position}, counted from 0: {message}")
        return self._letter(outcome, code, message)

    def _letter(self, outcome: Outcome[Any], code: str, message: str) -> DeadLetter:
        self._dead += 1
        return DeadLetter(outcome.position, outcome.row, code, message)

    def deliver(self, letter: DeadLetter) -> object:
        """Hands a dead letter on. Returns what the taker returned.

        Raises:
            TooManyErrors: nobody takes them, and there are too many to keep.
        """
        if self._sink is not None:
            return self._sink(letter)
        self.letters.append(letter)
        if len(self.letters) > self._most_letters:
            raise TooManyErrors(
                f"more than {self._most_letters:,} records were put aside, and they are kept in memory: pass "
                "dead_letter=, a function that writes them somewhere"
            )
        return None

    def check(self) -> None:
        """Ends the run when too many records failed.

        Raises:
            TooManyErrors: says how many, and why.
        """
        if self._errors == 0 or self._errors <= self._max_errors * (max(self._rows, _FEW) if self._fraction else 1):
            return
        ways = ", ".join(f"{code} {count:,}" for code, count in sorted(self._failures.items()))
        allowed = f"{self._max_errors:.2%}" if self._fraction else f"{self._max_errors:,}"
        raise TooManyErrors(
            f"{self._errors:,} of {self._rows:,} records failed ({ways}), and max_errors allows {allowed}"
            + (f" of at least {_FEW:,}" if self._fraction else "")
        )

    # --- the count --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The clock of the run starts."""
        self._started = time.monotonic()
        self._calls = self._client._observer.source_calls

    def end(self, complete: bool) -> None:
        """The clock stops; what looks like a mistake in the arguments is said."""
        if self._ended:
            return
        self._ended = time.monotonic()
        if complete and 0 < self._keyless == self._rows < _FEW:
            self._say_keyless()
        if complete and self._enriched and self._shape.unseen:
            names = ", ".join(repr(name) for name in sorted(self._shape.unseen))
            logger.warning("no profile of this run has the attribute %s; see fields", names)
        self.tell()

    def progress(self) -> Progress:
        """How far the run has come."""
        now = self._ended or time.monotonic()
        return Progress(
            rows=self._rows,
            enriched=self._enriched,
            missing=self._missing,
            keyless=self._keyless,
            errors=self._errors,
            failures=dict(self._failures),
            passed=self._rows - self._dropped - self._dead - self._raised,
            dropped=self._dropped,
            dead_letters=self._dead,
            clashes=self._shape.clashes,
            held=self._desk.held,
            hits=self._desk.hits,
            lookups=self._desk.lookups,
            source_calls=self._client._observer.source_calls - self._calls if self._started else 0,
            seconds=now - self._started if self._started else 0.0,
            done=bool(self._ended),
        )

    @property
    def tells(self) -> bool:
        """Whether somebody wants to know how far the run has come."""
        return self._progress is not None and not self._broken_progress

    def tell(self) -> None:
        """Calls the user's function. If it raises, that is logged and it is not called again."""
        if self._progress is None or self._broken_progress:
            return
        try:
            self._progress(self.progress())
        except Exception as error:  # noqa: BLE001  # the user's code: watching a run must not break it
            self._broken_progress = True
            logger.error("the progress function raised %s; the run goes on without it", type(error).__name__)

    def _say_keyless(self) -> None:
        logger.warning("none of the first %d records has a key; is the key's name right?", self._rows)


_WITHOUT = {
    Reason.NOT_FOUND.value: "the source has no such profile",
    Reason.EXCLUDED.value: "the source excludes the profile",
    MissingKeyError.code: "the record has no key",
}


def _one_of(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ConfigurationError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}")


def _sink(given: Sink | None) -> Callable[[DeadLetter], object] | None:
    if given is None:
        return None
    append = getattr(given, "append", None)
    taker = append if callable(append) else given
    if not callable(taker):
        raise ConfigurationError(f"dead_letter must be a function or a list, not {type(given).__name__}")
    return taker
