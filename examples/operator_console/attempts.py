"""Limits of failed sign-ins."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_SECONDS = 300.0
PER_NAME_AND_ADDRESS, PER_ADDRESS = 5, 20
"""Failures within the window. A name alone has no limit, so failures from other addresses do not lock out its user."""
_REMEMBERED = 10_000

Who = tuple[str, str]


class Attempts:
    """Count failed sign-ins in memory, for a limited number of names and addresses."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._failures: OrderedDict[Who, deque[float]] = OrderedDict()

    def begin(self, name: str, address: str) -> float:
        """Begin an attempt. It counts as failed until `succeeded`, so that parallel attempts have no advantage.

        Returns:
            0, or the seconds to wait when there were too many.
        """
        now = self._timer()
        limits = self._limits(name, address)
        wait = 0.0
        for who, limit in limits.items():
            times = self._recent(who, now)
            if len(times) >= limit:
                wait = max(wait, times[-limit] + WINDOW_SECONDS - now)
        if wait > 0:
            return wait
        for who in limits:
            self._failures.setdefault(who, deque()).append(now)
            self._failures.move_to_end(who)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return 0.0

    def succeeded(self, name: str, address: str) -> None:
        """Count the attempt that was begun last as successful."""
        for who in self._limits(name, address):
            times = self._failures.get(who)
            if times:
                times.pop()
        self._failures.pop(next(iter(self._limits(name, address))), None)

    def _recent(self, who: Who, now: float) -> deque[float]:
        times = self._failures.get(who, deque())
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        return times

    @staticmethod
    def _limits(name: str, address: str) -> dict[Who, int]:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(address).version == 6:  # one subscriber has a whole /64
                address = str(ipaddress.ip_network(f"{address.partition('%')[0]}/64", strict=False))
        return {
            ("both", f"{address}\0{name}"): PER_NAME_AND_ADDRESS,
            ("address", address): PER_ADDRESS,
        }
