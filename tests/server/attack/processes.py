"""Workers that die when no new process can be started."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from profile_enrich.store import CollectionSpec, build_store

from .running import KEY, RECORD, Served, Skipped, serving

__all__ = ["descriptors", "processes"]

_USER = 61234
"""Nobody's: the limit of processes does not hold for root."""


def descriptors(directory: Path) -> tuple[bool, str]:
    """Workers killed while the supervisor has no free descriptor, then SIGTERM right after a worker's exit."""
    with serving(directory, "--workers", "2") as served:
        used = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
        soft, hard = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)

        def limit(starved: bool) -> None:
            resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (used - 1 if starved else soft, hard))

        return _starved(served, limit)


def processes(directory: Path) -> tuple[bool, str]:
    """The same at the limit of processes, and a start that cannot create its workers."""
    setpriv = shutil.which("setpriv")
    if os.getuid() or setpriv is None:
        raise Skipped("needs root and setpriv (util-linux), to become a user whose processes are limited")
    store = directory / "limited.store"
    build_store(store, [CollectionSpec("Users", [{"id": f"u{n}"} for n in range(10)])])
    rights = "-all,+dac_override,+dac_read_search"
    prefix = (setpriv, f"--reuid={_USER}", "--clear-groups", f"--inh-caps={rights}", f"--ambient-caps={rights}")
    for path in (store, *store.iterdir()):
        os.chown(path, _USER, -1)
    with serving(directory, "--store", str(store), "--workers", "2", prefix=prefix) as served:
        soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)

        def limit(starved: bool) -> None:
            least = 1 if starved else soft
            subprocess.run(
                [*prefix, "prlimit", f"--pid={served.process.pid}", f"--nproc={_shown(least)}:{_shown(hard)}"],
                check=True,
            )

        fine, said = _starved(served, limit)
    began = time.monotonic()
    start = subprocess.run(
        [shutil.which("prlimit") or "prlimit", "--nproc=1:1", *prefix, *served.process.args[len(prefix):]],  # type: ignore[index]  # it is a list
        env={**os.environ, "PROFILE_ENRICH_API_KEY": KEY}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    fine &= start.returncode == 2 and "Traceback" not in start.stderr
    return fine, f"{said}; a start without processes: {start.returncode} in {time.monotonic() - began:.1f} s"


def _shown(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _starved(served: Served, limit: Callable[[bool], None]) -> tuple[bool, str]:
    limit(True)
    os.kill(served.workers()[0], signal.SIGKILL)
    time.sleep(2)
    during = served.get(RECORD)
    limit(False)
    end = time.monotonic() + 40
    while len(served.workers()) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    back = len(served.workers())
    os.kill(served.workers()[0], signal.SIGKILL)
    began = time.monotonic()
    served.process.terminate()
    code = served.process.wait(20)
    seconds = time.monotonic() - began
    return (
        (during, back, code) == (200, 2, 143) and seconds < 5,
        f"answer meanwhile {during}, {back} workers afterwards; SIGTERM after an exit: {code} in {seconds:.1f} s",
    )
