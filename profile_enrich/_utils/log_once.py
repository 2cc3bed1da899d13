"""`LogOnce`: log each message once, e.g. a configuration error that occurs at every request."""

from __future__ import annotations

import logging
import math
import time
import traceback

from ..errors import ProfileEnrichError

__all__ = ["LogOnce"]

logger = logging.getLogger("profile_enrich")


class LogOnce:
    """The messages logged so far. It is thread-safe, except that a simultaneous message can be logged twice.

    Args:
        every: seconds after which a message is logged again. Default never.
    """

    def __init__(self, every: float = math.inf) -> None:
        self._every = every
        self._said: dict[tuple[object, ...], float] = {}

    def first(self, *what: object) -> bool:
        """Return whether this is the first call with these arguments, or the first one again after `every` seconds."""
        now = time.monotonic()
        if now - self._said.get(what, -math.inf) < self._every:
            return False
        self._said[what] = now
        return True

    def failed(self, role: str, function: object, error: BaseException, *, instead: str) -> None:
        """Log an error of a user's function: its location and type, without its message, which may quote personal data.

        The messages of this package's errors hold no personal data, and are logged.

        Args:
            role: the role of the function, e.g. "the identity function".
            function: the function; each of its types of error is logged once.
            error: the exception.
            instead: the consequence, for the message.
        """
        if self.first(role, type(error), function):
            trace = "".join(traceback.format_tb(error.__traceback__)).rstrip()
            what = type(error).__name__
            if isinstance(error, ProfileEnrichError):
                what = f"{what}: {error.message}"
            logger.error("%s raised %s; %s\n%s", role, what, instead, trace)
