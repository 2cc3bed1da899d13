"""What the benchmark of the store does in processes of its own: `python -m benchmarks._store_work WHAT ARGUMENT...`."""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from pathlib import Path

from profile_enrich.store import CollectionSpec, LocalStore, RefreshSpec, build_store, refresh_store

from ._people import COLUMNS, FILTERABLE


def build(path: str, csv: str, columns: int) -> dict[str, float]:
    """Builds a store."""
    began = time.perf_counter()
    names = list(COLUMNS)[:columns]
    filterable = [name for name in FILTERABLE if name in names]
    build_store(path, [CollectionSpec("Users", csv, filterable=filterable)])
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(file.stat().st_size for file in Path(path).iterdir()) / 1e6
    # Of all threads, and of the one that Python runs in: what the second core can bring.
    cpu, main = time.process_time(), time.thread_time()
    return {"seconds": seconds, "cpu": cpu, "main": main, "peak": peak, "size": size}


def refresh(path: str, csv: str, vanished: str) -> dict[str, float]:
    """Refreshes it."""
    began = time.perf_counter()
    report = refresh_store(path, [RefreshSpec("Users", csv, vanished="delete" if vanished == "delete" else "keep")])
    changed = report.collections[0]
    return {"seconds": time.perf_counter() - began, "changed": changed.updated + changed.inserted + changed.deleted}


def memory(path: str, rows: int) -> dict[str, float]:
    """Reads all over it, and says what the process then holds, in MB."""
    choose = random.Random(3)
    with LocalStore(path) as store:
        for _ in range(20_000):
            store.get_payload("Users", f"u{choose.randrange(rows):08}")
        cursor = None
        for _ in range(200):
            cursor = store.page("Users", {"city": "Berlin"}, limit=1000, cursor=cursor, with_total=True).next_cursor
            if cursor is None:
                break
        facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(facts[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "build":
        found = build(arguments[0], arguments[1], int(arguments[2]))
    elif what == "refresh":
        found = refresh(arguments[0], arguments[1], arguments[2])
    else:
        found = memory(arguments[0], int(arguments[1]))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
