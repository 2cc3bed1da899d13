"""PostgreSQL as the store, beside the bare driver and over HTTP beside FastAPI and asyncpg written by hand.

`PROFILE_ENRICH_SERVICES=1 python -m benchmarks.postgres 1000000`; with `--library`, without HTTP. It starts a server of
its own, and prints ratios side by side; no figure is asserted.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from profile_enrich.store import CollectionSpec
from profile_enrich.store.postgres import PostgresStore, build_database
from tests.services.postgres import Postgres

from ._child import Child
from ._measure import number
from ._people import COLUMNS, FILTERABLE, write_csv
from ._rivals import load_postgres
from ._table import Table
from .alternatives import POSTGRES, filters_by_hand
from .server import HEADERS, SHAPES, people_of, targets_of, text_of

SETTINGS = "shared_buffers = 1GB\nmaintenance_work_mem = 512MB\nmax_wal_size = 8GB\neffective_cache_size = 6GB\n"
WIDTH = 12
RATE = 100
CONNECTIONS = 16


def microseconds(call: Callable[[int], object], times: int) -> float:
    call(0)
    began = time.perf_counter()
    for n in range(times):
        call(n)
    return (time.perf_counter() - began) / times * 1e6


def build(server: Postgres, people: Path, count: int) -> Table:
    """Fill the library's tables."""
    table = Table(f"PostgreSQL: build of {count:,} records of {WIDTH} columns", ("what", "measured"))
    filterable = [name for name in FILTERABLE if name in list(COLUMNS)[:WIDTH]]
    began, cpu = time.perf_counter(), time.process_time()
    build_database(server.dsn(), [CollectionSpec("People", people, filterable=filterable, key="id")])
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    table.add("build", f"{wall:.1f} s, of which {cpu:.1f} s are the client's CPU")
    ((size, heap),) = server.execute(
        "SELECT pg_total_relation_size(oid), pg_relation_size(oid) FROM pg_class"
        " WHERE relname LIKE 'records%' AND relkind = 'r'"
    )
    table.add("bytes a record with its indexes", f"{int(str(size)) / count:.0f}")
    table.add("bytes a record without them", f"{int(str(heap)) / count:.0f}")
    return table


def library(server: Postgres, count: int) -> Table:
    """The store's methods, called one after another."""
    table = Table(f"PostgreSQL: {count:,} records, one caller", ("what", "measured"))
    chance = random.Random(1)
    keys = [f"u{chance.randrange(count):08d}" for _ in range(2000)]
    ((name,),) = server.execute("SELECT relname FROM pg_class WHERE relname LIKE 'records%' AND relkind = 'r'")
    statement = f"SELECT record FROM profile_enrich.{name} WHERE key = %s".encode()
    with psycopg.connect(server.dsn(), autocommit=True) as bare, PostgresStore(server.dsn()) as store:
        for _ in range(3):
            driver = microseconds(lambda n: bare.execute(statement, (keys[n],)).fetchone(), 1000)
            ours = microseconds(lambda n: store.get_payload("People", keys[n]), 1000)
            table.add("lookup; bare psycopg", f"{ours:.0f} µs; {driver:.0f} µs; {ours / driver:.2f} ×")
        some = [store.get("People", key) for key in keys[:200]]
        emails = [record.attributes["email"] for record in some if record is not None]
        calls: list[tuple[str, Callable[[int], object], int]] = [
            (
                "page of 25, two filters",
                lambda n: store.page("People", {"city": f"Berlin {n % 60}", "tier": "gold"}),
                60,
            ),
            ("page by e-mail address", lambda n: store.page("People", {"email": emails[n]}), 100),
            ("total of an unselective filter", lambda n: store.page("People", {"tier": "gold"}, with_total=True), 3),
            ("put of one record", lambda n: store.put_record("People", f"w{n}", {"tier": "gold"}), 100),
        ]
        for what, call, times in calls:
            table.add(what, f"{microseconds(call, times) / 1000:,.2f} ms")
    return table


def over_http(server: Postgres, people: Path, count: int, seconds: float) -> Table:
    """Both servers with one worker each, over the same rows in the same database, asked in turns."""
    names = list(COLUMNS)[:WIDTH]
    load_postgres(server.dsn(), people, names, [name for name in FILTERABLE if name in names])
    with PostgresStore(server.dsn()) as store:
        ids, found = people_of(store, count, 500)
        targets = targets_of(store, ids, found)
    by_hand_targets = {"record (Census)": [f"/record/{id}" for id in ids]}
    total = "total of 3 unselective filters"
    for shape, filtered in {**SHAPES, total: SHAPES["3 filters, unselective (country, tier, opted_in)"]}.items():
        filters = [{name: text_of(row[name]) for name in filtered if row.get(name) is not None} for row in found]
        by_hand_targets[shape] = filters_by_hand(filters, total=shape == total)[POSTGRES]
    columns = ("Request", "a second", "by hand", "ratio", "p50 ms", "by hand", "p99 ms", "by hand", "failed")
    table = Table(f"PostgreSQL over HTTP: {count:,} records, one worker", columns)
    table.notes.append(
        f"The highest rate of {CONNECTIONS} busy connections in {seconds:g} s; then latencies at {RATE} requests/s in"
        " an open loop for as long, from the scheduled time of each request. By hand: FastAPI and asyncpg, "
        "with an index for each column that is filtered by. PostgreSQL, both servers and the client share two cores."
    )
    with (
        Child("_profile_api", server.dsn(), "1") as ours,
        Child("_alternatives", "postgresql", server.dsn()) as by_hand,
        Child("_open_loop") as client,
    ):
        ports = [ours.ready()["port"], by_hand.ready()["port"]]
        client.ready()
        for shape in by_hand_targets:
            most: list[dict[str, Any]] = []
            steady: list[dict[str, Any]] = []
            for port, asked in zip(ports, (targets[shape], by_hand_targets[shape]), strict=True):
                order = {"port": port, "headers": HEADERS, "connections": CONNECTIONS}
                client.ask(do="closed", targets=asked, seconds=min(0.3, seconds), **order)  # warm
                most.append(client.ask(do="closed", targets=asked, seconds=seconds, **order))
                wanted = [asked[n % len(asked)] for n in range(max(10, int(RATE * seconds)))]
                steady.append(client.ask(do="open", targets=wanted, rate=RATE, **order))
            table.add(
                shape,
                *(f"{each['per_second']:,.0f}" for each in most),
                f"{number(most[0]['per_second'] / max(most[1]['per_second'], 1e-9))} ×",
                *(f"{each['p50']:.1f}" for each in steady),
                *(f"{each['p99']:.1f}" for each in steady),
                " and ".join(str(m["failed"] + s["failed"]) for m, s in zip(most, steady, strict=True)),
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=40_000)
    parser.add_argument("--library", action="store_true", help="without HTTP")
    options = parser.parse_args()
    server = Postgres(settings=SETTINGS)
    try:
        server.create().start()
        with tempfile.TemporaryDirectory() as directory:
            people = Path(directory, "people.csv")
            write_csv(people, options.count, WIDTH)
            print(build(server, people, options.count).text(), flush=True)
            print(library(server, options.count).text(), flush=True)
            if not options.library:
                seconds = 2.0 if options.count >= 100_000 else 0.5
                print(over_http(server, people, options.count, seconds).text(), flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
