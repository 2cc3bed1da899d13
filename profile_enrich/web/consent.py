"""May we look? Asked before each lookup; without a yes there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

__all__ = ["Consent", "honour_gpc"]

Consent = Callable[[HTTPConnection], bool | Awaitable[bool]]
"""A consent function: `True` and nothing else allows the lookup. One that fails denies it."""


@dataclass(frozen=True, slots=True)
class _HonourGpc:
    vary: tuple[str, ...] = ("Sec-GPC",)

    def __call__(self, connection: HTTPConnection) -> bool:
        return "1" not in [value.strip() for value in connection.headers.getlist("sec-gpc")]


def honour_gpc() -> Consent:
    """Consent unless the browser says otherwise with `Sec-GPC: 1` (Global Privacy Control, W3C)."""
    return _HonourGpc()
