"""What the vendor publishes of its hosted service: docs.amperity.com/operator/api_profile.html, "Index response times".

Of indexes with 10 columns (10 filters: 30 columns, the only table that has so many).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTE", "PUBLISHED", "Published"]


class Published(NamedTuple):
    """Milliseconds (median, 95 and 99 %), requests a second, and seconds that the index takes to be made."""

    p50: int
    p95: int
    p99: int
    rate: int
    build: int


PUBLISHED: dict[int, dict[int, Published]] = {
    0: {1_000_000: Published(36, 48, 62, 1000, 145), 10_000_000: Published(29, 52, 110, 1000, 220)},
    1: {1_000_000: Published(84, 150, 200, 1000, 149), 10_000_000: Published(72, 200, 320, 1000, 230)},
    3: {1_000_000: Published(420, 1400, 2300, 300, 194), 10_000_000: Published(6600, 15000, 19000, 50, 300)},
    5: {1_000_000: Published(390, 1500, 2200, 300, 152), 10_000_000: Published(3000, 11000, 15000, 40, 250)},
    10: {1_000_000: Published(550, 3800, 9700, 150, 162), 10_000_000: Published(3400, 22000, 26000, 20, 414)},
}
"""By the number of filters, then of rows."""

NOTE = """The vendor's columns are the published figures of its hosted service (operator's guide, "Index response
times"). Its requests crossed a continent, with TLS, to several endpoints at the same time, on machines and with filters
that it does not describe; here there is one tenant, no network and no TLS, and client and server share a machine. So
the rows without and with one filter compare networks, not stores. The table does show the effect of further filters: a
network takes the same time for three filters as for one."""
