"""Fork handling: resets locks, tasks and timers of the parent in a forked child."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from typing import Protocol
from weakref import WeakSet

__all__ = ["ForkAware", "notice_fork", "reset_after_fork", "warn_before_fork"]

logger = logging.getLogger("profile_enrich")


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


def warn_before_fork() -> None:
    """Log a warning if this process is uWSGI's master and a thread that is started now could break its workers.

    By default uWSGI forks without holding Python's global lock. If another thread holds it at that moment, the worker
    waits for it forever (https://github.com/unbit/uwsgi/issues/2387).
    """
    try:
        uwsgi = importlib.import_module("uwsgi")  # exists only inside of uWSGI
    except ImportError:
        return
    if uwsgi.masterpid() == os.getpid() and "py-call-uwsgi-fork-hooks" not in uwsgi.opt:
        logger.warning(
            "a lookup before uWSGI forks its workers starts a thread, and workers can hang: set"
            " py-call-uwsgi-fork-hooks or lazy-apps in uWSGI's configuration"
        )


def _in_child() -> None:
    for thing in list(_registered):
        thing.after_fork()
    _process[0] = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
