"""The embedded Profile API over HTTP, with authentication on: latency at 1,000 requests/s, and how many it can answer.

Server and client share this machine's cores, over 127.0.0.1, without TLS.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.store import CollectionSpec, LocalStore, ProfileStore, build_store

from ._child import Child
from ._measure import Stopwatch
from ._measure import number as number_of
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
            with LocalStore(path) as store:
                targets = targets_of(store, *people_of(store, size, 500 if quick else 5_000))
            tables.append(asyncio.run(_in_process(path, size, targets, calls=50 if quick else 2_000)))
            for workers in (1, 2) if size < 10_000_000 else (1,):
                tables += _measure(path, size, workers, targets, seconds=0.3 if quick else 5.0)
    return tables


def people_of(store: ProfileStore, size: int, count: int) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Ids of people that are there, each another one; and the attributes of the first 500."""
    rng = random.Random(7)
    ids = [f"u{rng.randrange(size):08d}" for _ in range(count)]
    found: list[Mapping[str, Any]] = [
        record.attributes for id in ids[:500] if (record := store.get("People", id)) is not None
    ]
    return ids, found


def targets_of(store: ProfileStore, ids: Sequence[str], found: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each shape, requests about these people."""
    people = store.collection("People")
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
        targets[shape] = [f"{profiles}?limit=25{queries[n % len(queries)]}" for n in range(len(ids))]
    targets["total of 3 unselective filters"] = [
        f"{each}&with_total=true" for each in targets["3 filters, unselective (country, tier, opted_in)"]
    ]
    deep = store.page(people, {"country": "DE"}, limit=min(1000, people.rows // 10)).next_cursor
    targets["second page after 1,000 (country)"] = [
        f"{profiles}?limit=25&filter[country]=DE&next_token={quote(deep or '')}"
    ] * len(ids)
    return targets


def _query(filters: Mapping[str, Any]) -> str:
    return "".join(f"&filter[{name}]={quote(text_of(value), safe='')}" for name, value in filters.items())


def text_of(value: object) -> str:
    """A value as filters compare it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _in_process(path: Path, size: int, targets: Mapping[str, Sequence[str]], *, calls: int) -> Table:
    """The application called as a server calls it, without HTTP: what is ours of a request."""
    table = Table(f"In process: {size:,} profiles", ("Request", "CPU µs", "p50 µs", "p99 µs"))
    lines = [line.split(": ", 1) for line in HEADERS.splitlines()]
    headers = [(b"host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in lines)]
    statuses: set[int] = set()

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.add(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    app = ProfileAPI(path, keys=[ApiKey.from_secret(SECRET)])
    slowest: dict[str, tuple[float, str]] = dict.fromkeys(("look-up", "CPU", "p50", "p99", "t50", "t99"), (0.0, ""))
    for shape, asked in targets.items():
        scopes = [
            {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
                "path": unquote(path), "raw_path": path.encode(), "root_path": "", "query_string": query.encode(),
                "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            }
            for path, _, query in (target.partition("?") for target in asked)
        ]  # fmt: skip
        times: list[float] = []
        clock = time.perf_counter
        for number in range(calls // 10):  # warm
            await app(dict(scopes[-1 - number % len(scopes)]), receive, send)
        with Stopwatch(collect=True) as watch:
            for number in range(calls):
                scope = dict(scopes[number % len(scopes)])
                began = clock()
                await app(scope, receive, send)
                times.append((clock() - began) * 1e6)
        cpu, cut = watch.cpu / calls * 1e6, statistics.quantiles(times, n=100)
        table.add(shape, number_of(cpu), number_of(cut[49]), number_of(cut[98]))
        kinds = {"CPU": cpu}
        if shape.startswith("total"):
            kinds = {"t50": cut[49], "t99": cut[98]}
        elif "page" in shape or "filter" in shape:
            kinds |= {"p50": cut[49], "p99": cut[98]}
        else:
            kinds |= {"look-up": cpu}
        for kind, figure in kinds.items():
            slowest[kind] = max(slowest[kind], (figure, shape))
    if statuses != {200}:
        raise RuntimeError(f"answers with {statuses}")
    limits = {"look-up": 28, "CPU": 90} if size < 10_000_000 else {"p50": 150, "p99": 1000, "t50": 1000, "t99": 5000}
    said = {
        "look-up": "point look-up: CPU", "CPU": "every shape: CPU", "p50": "every page: p50", "p99": "every page: p99",
        "t50": "exact total: p50", "t99": "exact total: p99",
    }  # fmt: skip
    for kind, limit in limits.items():
        figure, shape = slowest[kind]
        table.verdicts.append(
            Verdict(f"{said[kind]} ≤ {limit:,} µs", f"{number_of(figure)} µs ({shape})", figure <= limit)
        )
    table.notes.append(
        "The ASGI application is called as a server calls it, with authentication, for a page of 25; a total includes"
        " such a page. CPU is that of the process, on average."
    )
    app.store.close()
    return table


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
            if published is not None:
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
        slowest, least, point = max(worst), min(over), table.rows[0]
        steady = Verdict(
            f"p99 of every shape ≤ 5 ms at {RATE:,} requests/s", f"{slowest[0]:.2f} ms ({slowest[1]})", slowest[0] <= 5
        )
        rate = Verdict("≥ 10 × the vendor's rate in every shape", f"{least[0]:.1f} × ({least[1]})", least[0] >= 10)
        table.verdicts += [steady, rate, Verdict("point look-ups p95 ≤ 5 ms", f"{point[2]} ms", float(point[2]) <= 5)]
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
