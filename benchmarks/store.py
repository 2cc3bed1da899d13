"""The embedded store at a million profiles (and ten, with BIG=1): building, refreshing, lookups, pages, totals.

Beside it, at a million: the same rows in SQLite, DuckDB and PostgreSQL (`_rivals.py`).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from profile_enrich.store import LocalStore

from ._people import COLUMNS, FILTERABLE, write_csv
from ._published import PUBLISHED
from ._rivals import rivals
from ._table import Table, Verdict, main

__all__ = ["run"]

_LIMIT = 100
_ROUND_SECONDS = 3.0
_SHAPES: dict[str, tuple[str, ...]] = {
    "no filter": (),
    "1, selective (e-mail)": ("email",),
    "1, unselective (opted in)": ("opted_in",),
    "3, unselective (opted in, country, tier)": ("opted_in", "country", "tier"),
    "3, adversarial (first name, surname, city)": ("first_name", "surname", "city"),
    "5 (first name, city, country, tier, opted in)": ("first_name", "city", "country", "tier", "opted_in"),
    "10 (all)": FILTERABLE,
}


def run(quick: bool) -> list[Table]:
    """The store at scale."""
    sizes = [(20_000, 5), (20_000, 10), (20_000, 30)] if quick else [(1_000_000, 5), (1_000_000, 10), (1_000_000, 30)]
    if os.environ.get("BIG") and not quick:
        sizes.append((10_000_000, 10))
    building = Table(
        "Building and refreshing",
        (
            "rows × columns",
            "build s",
            "CPU s",
            "rows/s",
            "on disk MB",
            "peak MB",
            "1 % s",
            "swap ms",
            "worker anon MB",
            "mapped MB",
            "vendor's build s",
        ),
    )
    tables = [building]
    with tempfile.TemporaryDirectory(prefix="profile-enrich-bench-") as name:
        for rows, columns in sizes:
            folder = Path(name) / f"{rows}-{columns}"
            folder.mkdir()
            tables += _measure(folder, rows, columns, building)
            for file in folder.rglob("*"):
                if file.is_file():
                    file.unlink()
    building.notes.append(
        "Anonymous memory belongs to one worker; mapped memory is page cache, which all workers share and the system"
        " reclaims. A swap is the time to detect the new generation, open its files and answer one lookup. The "
        'vendor publishes its time for a workflow that builds such an index with 5 filters (its guide, "Index '
        'response times").'
    )
    return tables


def _measure(folder: Path, rows: int, columns: int, building: Table) -> list[Table]:
    csv, changed, path = folder / "people.csv", folder / "changed.csv", folder / "people.store"
    write_csv(csv, rows, columns)
    # One in a hundred: the same ids with the other values of another seed.
    write_csv(changed, rows // 100, columns, seed=2, first=rows // 2)
    built = _child("build", path, csv, columns)
    label = f"{rows:,} × {columns}"
    with LocalStore(path, check_every=1e9) as store:
        memory = _child("memory", path, rows)
        pages = _pages(store, csv, folder, rows, columns)
        quiet, busy, refreshed = _reading_while(store, rows, lambda: _child("refresh", path, changed, "keep"))
        began = time.perf_counter()
        store.refresh()
        store.get_payload("Users", "u00000001")
        swap = (time.perf_counter() - began) * 1e3
        after = _point(store, rows, 20_000)
    building.add(
        label, f"{built['seconds']:.1f}", f"{built['cpu']:.1f}", f"{rows / built['seconds']:,.0f}",
        f"{built['size']:,.0f}", f"{built['peak']:,.0f}", f"{refreshed['seconds']:.2f}", f"{swap:.2f}",
        f"{memory['RssAnon']:.0f}", f"{memory['RssFile']:.0f}",
        PUBLISHED[5][rows].build if columns == 10 and rows in PUBLISHED[5] else "-",
    )  # fmt: skip
    limit = {(1_000_000, 10): 8, (10_000_000, 10): 90}.get((rows, columns))
    if limit is not None:
        took = built["seconds"]
        building.verdicts.append(Verdict(f"build {label} in {limit} s", f"{took:.1f} s", took <= limit))
    if (rows, columns) == (1_000_000, 10):
        took = refreshed["seconds"]
        building.verdicts.append(Verdict("refresh 1 % of 1,000,000 in 1 s", f"{took:.2f} s", took <= 1))
    if rows >= 10_000_000:
        held = memory["RssAnon"]
        building.verdicts.append(Verdict("400 MB a worker", f"{held:.0f} MB of its own", held <= 400))
    lookups = Table(f"Point lookups, {label}", ("when", "p50 µs", "p99 µs", "longest ms"))
    for when, times in (
        ("nothing else runs", quiet),
        ("while 1 % is refreshed", busy),
        ("after that, with a layer", after),
    ):
        lookups.add(when, *_percentiles(times), f"{max(times) * 1e3:.2f}")
    stall = max(busy) * 1e3
    lookups.verdicts.append(Verdict("no stall over 10 ms in a refresh", f"{stall:.1f} ms", stall <= 10))
    return [pages, lookups]


def _child(*arguments: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._store_work", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _point(store: LocalStore, rows: int, times: int) -> list[float]:
    choose, clock = random.Random(5), time.perf_counter
    taken: list[float] = []
    for _ in range(times):
        key = f"u{choose.randrange(rows):08}"
        began = clock()
        found = store.get_payload("Users", key)
        taken.append(clock() - began)
        if found is None:
            raise AssertionError("a record is missing")
    return taken


def _reading_while(
    store: LocalStore, rows: int, work: Callable[[], dict[str, float]]
) -> tuple[list[float], list[float], dict[str, float]]:
    """Latencies of lookups without and with another process at work, and what that one said."""
    _point(store, rows, 5_000)
    quiet = _point(store, rows, 50_000)
    busy: list[float] = []
    with _thread(work) as result:
        while not result:
            busy += _point(store, rows, 500)
            time.sleep(0.001)
    return quiet, busy, result[0]


@contextmanager
def _thread(work: Callable[[], dict[str, float]]) -> Generator[list[dict[str, float]]]:
    """Waits for a child process in a thread, which sleeps meanwhile."""
    import threading

    result: list[dict[str, float]] = []
    waiter = threading.Thread(target=lambda: result.append(work()))
    waiter.start()
    try:
        yield result
    finally:
        waiter.join()


def _percentiles(times: Sequence[float]) -> tuple[str, str]:
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2] * 1e6:,.1f}", f"{ordered[len(ordered) * 99 // 100] * 1e6:,.1f}"


def _pages(store: LocalStore, csv: Path, folder: Path, rows: int, columns: int) -> Table:
    names = list(COLUMNS)[:columns]
    samples = _samples(store, rows)
    # At ten million the others take many minutes to build; what more columns do to them, one table shows.
    beside = rivals() if columns == 10 and rows <= 1_000_000 else {}
    table = Table(
        f"Pages of {_LIMIT}, {rows:,} × {columns}",
        ("filters", "p50 µs", "p99 µs", "total p50 µs", *(f"{rival} p{n} µs" for rival in beside for n in (50, 99))),
    )
    filtered = [name for name in FILTERABLE if name in names]
    wanted: dict[str, list[dict[str, str]]] = {
        shape: [{name: sample[name] for name in attributes if name in sample} for sample in samples]
        for shape, attributes in _SHAPES.items()
        if len(attributes) == len(FILTERABLE) or set(attributes) <= set(names)
    }
    cells: dict[str, list[str]] = {}
    for shape, asked in wanted.items():
        pages = _timed(asked, lambda filters: store.page("Users", filters, limit=_LIMIT))
        totals = _timed(asked, lambda filters: store.page("Users", filters, limit=1, with_total=True))
        cells[shape] = [*_percentiles(pages), _percentiles(totals)[0]]
    for rival in beside.values():
        with rival(csv, folder, names, filtered, _LIMIT) as ask:
            for shape, asked in wanted.items():
                cells[shape] += _percentiles(_timed(asked, ask))
    for shape, row in cells.items():
        table.add(shape, *row)
    cursor = _deep(store)
    nothing: dict[str, str] = {}
    deep = _timed([nothing] * 200, lambda _: store.page("Users", {"city": "Berlin"}, limit=_LIMIT, cursor=cursor))
    table.add("a deep page of one city", *_percentiles(deep), *["-"] * (1 + 2 * len(beside)))
    table.notes.append(
        "The filters have the values of random rows (seeded), so every query matches. SQLite and"
        " PostgreSQL (over a socket, statements prepared, 2 GB of shared buffers) have an index for each filtered"
        " column and the same payload; DuckDB scans a table."
    )
    if beside and "PostgreSQL" not in beside:
        table.notes.append("PostgreSQL was not measured: its programs (Debian: postgresql) or psycopg are not here.")
    return table


def _timed(wanted: Sequence[Mapping[str, str]], ask: Callable[[Mapping[str, str]], object]) -> list[float]:
    clock = time.perf_counter
    times: list[float] = []
    until = clock() + _ROUND_SECONDS
    for filters in wanted:
        began = clock()
        ask(filters)
        times.append(clock() - began)
        if began > until:
            break
    return times


def _samples(store: LocalStore, rows: int) -> list[dict[str, str]]:
    choose = random.Random(7)
    found: list[dict[str, str]] = []
    for _ in range(300):
        payload = store.get_payload("Users", f"u{choose.randrange(rows):08}", "amperity")
        found.append(json.loads(payload or b"{}")["attributes"])
    return found


def _deep(store: LocalStore) -> str | None:
    """Nine tenths of the way through."""
    total = store.page("Users", {"city": "Berlin"}, limit=1, with_total=True).total or 0
    cursor = None
    for _ in range(total * 9 // 10 // 1000):
        cursor = store.page("Users", {"city": "Berlin"}, limit=1000, cursor=cursor).next_cursor
    return cursor


if __name__ == "__main__":
    main(run)
