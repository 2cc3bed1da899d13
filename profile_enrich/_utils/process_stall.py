"""Notices standstills of this process: an event loop that the application blocks, or a process that was paused."""

from __future__ import annotations

import asyncio
import logging

from .log_once import LogOnce

__all__ = ["StandstillWatch"]

logger = logging.getLogger("profile_enrich")

INTERVAL = 0.1
"""Seconds between two looks at the clock, while somebody watches."""

TOLERANCE = 0.1
"""Seconds by which a timer may be late before that is a standstill."""

_once = LogOnce()


class StandstillWatch:
    """Counts the seconds for which an event loop ran nothing, while loads are under way on it.

    A timer that fires late shows that the loop was blocked or the process was paused. What ran out meanwhile says
    nothing about the source. All methods are called on the loop, which the watch does not keep alive.
    """

    __slots__ = ("_due", "_seconds", "_ticking", "_users")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._users = 0
        self._due = 0.0
        self._ticking = False

    def start(self) -> float:
        """Watch until `stop` is called as often as this. Return `seconds()`."""
        self._users += 1
        if not self._ticking:
            self._tick_later()
        return self.seconds()

    def stop(self) -> None:
        """End one watch."""
        self._users -= 1

    def seconds(self) -> float:
        """Return the seconds of standstill so far, with one that has just ended and is not counted yet."""
        late = asyncio.get_running_loop().time() - self._due if self._ticking else 0.0
        return self._seconds + (late if late > TOLERANCE else 0.0)

    def _tick_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticking = True
        self._due = loop.time() + INTERVAL
        loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        late = asyncio.get_running_loop().time() - self._due
        self._ticking = False
        if late > TOLERANCE:
            self._seconds += late
            log = logger.warning if _once.first("standstill") else logger.debug
            log(
                "the event loop stood still for %.1f s: the application blocked it, or the process was paused; lookups "
                "under way get that time back, and it does not count against the source",
                late,
            )
        if self._users:
            self._tick_later()
