"""Settings of a soak run, and the expiry times of the client under test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from profile_enrich._utils.single_flight import GRACE

__all__ = ["COMBINATIONS", "Dialect", "Settings", "TransportName"]

Dialect = Literal["census", "amperity"]
TransportName = Literal["aiohttp", "httpx2", "httpx"]

COMBINATIONS: tuple[tuple[Dialect, TransportName], ...] = (
    ("census", "aiohttp"), ("amperity", "httpx2"), ("census", "httpx"),
    ("amperity", "aiohttp"), ("census", "httpx2"), ("amperity", "httpx"),
)  # fmt: skip
"""Vendor dialects and transports: one chapter each, in turn. A whole turn warms the memory up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run.

    Args:
        seed: of everything random.
        chapters: how many; each has a client of its own.
        chapter_seconds: how long traffic runs in each.
        visitors: devices that drive the ASGI application in process.
        socket_visitors: devices that come through uvicorn.
        people: customers.
        think: mean seconds between two requests of a device.
        pace: all times of the client are multiplied by it.
    """

    seed: int
    chapters: int = 12
    chapter_seconds: float = 14.0
    visitors: int = 300
    socket_visitors: int = 30
    people: int = 800
    think: float = 0.6
    pace: float = 1.0

    max_entries: int = 500
    max_bytes: int = 1_000_000
    max_negative_entries: int = 60
    max_in_flight: int = 40
    budget: float = 0.05
    slowest_page: float = 5.0
    slack: float = 1.0

    @classmethod
    def of_minutes(cls, minutes: float, seed: int, visitors: int = 300) -> Settings:
        """Two turns at least, and chapters of half a minute at most."""
        seconds = minutes * 60
        chapters = max(12, round(seconds / 30 / 6) * 6)
        # Starting and closing a chapter takes about a second.
        return cls(seed, chapters=chapters, chapter_seconds=max(0.5, seconds / chapters - 1.0), visitors=visitors)

    @property
    def ttl(self) -> float:
        return 1.5 * self.pace

    @property
    def stale_ttl(self) -> float:
        return 3.0 * self.pace

    @property
    def max_stale(self) -> float:
        return 5.0 * self.pace

    @property
    def negative_ttl(self) -> float:
        return 0.5 * self.pace

    @property
    def max_ttl(self) -> float:
        """The longest ttl that the vendor's `max-age` can set: whole seconds."""
        return max(1.0, 2.0 * self.pace)

    @property
    def throttle(self) -> float:
        return 0.3 * self.pace

    @property
    def deadline(self) -> float:
        return 1.0 * self.pace

    @property
    def overlay_ttl(self) -> float:
        return 1.5 * self.pace

    @property
    def oldest_age(self) -> float:
        """Maximum seconds since the call to the source: the times with jitter, and slack for a busy machine."""
        return (max(self.ttl, self.max_ttl) + self.max_stale) * 1.1 + self.slack

    @property
    def oldest(self) -> float:
        """Maximum seconds since the vendor replaced a served record: a response may take a deadline to arrive."""
        return self.oldest_age + self.deadline + GRACE

    @property
    def oldest_negative(self) -> float:
        """Maximum seconds for which a key is reported as unknown after the vendor has it."""
        return self.negative_ttl * 1.1 + self.deadline + GRACE + self.slack
