"""PostgreSQL's own behaviour: pools, timeouts, notifications, interrupted transactions."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from profile_enrich.errors import ConfigurationError, StoreBusy, StoreError
from profile_enrich.server import ProfileAPI
from profile_enrich.store import CollectionSpec, RefreshSpec
from profile_enrich.store.postgres import PostgresStore, build_database, drop_database_collections
from tests.services.postgres import PgBouncer, Postgres
from tests.store.backends import PostgresBackend

ROWS = [{"id": f"u{n}", "tier": "gold", "n": n} for n in range(50)]


@pytest.fixture
def backend(postgres: Postgres) -> PostgresBackend:
    made = PostgresBackend(postgres.dsn())
    made.build([CollectionSpec("Users", ROWS, filterable=["tier"])])
    return made


def tables(postgres: Postgres, schema: str) -> list[object]:
    return [row[0] for row in postgres.execute(f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")]


def test_D4_a_write_is_noticed_at_once_by_the_other_processes(backend: PostgresBackend) -> None:
    """Changes arrive by notification: `check_every` is far longer than the test."""
    with backend.open(check_every=300.0) as one, backend.open(check_every=300.0) as other:
        assert other.generation == 1
        end = time.monotonic() + 30
        while other.generation == 1:  # a write before the listener is connected is not notified
            assert time.monotonic() < end
            one.put_record("Users", "u1", {"tier": "new"})
            time.sleep(0.05)
        found = other.get("Users", "u1")
        assert found is not None
        assert found.attributes["tier"] == "new"


def test_D4_through_a_pooler_it_looks_and_prepares_nothing(backend: PostgresBackend, pgbouncer: PgBouncer) -> None:
    through = PostgresBackend(pgbouncer.dsn())
    through.schema = backend.schema
    with through.open(check_every=0.05) as pooled, backend.open() as direct:
        for n in range(60):  # prepared statements would fail from the sixth call: the pooler switches sessions
            assert pooled.get("Users", f"u{n % 50}") is not None
        assert pooled._database.primary._free[-1].pooled  # type: ignore[attr-defined]
        assert not direct._database.primary.run(lambda c: c.pooled, again=True)  # type: ignore[attr-defined]
        direct.put_record("Users", "late", {"tier": "x"})
        end = time.monotonic() + 30
        while pooled.generation == 1:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_D4_statements_are_prepared_without_a_pooler(backend: PostgresBackend) -> None:
    """By default, and with `prepare=True`."""
    for prepare in (None, True):
        with backend.open(prepare=prepare) as store:
            for n in range(12):  # `psycopg` prepares a statement when it is repeated for the fifth time
                assert store.get("Users", f"u{n}") is not None
            assert _prepared(store) > 0


def test_D4_a_newer_pooler_carries_prepared_statements(backend: PostgresBackend, pgbouncer: PgBouncer) -> None:
    if not pgbouncer.prepares:
        pytest.skip("pgbouncer before 1.21 does not carry prepared statements; install a newer one")
    through = PostgresBackend(pgbouncer.dsn())
    through.schema = backend.schema
    with through.open(prepare=True) as pooled:

        def read() -> None:
            for n in range(100):
                assert pooled.get("Users", f"u{n % 50}") is not None

        with ThreadPoolExecutor(6) as threads:  # more than the pooler's sessions
            for done in [threads.submit(read) for _ in range(6)]:
                done.result()
        assert pooled._database.primary._free[-1].pooled  # type: ignore[attr-defined]
        assert _prepared(pooled) > 0


def _prepared(store: Any) -> int:
    """Return the number of prepared statements on a server session that the store uses."""
    counted = b"SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%records%'"
    return int(store._database.primary.run(lambda c: c.execute(counted).fetchone()[0], again=True))


def test_D5_the_pool_is_bounded_and_a_caller_does_not_wait_for_ever(
    backend: PostgresBackend, postgres: Postgres
) -> None:
    with backend.open(pool_size=2, wait=0.2, statement_timeout=3.0) as store:
        store.get("Users", "u1")
        release, held = threading.Event(), threading.Barrier(3)
        holders = [threading.Thread(target=_hold, args=(store, release, held)) for _ in range(2)]
        for holder in holders:
            holder.start()
        held.wait(30)
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="in use"):
            store.get("Users", "u1")
        assert 0.1 < time.monotonic() - began < 20
        release.set()
        for holder in holders:
            holder.join()
        threads = [threading.Thread(target=store.get, args=("Users", "u1")) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        named = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'profile_enrich' AND query LIKE "
        assert int(str(postgres.execute(f"{named}'%{backend.schema}.records%'")[0][0])) <= 2


def _hold(store: Any, release: threading.Event, held: threading.Barrier) -> None:
    with store._database.primary.connection():
        held.wait(30)
        release.wait(60)


@pytest.mark.parametrize("name", ["u.csv", "u.jsonl"])
@pytest.mark.parametrize("work", ["build", "refresh"])
def test_E5_an_input_that_is_replaced_while_it_is_read_changes_nothing(
    backend: PostgresBackend, tmp_path: Path, name: str, work: str
) -> None:
    """E5: another file of the same size is moved over it, with the time restored; only its bytes differ."""
    source = tmp_path / name
    line = "u{0:04},t{0:04}\n" if name == "u.csv" else '{{"id":"u{0:04}","tier":"t{0:04}"}}\n'
    lines = [line.format(n) for n in range(3_000)]
    head = ["id,tier\n"] if name == "u.csv" else []
    source.write_text("".join(head + lines))
    backend.build([CollectionSpec("Users", source)], max_shrink=1.0)
    source.write_text("".join(head + lines).replace("t0", "x0"))
    facts = source.stat()
    changed: list[bool] = []

    def once(_: object) -> None:
        if not changed:
            changed.append(True)
            (tmp_path / "other").write_text("".join(head + lines).replace("t0", "y0"))
            (tmp_path / "other").replace(source)
            os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    with backend.open() as store:
        before = store.generation
        run: Any = backend.build if work == "build" else backend.refresh
        spec = CollectionSpec("Users", source) if work == "build" else RefreshSpec("Users", source)
        with pytest.raises(StoreError, match="changed while it was read"):
            run([spec], progress=once)
        assert changed
        found = store.get("Users", "u0007")
        assert found is not None
        assert (store.generation, found.attributes["tier"]) == (before, "t0007")


def test_D5_a_slow_statement_is_ended_and_the_pool_goes_on(backend: PostgresBackend, postgres: Postgres) -> None:
    with backend.open(statement_timeout=0.3, pool_size=1) as store:
        table = tables(postgres, backend.schema)
        records = next(str(name) for name in table if str(name).startswith("records"))
        with psycopg.connect(postgres.dsn()) as locker:
            locker.execute(f"LOCK TABLE {backend.schema}.{records} IN ACCESS EXCLUSIVE MODE".encode())
            began = time.monotonic()
            with pytest.raises(StoreError, match="too long"):
                store.get("Users", "u1")
            assert time.monotonic() - began < 20
        assert store.get("Users", "u1") is not None


def test_D5_a_frozen_server_costs_the_timeout(postgres: Postgres) -> None:
    server = Postgres().create().start()
    try:
        build_database(server.dsn(), [CollectionSpec("Users", ROWS)])
        with PostgresStore(server.dsn(), statement_timeout=0.5, check_every=0.1) as store:
            assert store.get("Users", "u1") is not None
            server.signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(StoreError):
                store.get("Users", "u1")
            assert time.monotonic() - began < 10  # the statement's time, and that of one connection
            assert store.collections()[0].name == "Users"  # other work continues
            server.signal(signal.SIGCONT)
            end = time.monotonic() + 10
            while True:
                try:
                    assert store.get("Users", "u1") is not None
                    break
                except StoreError:
                    assert time.monotonic() < end
    finally:
        server.remove()


def test_D2_a_build_that_is_killed_leaves_nothing_behind(backend: PostgresBackend, postgres: Postgres) -> None:
    before = tables(postgres, backend.schema)
    script = (
        "import sys, time\n"
        "from profile_enrich.store import CollectionSpec\n"
        "from profile_enrich.store.postgres import build_database\n"
        "def rows():\n"
        "    for n in range(10**9):\n"
        "        if n == 2000: print('ready', flush=True)\n"
        "        yield {'id': n}\n"
        f"build_database({postgres.dsn()!r}, [CollectionSpec('Users', rows())], schema={backend.schema!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(StoreBusy, match="running"):
            backend.build([CollectionSpec("Users", ROWS)])
        process.send_signal(signal.SIGKILL)
    with backend.open() as store:
        assert store.generation == 1
        assert store.get("Users", "u7") is not None
    end = time.monotonic() + 10
    while tables(postgres, backend.schema) != before:
        assert time.monotonic() < end
    assert backend.build([CollectionSpec("Users", ROWS)]).generation == 2


@pytest.mark.parametrize("how", ["build", "refresh"])
def test_D2_what_is_written_while_a_build_reads_is_newer_and_kept(backend: PostgresBackend, how: str) -> None:
    with backend.open() as store:

        def rows() -> Iterator[dict[str, Any]]:
            yield from ROWS[:25]
            store.put_record("Users", "u1", {"tier": "newer"})
            store.put_record("Users", "u30", {"tier": "newer"})
            store.put_record("Users", "added", {"tier": "newer"})
            store.delete_record("Users", "u2")
            yield from ROWS[25:]
            yield {"id": "of the build", "tier": "gold"}

        if how == "build":
            backend.build([CollectionSpec("Users", rows(), filterable=["tier"])])
        else:
            backend.refresh([RefreshSpec("Users", rows(), vanished="delete")])
        store.refresh()
        page = store.page("Users", {"tier": "newer"}, with_total=True)
        assert sorted(json.loads(each)["id"] for each in page.payloads) == ["added", "u1", "u30"]
        assert page.total == 3
        assert store.get("Users", "u2") is None
        assert store.get("Users", "of the build") is not None
        every = [json.loads(each)["id"] for each in store.page("Users", limit=1000).payloads]
        assert len(every) == len(set(every)) == store.collection("Users").rows == 51


def test_D2_a_build_that_would_lose_much_keeps_what_is_there(backend: PostgresBackend) -> None:
    for attempt in (
        lambda loss: backend.build([CollectionSpec("Users", ROWS[:30])], max_shrink=loss),
        lambda loss: backend.refresh([RefreshSpec("Users", ROWS[:30], vanished="delete")], max_shrink=loss),
    ):
        with pytest.raises(StoreError, match="would lose 20 of its 50 records, more than 20%"):
            attempt(0.2)
    with backend.open() as store:
        assert store.collection("Users").rows == 50
        backend.refresh([RefreshSpec("Users", ROWS[:30], vanished="delete")], max_shrink=0.4)
        store.refresh()
        assert store.collection("Users").rows == 30


def test_D3_a_writer_waits_for_another_and_then_says_so(backend: PostgresBackend, postgres: Postgres) -> None:
    with backend.open() as store, psycopg.connect(postgres.dsn()) as other:
        other.execute(f"SELECT 1 FROM {backend.schema}.collection FOR UPDATE".encode())
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            store.put_record("Users", "u1", {}, wait=0.3)
        assert 0.2 < time.monotonic() - began < 20
        assert store.get("Users", "u1") is not None


def test_D3_writers_at_once_lose_nothing(backend: PostgresBackend) -> None:
    with backend.open(pool_size=8) as store:
        threads = [
            threading.Thread(target=lambda at=at: [store.put_record("Users", f"w{at}-{n}", {}) for n in range(10)])
            for at in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.collection("Users").rows == 130
        assert store.generation == 81
        changes = store.changes_since("Users", 1)
        assert changes is not None
        assert len(changes.written) == 80
        places = store.page("Users", limit=1000).payloads
        assert len({json.loads(each)["id"] for each in places}) == 130


def test_collections_are_dropped_with_their_records(backend: PostgresBackend, postgres: Postgres) -> None:
    backend.build([CollectionSpec("Other", ROWS)])
    drop_database_collections(postgres.dsn(), ["Users"], schema=backend.schema)
    with backend.open() as store:
        assert [each.name for each in store.collections()] == ["Other"]
        assert store.find(1) is None
    assert len([name for name in tables(postgres, backend.schema) if str(name).startswith("records")]) == 1
    with pytest.raises(StoreError, match="'Users'"):
        drop_database_collections(postgres.dsn(), ["Users"], schema=backend.schema)


def _child(store: Any, answers: Any) -> None:
    answers.put(store.get("Users", "u1") is not None)


def test_D4_a_store_that_was_used_survives_a_fork(backend: PostgresBackend) -> None:
    with backend.open() as store:
        assert store.get("Users", "u1") is not None
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=_child, args=(store, answers))
        child.start()
        child.join(20)
        assert answers.get(timeout=30) is True
        assert store.get("Users", "u2") is not None  # the child closed nothing of the parent's


def test_errors_name_the_remedy_and_hold_no_secret(postgres: Postgres) -> None:
    for url, message in (
        ("postgresql://owner:planted@127.0.0.1:1/x", "nothing listens there"),
        (postgres.dsn(database="nowhere"), "no such database or role"),
        (postgres.dsn(), "there is no store in the schema profile_enrich .* `profile-enrich index build --database`"),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            PostgresStore(url)
        assert "planted" not in str(caught.value)
        assert caught.value.__cause__ is None
    for wrong in ("", None, "not a url and planted", "mysql://planted"):
        with pytest.raises(ConfigurationError, match="PostgreSQL URL") as refused:
            PostgresStore(wrong)  # type: ignore[arg-type]
        assert "planted" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="schema"):
        PostgresStore(postgres.dsn(), schema="a; DROP TABLE x")
    with pytest.raises(ConfigurationError, match="pool_size"):
        PostgresStore(postgres.dsn(), pool_size=0)


async def test_D4_the_change_feed_of_the_server(backend: PostgresBackend) -> None:
    with backend.open(check_every=0.1) as store, backend.open() as writer:
        api = ProfileAPI(store, no_auth=True)
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        sent = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await sent.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            heard.put_nowait(message.get("body", b""))

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/entities/1/changes",
            "headers": [],
            "query_string": b"",
        }
        stream = asyncio.create_task(api(scope | {"raw_path": scope["path"].encode()}, receive, send))  # type: ignore[attr-defined]
        await asyncio.wait_for(heard.get(), 30)
        assert b"event: ready" in await asyncio.wait_for(heard.get(), 30)
        await asyncio.to_thread(writer.put_record, "Users", "u9", {"tier": "x"})
        assert b'"u9"' in await asyncio.wait_for(heard.get(), 30)
        await asyncio.to_thread(backend.build, [CollectionSpec("Users", ROWS)])
        assert b"event: reset" in await asyncio.wait_for(heard.get(), 30)
        sent.set()
        await asyncio.wait_for(stream, 30)
        api.close()
