"""The configuration of a middleware, shared by all its requests."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

from .._utils.log_once import LogOnce
from ..client.client import ProfileClient
from .cache_headers import Headers, personal_lines
from .consent_functions import Consent
from .identity_functions import Identify

__all__ = ["Attach", "MiddlewareConfig"]

logger = logging.getLogger("profile_enrich")

Attach = Literal["eager", "prefetch", "lazy"]
"""When the lookup starts."""


@dataclass(frozen=True, slots=True)
class MiddlewareConfig:
    """The configuration of a middleware, shared by all its requests.

    Two nested middlewares with equal configurations make one lookup.
    """

    client: ProfileClient
    identify: Identify
    budget: float | None
    vary_on: tuple[str, ...]
    once: LogOnce = field(compare=False)
    consent: Consent | None = None
    server_timing: bool = False
    attach: Attach = "eager"
    exclude: tuple[str, ...] = ()
    personal_lines: Headers = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "personal_lines", personal_lines(self.vary_on))

    def warn_sealed(self) -> None:
        """Log once that a profile was read outside of its request."""
        if self.once.first("sealed"):
            logger.warning(
                "a profile was read after its request had left the middleware, by an error handler, a middleware "
                "outside of it, or a task that went on: it is empty there. For the first two, wrap the application "
                "from outside: app = ProfileMiddleware(app, ...); for tasks, keep profile.detached() or as_dict()"
            )
