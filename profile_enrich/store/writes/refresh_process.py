"""Refresh in a separate process: `python -m profile_enrich.store.writes.refresh_process`, started by the server.

Standard input has one line of JSON with the options (they may hold a database password, so they are not arguments); the
outcome goes to standard output. Standard input stays open while the server runs. When it closes, this process ends, and
the old generation stays intact. Its priority is low, so that requests do not wait for a core.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ..._utils.signals import run_in_thread
from ...errors import ProfileEnrichError, StoreBusy
from ..inputs.source_config import specs_from_tables
from .refresh_from_sources import refresh_from_sources
from .refresh_status import read_last_refresh

__all__ = ["main"]

NICENESS = 10
"""Added to the niceness of the server, up to 19. On Linux, a busy core gives about a tenth of its time (sched(7))."""


def main(stdin: IO[str], stdout: IO[str], *, watch: bool = True) -> None:
    """Run one refresh and return its outcome.

    Args:
        stdin: the input with the options.
        stdout: the output for the outcome.
        watch: whether to end this process when `stdin` closes.
    """
    order: dict[str, Any] = json.loads(stdin.readline())
    if watch:
        threading.Thread(target=_end_with, args=(stdin,), daemon=True).start()
    path, outcome, error = Path(order["path"]), "done", None
    try:
        tables, since = order["collections"], order["since"]
        report = refresh_from_sources(
            path,
            None if tables is None else specs_from_tables(tables, path),
            changed_only=order["changed_only"],
            vanished=order["vanished"],
            on_duplicate=order["on_duplicate"],
            max_shrink=order["max_shrink"],
            since=None if since is None else datetime.fromisoformat(since),
        )
        outcome = "skipped" if report is None else "done"
    except StoreBusy:
        outcome = "busy"
    except ProfileEnrichError as problem:
        outcome, error = "failed", problem.message
    last = read_last_refresh(path)
    stdout.write(json.dumps({"outcome": outcome, "error": error, "failures": last.failures if last else 0}) + "\n")
    stdout.flush()


def _end_with(stdin: IO[str]) -> None:
    """End this process and its children when standard input closes."""
    while stdin.read(1):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)  # Windows, or started by hand


if __name__ == "__main__":
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    run_in_thread(lambda: main(sys.stdin, sys.stdout))
