"""Detection of stalls: a blocked event loop, or a paused process."""

from __future__ import annotations

import asyncio
import logging

from .log_once import LogOnce

__all__ = ["StandstillWatch"]

logger = logging.getLogger("profile_enrich")

INTERVAL = 0.1
"""Seconds between checks of the clock, while there are watchers."""

TOLERANCE = 0.1
"""The delay of a timer, in seconds, from which it counts as a stall."""

_once = LogOnce()


class StandstillWatch:
    """Measure the stalls of an event loop while loads run on it.

    A late timer shows that the loop was blocked or the process was paused. Timeouts during a stall do not indicate a
    failing source. Call all methods on the loop; the watch does not keep it alive.
    """

    __slots__ = ("_due", "_seconds", "_ticking", "_users")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._users = 0
        self._due = 0.0
        self._ticking = False

    def start(self) -> float:
        """Start one watch, and return `seconds()`. Each watch is ended by one call of `stop`."""
        self._users += 1
        if not self._ticking:
            self._tick_later()
        return self.seconds()

    def stop(self) -> None:
        """End one watch."""
        self._users -= 1

    def seconds(self) -> float:
        """Return the seconds of stalls so far, including one that has just ended."""
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
