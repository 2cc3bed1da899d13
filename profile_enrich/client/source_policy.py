"""`SourcePolicy`: how a client calls its source."""

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
    """How a `ProfileClient` calls its source: circuit breaker, retries and limits.

    Args:
        breaker: the circuit breaker. Default: `Breaker()`, which opens for 5 seconds after 5 failures in a row.
        retry: when a failed call is repeated. Default: `RetryPolicy()`, which repeats it once, for at most a tenth of
            the calls.
        rate_limit: bounds the calls a second, such as `RateLimit(100)`. Default none. A page never waits for it.
        max_in_flight: calls at the same time, at most, on each event loop. Default 100.
        batch_window: seconds in which lookups gather for one call of a source that has a batch endpoint. Default 0.002.
        close_timeout: seconds that `aclose` waits for loads under way. Default 2.
        warm_up_timeout: seconds that the start of an application waits for the source to be connected. Default 2; 0 for
            no warm-up.

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
