"""Suppression of HTTP clients' logging for this package's requests, since logged URLs hold identifiers."""

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
    """Add a filter to these loggers that drops records logged while `quiet()` is active.

    Levels, handlers and the user's own requests through the same HTTP client are not affected. A second call does
    nothing.
    """
    for name in names:
        logging.getLogger(name).addFilter(_filter)


class quiet:  # noqa: N801  # used as one uses a function of contextlib, at a third of the cost
    """Suppress the HTTP clients' logging in this context, for a `with` block."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _ours.set(True)

    def __exit__(self, *exc: object) -> None:
        _ours.reset(self._token)
