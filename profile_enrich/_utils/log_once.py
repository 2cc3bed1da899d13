"""Says each thing once: a mistake in set-up must be seen, and not a million times."""

from __future__ import annotations

import logging
import traceback

from ..errors import ProfileEnrichError

__all__ = ["LogOnce"]

logger = logging.getLogger("profile_enrich")


class LogOnce:
    """What was said already. Safe under threads, but for a line said twice at the very same moment."""

    def __init__(self) -> None:
        self._said: set[tuple[object, ...]] = set()

    def first(self, *what: object) -> bool:
        """Whether this is the first time."""
        if what in self._said:
            return False
        self._said.add(what)
        return True

    def failed(self, role: str, function: object, error: BaseException, *, instead: str) -> None:
        """Log a bug of a user's function: its place and type, without its text, which may quote personal data.

        The text of this package's own errors is free of personal data, and shown.

        Args:
            role: what the function is, e.g. "the identity function".
            function: said once for each of them and each type of error.
            error: what it raised.
            instead: what happens now.
        """
        if self.first(role, type(error), function):
            trace = "".join(traceback.format_tb(error.__traceback__)).rstrip()
            what = type(error).__name__
            if isinstance(error, ProfileEnrichError):
                what = f"{what}: {error.message}"
            logger.error("%s raised %s; %s\n%s", role, what, instead, trace)
