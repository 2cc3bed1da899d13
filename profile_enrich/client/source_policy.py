"""`SourcePolicy`: circuit breaker, retries and limits of calls to the source."""

from __future__ import annotations

from dataclasses import dataclass

from .._utils.validation import check_int, check_number
from ..errors import ConfigurationError
from .breaker import Breaker
from .rate_limit import RateLimit
from .retry import RetryPolicy

__all__ = ["SourcePolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """Circuit breaker, retries and limits of a `ProfileClient`'s calls to its source.

    Args:
        breaker: the circuit breaker. Default: `Breaker()`, which opens for 5 seconds after 5 failures in a row.
        retry: the retries of failed calls. Default: `RetryPolicy()`, which retries once, for up to a tenth of the
            calls.
        rate_limit: the limit of calls per second, such as `RateLimit(100)`. Default none. Pages never wait for it.
        max_in_flight: the largest number of concurrent calls per event loop. Default 100.
        batch_window: seconds in which lookups are collected for one batch call. Default 0.002.
        close_timeout: how long `aclose` waits for running loads, in seconds. Default 2.
        warm_up_timeout: how long the startup of an application waits for the source, in seconds. Default 2; 0 for no
            warm-up.

    Raises:
        ConfigurationError: a value is not usable; the message names it.
    """

    breaker: Breaker | None = None
    retry: RetryPolicy | None = None
    rate_limit: RateLimit | None = None
    max_in_flight: int = 100
    batch_window: float = 0.002
    close_timeout: float = 2.0
    warm_up_timeout: float = 2.0

    def __post_init__(self) -> None:
        for name, kind in (("breaker", Breaker), ("retry", RetryPolicy), ("rate_limit", RateLimit)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(f"{name} must be a {kind.__name__}(...), not {type(value).__name__}")
        check_int("max_in_flight", self.max_in_flight)
        check_number("batch_window", self.batch_window)
        check_number("close_timeout", self.close_timeout, positive=True)
        check_number("warm_up_timeout", self.warm_up_timeout)
