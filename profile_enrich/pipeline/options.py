"""`EnrichOptions`: the options of all kinds of enrichment."""

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
    """The handling of records without a profile, and the limits of a run.

    `enrich`, `enrich_blocking`, `outcomes`, `enrich_file`, `enrich_table` and the engine adapters share it. Tables have
    no dead-letter output, so they reject `"dead_letter"`.

    Args:
        on_missing: what to do with a record without a profile or key: `"null"` returns it with nulls, `"drop"` drops
            it, `"dead_letter"` writes it to the dead-letter output, `"raise"` ends the run. Default `"null"`.
        on_error: what to do with a record whose lookup failed: `"dead_letter"`, `"null"` or `"raise"`. Default `None`:
            `"dead_letter"` for records, and for files with a dead-letter file; `"raise"` for other files; `"null"` for
            tables.
        max_errors: the failed records allowed before the run ends: a fraction (`float`) of the records so far, of at
            least 1,000; or a number (`int`). Default 0.01. Ignored for tables.
        ordered: whether the output has the order of the input. Default true; with false, no record waits for a slower
            one. Files and tables always keep the order.
        window: the largest number of records in progress. Default 4,096. Ignored for tables.
        concurrency: the largest number of concurrent calls to the source. Default 64. On the workers of an engine, each
            worker's share of the `ClientConfig` applies instead.
        retry_timeout: how long to retry a failing source after its last response, in seconds. Default 60. An open
            circuit breaker counts as failing. The wait for the rate limit is not limited.

    Raises:
        ConfigurationError: an option is invalid; the message names it.
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
            ConfigurationError: they request a dead-letter output, which tables lack.
        """
        for name in ("on_missing", "on_error"):
            if getattr(self, name) == "dead_letter":
                raise ConfigurationError(f"{name}='dead_letter': a table has no dead-letter output; choose 'null'")
        return self


def options_of(given: EnrichOptions | None) -> EnrichOptions:
    """Return the options, or the default ones for `None`.

    Raises:
        ConfigurationError: the value has another type.
    """
    if given is None:
        return EnrichOptions()
    if not isinstance(given, EnrichOptions):
        raise ConfigurationError(f"options must be EnrichOptions, not {type(given).__name__}")
    return given


def _one_of(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ConfigurationError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}")
