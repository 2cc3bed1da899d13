"""Files: `enrich` from the local store and from the embedded server beside a join in DuckDB, and `export`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profile_enrich.store import CollectionSpec, LocalStore, build_store

from ._child import Child
from ._file_ways import FIELDS
from ._measure import number
from ._people import FILTERABLE, write_csv
from ._pipe import records
from ._profile_api import SECRET
from ._table import Table, Verdict, main

SINGLY = "a look-up for each record, store"
JOIN = "DuckDB joins the raw files"
BATCH, CALLS = "embedded server, --batch", "embedded server, a call a key"


def run(quick: bool) -> list[Table]:
    """A million profiles, 300,000 events of 60,000 customers; five million events for the memory."""
    people, events, keys = (2_000, 1_000, 100) if quick else (1_000_000, 300_000, 60_000)
    with tempfile.TemporaryDirectory(prefix="profile-enrich-bench-") as name:
        folder = Path(name)
        csv, store = folder / "people.csv", folder / "profiles.store"
        write_csv(csv, people, 12)
        with csv.open(encoding="utf-8") as file:
            filterable = [name for name in FILTERABLE if name in file.readline().strip().split(",")]
        build_store(store, [CollectionSpec("People", csv, filterable=filterable, key="id")])
        _write_events(folder / "events.csv", events, keys)
        _write_events(folder / "few.csv", max(keys, events // 10), keys // 10)
        with LocalStore(store) as opened:
            index = opened.collection("People").index_id
        with Child("_profile_api", str(store), "1") as api:
            base = f"http://127.0.0.1:{api.ready()['port']}/api"
            return [
                _enriching(folder, csv, store, base, events),
                _memory(folder, store, (1_000, 5_000) if quick else (50_000, 5_000_000), keys // 10),
                _exporting(folder, base, index, people),
            ]


def _write_events(path: Path, count: int, keys: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("event,user_id,amount\n")
        for row in records(count, keys):
            file.write(f"{row['event']},u{int(row['user_id'][1:]):08d},{row['amount']}\n")


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _way(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._file_ways", *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _enrich(source: Path, target: Path, *options: object) -> dict[str, Any]:
    return _way(
        "command", "enrich", source, "-o", target, "--key", "user_id", "--fields", ",".join(FIELDS), "--entity",
        "People", "--force", *options,
    )  # fmt: skip


def _enriching(folder: Path, csv: Path, store: Path, base: str, events: int) -> Table:
    table = Table(
        f"Enriching {events:,} events",
        ("way", "records", "to CSV: s", "records/s", "CPU s", "to JSONL: s", "records/s"),
    )
    census = ("--base-url", f"{base}/v1", "--api-key", SECRET)
    ways: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
        "enrich --store": lambda source, target: _enrich(source, target, "--store", store),
        SINGLY: lambda source, target: _way("singly", store, source, target),
        JOIN: lambda source, target: _way("duckdb", csv, source, target),
        BATCH: lambda source, target: _enrich(source, target, *census, "--batch"),
        CALLS: lambda source, target: _enrich(source, target, *census),
    }
    rates: dict[str, float] = {}
    for way, work in ways.items():
        source = folder / ("few.csv" if way in (SINGLY, CALLS) else "events.csv")
        rows = _lines(source) - 1
        cells: list[str] = []
        for suffix in (".csv", ".jsonl"):
            target = folder / f"out{suffix}"
            took = work(source, target)
            rates[way + suffix] = rows / took["seconds"]
            cells += [f"{took['seconds']:.2f}", f"{rows / took['seconds']:,.0f}"]
            cells += [f"{took['cpu']:.2f}"] if suffix == ".csv" else []
            if _lines(target) != rows + (suffix == ".csv"):
                raise RuntimeError(f"{way} wrote {_lines(target):,} lines for {rows:,} records")
            target.unlink()
        table.add(way, f"{rows:,}", *cells)
    for suffix in (".csv", ".jsonl"):
        ours = rates["enrich --store" + suffix]
        once, join = ours / rates[SINGLY + suffix], rates[JOIN + suffix] / ours
        batch = rates[BATCH + suffix] / rates[CALLS + suffix]
        table.verdicts += [
            Verdict(f"{suffix}: store ≥ 10 × a look-up for each record", f"{once:.1f} ×", once >= 10),
            Verdict(f"{suffix}: store within 4 × of DuckDB's join", f"{join:.1f} ×", join <= 4),
            Verdict(f"{suffix}: --batch ≥ 5 × a call a key", f"{batch:.1f} ×", batch >= 5),
        ]
    table.notes.append(
        "Each way in a process of its own, without Python's start. The two slow ways get fewer events of fewer"
        " customers."
    )
    return table


def _memory(folder: Path, store: Path, counts: tuple[int, int], keys: int) -> Table:
    table = Table("Memory of `enrich --store` over the length", ("records", "s", "peak growth MB"))
    peaks: list[float] = []
    for count in counts:
        source, target = folder / "long.csv", folder / "long-out.csv"
        _write_events(source, count, keys)
        took = _enrich(source, target, "--store", store)
        peaks.append(took["mb"])
        table.add(f"{count:,}", f"{took['seconds']:.1f}", number(took["mb"]))
        source.unlink()
        target.unlink()
    grown = peaks[1] - peaks[0]
    table.verdicts.append(
        Verdict(f"at most 40 MB more at {counts[1]:,} than at {counts[0]:,}", f"{grown:.0f} MB", grown <= 40)
    )
    return table


def _exporting(folder: Path, base: str, index: str, people: int) -> Table:
    table = Table(
        f"Export of {people:,} profiles from the embedded server", ("format", "s", "records/s", "client CPU s")
    )
    slowest = (float("inf"), "")
    for form in ("jsonl", "csv", "parquet"):
        target = folder / f"export.{form}"
        took = _way(
            "command", "export", "-o", target, "--base-url", base, "--tenant", "default", "--index", index, "--token",
            SECRET,
        )  # fmt: skip
        target.unlink()
        rate = people / took["seconds"]
        slowest = min(slowest, (rate, form))
        table.add(form, f"{took['seconds']:.1f}", f"{rate:,.0f}", f"{took['cpu']:.1f}")
    rate, form = slowest
    table.verdicts.append(Verdict("export ≥ 100,000 records/s", f"{rate:,.0f} ({form})", rate >= 100_000))
    return table


if __name__ == "__main__":
    main(run)
