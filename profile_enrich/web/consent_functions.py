"""Consent functions, which allow or deny a lookup."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

__all__ = ["Consent", "honour_gpc"]

Consent = Callable[[HTTPConnection], bool | Awaitable[bool]]
"""A consent function. Only `True` allows the lookup; an exception denies it."""


@dataclass(frozen=True, slots=True)
class _HonourGpc:
    vary: tuple[str, ...] = ("Sec-GPC",)

    def __call__(self, connection: HTTPConnection) -> bool:
        return "1" not in [value.strip() for value in connection.headers.getlist("sec-gpc")]


def honour_gpc() -> Consent:
    """Return a consent function that denies requests with `Sec-GPC: 1` (Global Privacy Control, W3C)."""
    return _HonourGpc()
