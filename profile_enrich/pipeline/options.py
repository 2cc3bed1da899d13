"""Options that every kind of enrichment shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from .._utils.validation import check_int, check_number
from ..errors import ConfigurationError

__all__ = ["EnrichOptions", "OnError", "OnMissing", "options_of"]

OnMissing = Literal["null", "drop", "dead_letter", "raise"]
OnError = Literal["dead_letter", "null", "raise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichOptions:
    """Say what becomes of records without a profile, and how much work runs at once.

    `enrich`, `enrich_blocking`, `outcomes`, `enrich_file`, `enrich_table` and the engine adapters take the same object.
    A table has no dead-letter output, so `"dead_letter"` is refused there.

    Args:
        on_missing: what becomes of a record without a profile or without a key: `"null"` passes it on with nulls,
            `"drop"` leaves it out, `"dead_letter"` writes it to the dead-letter output, `"raise"` ends the run.
            Default `"null"`.
        on_error: what becomes of a record whose lookup failed: `"dead_letter"`, `"null"` or `"raise"`. Default `None`:
            `"dead_letter"` for records; for files too when a dead-letter file is given, else `"raise"`; `"null"` for
            tables.
        max_errors: failed records allowed before the run ends: a fraction (a `float`) of the records so far, counted as
            at least 1,000; or a number of records (an `int`). Default 0.01. Tables ignore it.
        ordered: whether records leave in the order in which they came. Default true; false lets no record wait for a
            slower one. Files and tables always keep the order.
        window: records held at most. Default 4,096. Tables ignore it.
        concurrency: concurrent calls of the source, at most. Default 64. On the workers of an engine each worker's
            share of the `ClientConfig` counts instead.
        retry_timeout: seconds for which a failing source is retried, since it last answered. Default 60; an
            open circuit breaker counts as failing. A rate limit is waited for however long it takes.

    Raises:
        ConfigurationError: an option is not usable; the message names it.
    """

    on_missing: OnMissing = "null"
    on_error: OnError | None = None
    max_errors: float = 0.01
    ordered: bool = True
    window: int = 4096
    concurrency: int = 64
    retry_timeout: float = 60.0

    def __post_init__(self) -> None:
        _one_of("on_missing", self.on_missing, OnMissing)
        if self.on_error is not None:
            _one_of("on_error", self.on_error, OnError)
        check_number("max_errors", self.max_errors, unit="records, or a fraction of them")
        if isinstance(self.max_errors, float) and self.max_errors > 1:
            raise ConfigurationError(f"max_errors as a fraction must be at most 1.0, not {self.max_errors!r}")
        check_int("window", self.window)
        check_int("concurrency", self.concurrency)
        check_number("retry_timeout", self.retry_timeout)

    def for_tables(self) -> EnrichOptions:
        """Return the options themselves.

        Raises:
            ConfigurationError: they ask for a dead-letter output, which a table has not.
        """
        for name in ("on_missing", "on_error"):
            if getattr(self, name) == "dead_letter":
                raise ConfigurationError(f"{name}='dead_letter': a table has no dead-letter output; choose 'null'")
        return self


def options_of(given: EnrichOptions | None) -> EnrichOptions:
    """Return the options, or the default ones for `None`.

    Raises:
        ConfigurationError: something else was given.
    """
    if given is None:
        return EnrichOptions()
    if not isinstance(given, EnrichOptions):
        raise ConfigurationError(f"options must be EnrichOptions, not {type(given).__name__}")
    return given


def _one_of(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ConfigurationError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}")
