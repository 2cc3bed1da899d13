"""What must be renewed in a forked child: locks that a thread of the parent may hold, its tasks, its timers."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["ForkAware", "reset_after_fork"]


class ForkAware(Protocol):
    """Something that knows what to renew."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""
        ...


_renewables: WeakSet[ForkAware] = WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Has `after_fork` called in each child process, for as long as the thing lives."""
    _renewables.add(thing)


def _in_child() -> None:
    for thing in list(_renewables):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
