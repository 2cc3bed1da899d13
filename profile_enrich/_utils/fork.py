"""Fork handling: resets locks, tasks and timers of the parent in a forked child."""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet

__all__ = ["ForkAware", "notice_fork", "reset_after_fork"]


class ForkAware(Protocol):
    """An object with a reset for forked children."""

    def after_fork(self) -> None:
        """Reset the object in the child, before other code runs there."""
        ...


_registered: WeakSet[ForkAware] = WeakSet()
_process = [os.getpid()]
_noticing = threading.Lock()


def reset_after_fork(thing: ForkAware) -> None:
    """Call `after_fork` in each child process, for as long as the object lives."""
    _registered.add(thing)


def notice_fork() -> None:
    """Reset the objects of a child process whose fork bypassed Python's fork hooks, as uWSGI's does."""
    if os.getpid() != _process[0]:
        with _noticing:  # the other threads of the child wait until everything is reset
            if os.getpid() != _process[0]:
                _in_child()


def _in_child() -> None:
    for thing in list(_registered):
        thing.after_fork()
    _process[0] = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
