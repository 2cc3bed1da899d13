"""The embedded Profile API over HTTP, with authentication on: latency at 1,000 requests/s, and how many it can answer.

Server and client share this machine's cores, over 127.0.0.1, without TLS.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from profile_enrich.store import CollectionSpec, LocalStore, build_store

from ._child import Child
from ._people import FILTERABLE, write_csv
from ._profile_api import SECRET
from ._published import NOTE, PUBLISHED
from ._table import Table, Verdict, main

RATE = 1000
HEADERS = f"authorization: Bearer {SECRET}\r\namperity-tenant: default\r\napi-version: 2025-07-31\r\n"

SHAPES: dict[str, tuple[str, ...]] = {
    "page of 25, no filter": (),
    "1 filter, selective (email)": ("email",),
    "1 filter, unselective (country)": ("country",),
    "3 filters, unselective (country, tier, opted_in)": ("country", "tier", "opted_in"),
    "3 filters (first_name, surname, city)": ("first_name", "surname", "city"),
    "5 filters": ("first_name", "city", "country", "tier", "opted_in"),
    "10 filters": FILTERABLE,
}
FILTERS = {shape: len(names) for shape, names in SHAPES.items()}
"""How many filters a shape has, as the vendor counts."""


def run(quick: bool = False) -> list[Table]:
    """Builds the store (1 M profiles of 10 columns; BIG=1: 10 M as well) and asks servers with one and two workers."""
    sizes = [2_000] if quick else [1_000_000, *([10_000_000] if os.environ.get("BIG") else [])]
    tables: list[Table] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            people, path = Path(directory, "people.csv"), Path(directory, "profiles.store")
            write_csv(people, size, 12)
            with people.open(encoding="utf-8") as file:
                columns = file.readline().strip().split(",")
            filterable = [name for name in FILTERABLE if name in columns]
            build_store(path, [CollectionSpec("People", people, filterable=filterable, key="id")])
            people.unlink()
            targets = _targets(path, size, 500 if quick else 5_000)
            for workers in (1, 2):
                tables += _measure(path, size, workers, targets, seconds=0.3 if quick else 5.0)
    return tables


def _targets(path: Path, size: int, count: int) -> dict[str, list[str]]:
    """For each shape, requests about people that are there, each about another one."""
    rng = random.Random(7)
    with LocalStore(path) as store:
        people = store.collection("People")
        ids = [f"u{rng.randrange(size):08d}" for _ in range(count)]
        found = [record.attributes for id in ids[:500] if (record := store.get(people, id)) is not None]
        profiles = f"/api/indexes/{people.index_id}/profiles"
        targets = {
            "record (Census)": [f"/api/v1/entities/{people.id}/record?record_id={id}" for id in ids],
            "profile (Amperity)": [f"{profiles}/{id}" for id in ids],
        }
        for shape, names in SHAPES.items():
            known = [name for name in names if name in people.filterable]
            if len(known) < len(names) and len(names) < len(FILTERABLE):
                continue
            wanted = [{name: row[name] for name in known if row[name] is not None} for row in found]
            queries = [_query(each) for each in wanted]
            targets[shape] = [f"{profiles}?limit=25{queries[n % len(queries)]}" for n in range(count)]
        targets["total of 3 unselective filters"] = [
            f"{each}&with_total=true" for each in targets["3 filters, unselective (country, tier, opted_in)"]
        ]
        deep = store.page(people, {"country": "DE"}, limit=min(1000, size // 10)).next_cursor
        targets["second page after 1,000 (country)"] = [
            f"{profiles}?limit=25&filter[country]=DE&next_token={quote(deep or '')}"
        ] * count
    return targets


def _query(filters: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return "".join(f"&filter[{name}]={quote(text(value), safe='')}" for name, value in filters.items())


def _measure(path: Path, size: int, workers: int, targets: dict[str, list[str]], *, seconds: float) -> list[Table]:
    title = f"HTTP: {size:,} profiles, {workers} worker{'s' * (workers > 1)}"
    table = Table(
        title,
        (
            "Request",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "max ms",
            "failed",
            "most a second",
            "client CPU",
            "vendor p95 ms",
            "vendor a second",
        ),
        notes=[
            f"{RATE:,} requests/s in an open loop for {seconds:g} s a row over 64 connections, with latencies from "
            "the scheduled time of each request; then the highest rate of 64 busy connections. Authentication is on;"
            " each request is about another person. If the client's CPU is near 100 %, the row measures the client."
        ],
    )
    worst: list[tuple[float, str]] = []
    over: list[tuple[float, str]] = []
    with Child("_profile_api", str(path), str(workers)) as api, Child("_open_loop") as client:
        greeting = api.ready()
        port = greeting["port"]
        client.ready()
        for shape, asked in targets.items():
            order = {"port": port, "headers": HEADERS, "connections": 64}
            client.ask(do="closed", targets=asked, seconds=min(0.3, seconds), **order)  # warm
            wanted = [asked[n % len(asked)] for n in range(max(1, int(RATE * seconds)))]
            steady = client.ask(do="open", targets=wanted, rate=RATE, **order)
            most = client.ask(do="closed", targets=asked, seconds=min(3.0, seconds), **order)
            worst.append((steady["p99"], shape))
            published = PUBLISHED.get(FILTERS.get(shape, -1), {}).get(size)
            if published is not None and FILTERS[shape] >= 3:
                over.append((most["per_second"] / published.rate, shape))
            table.add(
                shape,
                *(f"{steady[name]:.2f}" for name in ("p50", "p95", "p99", "max")),
                steady["failed"] + most["failed"],
                f"{most['per_second']:,.0f}",
                f"{most['cpu']:.0%}",
                *(("-", "-") if published is None else (f"{published.p95:,}", f"{published.rate:,}")),
            )
        table.notes.append(_memory(greeting["pid"], workers))
    if size >= 1_000_000:
        slowest = max(worst)
        if size == 1_000_000:
            table.verdicts.append(
                Verdict(
                    "p99 of every shape ≤ 5 ms at 1,000 requests/s",
                    f"{slowest[0]:.2f} ms ({slowest[1]})",
                    slowest[0] <= 5,
                )
            )
        least = min(over)
        table.verdicts.append(
            Verdict(
                "≥ 10 × the vendor's rate with three filters and more",
                f"{least[0]:.1f} × ({least[1]})",
                least[0] >= 10,
            )
        )
        point = table.rows[0]
        table.verdicts.append(Verdict("point lookups p95 ≤ 5 ms", f"{point[2]} ms", float(point[2]) <= 5))
    table.notes.append(" ".join(NOTE.split()))
    return [table]


def _memory(pid: int, workers: int) -> str:
    """What the serving processes hold, without the pages of the store that are mapped: those are the system's cache."""
    pids = [pid] if workers == 1 else [int(each) for each in _children(pid)]
    parts: list[str] = []
    for each in pids:
        status = Path(f"/proc/{each}/status")
        if not status.exists():
            return "Memory: this system does not tell."
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        own, mapped = (int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
        parts.append(f"{own:,.0f} MB of its own and {mapped:,.0f} MB of mapped files")
    return f"Memory afterwards, by worker: {'; '.join(parts)}."


def _children(pid: int) -> list[str]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return file.read_text().split() if file.exists() else []


if __name__ == "__main__":
    main(run)
