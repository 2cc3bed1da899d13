"""PostgreSQL as the store beside a bare driver: `PROFILE_ENRICH_SERVICES=1 python -m benchmarks.postgres 40000`.

It starts a server of its own, builds, and prints ratios side by side; no figure is asserted.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from profile_enrich.store import CollectionSpec
from profile_enrich.store.postgres import PostgresStore, build_database
from tests.services.postgres import Postgres

SETTINGS = "shared_buffers = 256MB\nmaintenance_work_mem = 256MB\nmax_wal_size = 4GB\n"


def rows(count: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {
            "id": f"u{n}",
            "email": f"user{n}@shop.example",
            "tier": ("gold", "silver", "bronze")[n % 3],
            "city": f"c{n % 500}",
            "orders": n % 97,
            "ltv": (n % 10007) / 4,
            "vip": n % 11 == 0,
            "updated": "2026-11-27 10:00:00",
            "note": "x" * 120,
            "version": 0,
        }


def microseconds(call: Callable[[int], object], times: int) -> float:
    call(0)
    began = time.perf_counter()
    for n in range(times):
        call(n)
    return (time.perf_counter() - began) / times * 1e6


def measure(server: Postgres, count: int) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    build_database(server.dsn(), [CollectionSpec("Users", rows(count), filterable=["email", "tier", "city"])])
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"build of {count:,}: {wall:.1f} s, of which {cpu:.1f} s are the client's CPU")
    table, size, heap = server.execute(
        "SELECT relname, pg_total_relation_size(oid), pg_relation_size(oid) FROM pg_class"
        " WHERE relname LIKE 'records%' AND relkind = 'r'"
    )[0]
    print(f"bytes a record: {int(str(size)) / count:.0f} with its indexes, {int(str(heap)) / count:.0f} without")
    chance = random.Random(1)
    keys = [f"u{chance.randrange(count)}" for _ in range(2000)]
    statement = f"SELECT record FROM profile_enrich.{table} WHERE key = %s".encode()
    with psycopg.connect(server.dsn(), autocommit=True) as bare, PostgresStore(server.dsn()) as store:
        for _ in range(3):
            driver = microseconds(lambda n: bare.execute(statement, (keys[n],)).fetchone(), 1000)
            ours = microseconds(lambda n: store.get_payload("Users", keys[n]), 1000)
            print(f"look-up {ours:.0f} µs; bare psycopg {driver:.0f} µs; ratio {ours / driver:.2f}")
        for what, call, times in (
            ("page of 25, two filters", lambda n: store.page("Users", {"city": f"c{n}", "tier": "gold"}), 100),
            ("page by e-mail address", lambda n: store.page("Users", {"email": f"user{n}@shop.example"}), 200),
            ("total of a third", lambda n: store.page("Users", {"tier": "gold"}, limit=1, with_total=True), 3),
            ("put of one record", lambda n: store.put_record("Users", f"w{n}", {"tier": "x"}), 100),
        ):
            print(f"{what}: {microseconds(call, times):,.0f} µs")


def main() -> None:
    server = Postgres(settings=SETTINGS)
    try:
        measure(server.create().start(), int(sys.argv[1]) if len(sys.argv) > 1 else 40_000)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
