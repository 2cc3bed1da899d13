"""Fork handling: resets locks, tasks and timers of the parent in a forked child."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["ForkAware", "reset_after_fork"]


class ForkAware(Protocol):
    """An object with a reset for forked children."""

    def after_fork(self) -> None:
        """Reset the object in the child, before other code runs there."""
        ...


_registered: WeakSet[ForkAware] = WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Call `after_fork` in each child process, for as long as the object lives."""
    _registered.add(thing)


def _in_child() -> None:
    for thing in list(_registered):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
