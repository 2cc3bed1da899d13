"""Run by `test_store_kill`: change a store, and exit by SIGKILL at the given step.

A step is a call of any function, of Python or of C, while the store's code runs: between any two of them the process
may die. Without a number the steps are counted.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from profile_enrich.store import CollectionSpec, RefreshSpec, build_store, put_record, refresh_store
from profile_enrich.store.writes import delta

FILTERS = ("tier", "mail")
SIZE = 120


def rows(version: int) -> list[dict[str, Any]]:
    """Return all records of a version; each contains its version."""
    return [
        {"id": f"u{n}", "v": version, "tier": f"t{version}-{n % 3}", "mail": f"m{n}@{version}"}
        for n in range(version, SIZE + version)
    ]


def full(path: Path) -> None:
    """A full refresh."""
    build_store(path, [CollectionSpec("Users", rows(2), filterable=FILTERS)])


def files(path: Path) -> None:
    """A full refresh from a file, and a new collection from it: rows and posting lists are then made by DuckDB."""
    file = path.parent / "rows.csv"
    new = CollectionSpec("New", file, filterable=FILTERS)
    build_store(path, [new, CollectionSpec("Users", file, filterable=FILTERS)])


def incremental(path: Path) -> None:
    """An incremental refresh that merges layers and deletes records that vanished."""
    refresh_store(path, [RefreshSpec("Users", rows(2), vanished="delete")])


def merging(path: Path) -> None:
    """An incremental refresh that rewrites the base."""
    delta._MERGE_FROM = 0
    incremental(path)


def single(path: Path) -> None:
    """Write one record, the only one of version 2."""
    put_record(path, "Users", f"u{SIZE + 1}", rows(2)[-1])


WORK: dict[str, Callable[[Path], None]] = {
    "full": full,
    "files": files,
    "incremental": incremental,
    "merging": merging,
    "single": single,
}


def run(work: Callable[[Path], None], path: Path, last: int | None) -> int:
    """Return the number of steps; never return if the given step is reached."""
    steps = 0

    def step(frame: FrameType, event: str, arg: object) -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(step)
    try:
        work(path)
    finally:
        sys.setprofile(None)
    return steps


def main() -> None:
    """Die once for each path after the first three: `WORK OLD PATH...`, at steps spread over the whole run.

    The first path is the store before the work. It is copied again where a run had fewer steps than were counted: those
    that wait for another thread have more or fewer of them.
    """
    work, old, warm, counted, *paths = WORK[sys.argv[1]], *map(Path, sys.argv[2:])
    run(work, warm, None)  # work that is done once per process
    total = run(work, counted, None)
    for number, path in enumerate(paths):
        # The last steps are the swap and the clean-up: half of the points are among them.
        last = max(1, total - 4 - number * 8) if number % 2 else 1 + total * number // len(paths)
        while not dies(work, path, last):
            shutil.rmtree(path)
            shutil.copytree(old, path)
            last -= 8
        sys.stdout.write("killed\n")


def dies(work: Callable[[Path], None], path: Path, last: int) -> bool:
    """Return whether a process was killed at the given step; it ends by itself if it has fewer steps."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(work, path, last)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError("the work failed")
    return code != 0


if __name__ == "__main__":
    main()
