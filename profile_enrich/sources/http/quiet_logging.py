"""HTTP clients log full URLs, and those hold identifiers. Here that is silenced, for our own calls only."""

from __future__ import annotations

import logging
from contextvars import ContextVar

__all__ = ["quiet", "silence_loggers"]

_ours: ContextVar[bool] = ContextVar("profile_enrich_request", default=False)


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


_filter = _NotOurs()


def silence_loggers(*names: str) -> None:
    """Put a filter on these loggers that drops what is logged while `quiet()` is active, and nothing else.

    Levels, handlers and the user's own requests through the same HTTP client are left as they are. Adding it again does
    nothing.
    """
    for name in names:
        logging.getLogger(name).addFilter(_filter)


class quiet:  # noqa: N801  # used as one uses a function of contextlib, at a third of the cost
    """Marks the current context as sending one of our requests, for a `with` block."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _ours.set(True)

    def __exit__(self, *exc: object) -> None:
        _ours.reset(self._token)
