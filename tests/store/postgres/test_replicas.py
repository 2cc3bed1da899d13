"""Replicas, failover, TLS."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import trustme

from profile_enrich.errors import StoreError
from profile_enrich.store import CollectionSpec
from profile_enrich.store.postgres import PostgresStore, build_database
from tests.services.postgres import Postgres, _user

ROWS = [{"id": f"u{n}", "tier": "gold"} for n in range(50)]


@pytest.fixture
def pair() -> Generator[tuple[Postgres, Postgres]]:
    with contextlib.ExitStack() as stack:
        primary = Postgres(settings="synchronous_standby_names = ''\n").create()
        stack.callback(primary.remove)
        primary.start()
        standby = primary.standby()
        stack.callback(standby.remove)
        build_database(primary.dsn(), [CollectionSpec("Users", ROWS, filterable=["tier"])])
        wait_until_same(primary, standby)
        yield primary, standby


def wait_until_same(primary: Postgres, standby: Postgres) -> None:
    end = time.monotonic() + 20
    statement = "SELECT generation FROM profile_enrich.store"
    while True:
        with contextlib.suppress(Exception):
            if primary.execute(statement) == standby.execute(statement):
                return
        assert time.monotonic() < end
        time.sleep(0.05)


def test_D7_reads_go_to_the_replica_and_what_was_just_written_to_the_primary(pair: tuple[Postgres, Postgres]) -> None:
    primary, standby = pair
    with PostgresStore(primary.dsn(), replicas=[standby.dsn()], check_every=0.1) as store:
        for n in range(20):
            assert store.get("Users", f"u{n}") is not None
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%records_%' AND pid <> pg_backend_pid()"
        assert standby.execute(asked) == [(1,)]
        assert primary.execute(asked) == [(0,)]
        standby.execute("SELECT pg_wal_replay_pause()")
        for version in range(10):
            store.put_record("Users", "u1", {"tier": f"v{version}"})
            record = store.get("Users", "u1")
            assert record is not None
            assert record.attributes["tier"] == f"v{version}"
            assert len(store.page("Users", {"tier": f"v{version}"}).payloads) == 1
        # A rebuild that the replica has not replayed: its table does not exist there.
        build_database(primary.dsn(), [CollectionSpec("Users", [*ROWS, {"id": "new"}])])
        store.refresh()
        assert store.get("Users", "new") is not None
        standby.execute("SELECT pg_wal_replay_resume()")


def test_D7_a_replica_that_dies_is_passed_over(pair: tuple[Postgres, Postgres]) -> None:
    primary, standby = pair
    with PostgresStore(primary.dsn(), replicas=[standby.dsn()], check_every=0.1) as store:
        assert store.get("Users", "u1") is not None
        standby.kill()
        for n in range(20):
            assert store.get("Users", f"u{n}") is not None


def test_D8_primary_killed_and_replica_promoted(pair: tuple[Postgres, Postgres]) -> None:
    """Reads continue throughout, writes resume on the new primary, and acknowledged writes are never lost."""
    primary, standby = pair
    both = f"postgresql://owner@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
    failed: list[str] = []
    wrong: list[str] = []
    expected = {"tier": "gold"}
    stop = threading.Event()
    with PostgresStore(both, replicas=[standby.dsn()], check_every=0.1) as store:
        store.put_record("Users", "u1", {"tier": "acknowledged"})
        expected = {"id": "u1", "tier": "acknowledged"}
        wait_until_same(primary, standby)

        def read() -> None:
            while not stop.is_set():
                try:
                    record = store.get("Users", "u1")
                except StoreError as error:
                    failed.append(str(error))
                    continue
                if record is None or record.attributes != expected:
                    wrong.append(repr(record))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            time.sleep(0.3)
            primary.kill()
            time.sleep(0.5)
            with pytest.raises(StoreError):
                store.put_record("Users", "u2", {"tier": "x"}, wait=0.5)
            standby.promote()
            end = time.monotonic() + 20
            while True:
                try:
                    store.put_record("Users", "u2", {"tier": "after"}, wait=1.0)
                    break
                except StoreError:
                    assert time.monotonic() < end
                    time.sleep(0.1)
            after = store.get("Users", "u2")
            assert after is not None
            assert after.attributes["tier"] == "after"
        finally:
            stop.set()
            reader.join()
    assert wrong == []
    assert failed == []


def test_D8_a_history_that_lost_something_is_announced_as_a_reset(pair: tuple[Postgres, Postgres]) -> None:
    primary, standby = pair
    both = f"postgresql://owner@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
    with PostgresStore(both, check_every=0.1) as store:
        standby.execute("SELECT pg_wal_replay_pause()")
        store.put_record("Users", "u1", {"tier": "lost"})
        seen = store.generation
        standby.kill()  # it serves what it has replayed; the promotion below discards what it only received
        shutil.rmtree(standby.data / "pg_wal" / "archive_status", ignore_errors=True)
        standby.start()
        primary.kill()
        standby.promote()
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(StoreError):
                store.refresh()
                changes = store.changes_since("Users", seen + 1)
                break
            assert time.monotonic() < end
            time.sleep(0.1)
        assert changes is None
        assert store.get("Users", "u1") is not None


def test_D9_verify_full_refuses_another_servers_certificate(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "other.pem")
    settings = "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n"
    server = Postgres(settings=settings, hba="hostssl all all 127.0.0.1/32 trust\n").create()
    try:
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(server.data / "server.key")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(server.data / "server.pem", append=True)
        for name in ("server.key", "server.pem"):
            (server.data / name).chmod(0o600)
            if (user := _user()) is not None:
                shutil.chown(server.data / name, user)
        server.start()
        secured = (
            f"postgresql://owner@localhost:{server.port}/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert="
        )
        build_database(f"{secured}{tmp_path}/ca.pem", [CollectionSpec("Users", ROWS)])
        with PostgresStore(f"{secured}{tmp_path}/ca.pem") as store:
            assert store.get("Users", "u1") is not None
        with pytest.raises(StoreError, match="certificate"):
            PostgresStore(f"{secured}{tmp_path}/other.pem")
        with pytest.raises(StoreError, match="certificate"):
            PostgresStore(f"{secured}{tmp_path}/ca.pem".replace("localhost", "otherhost"))
        with pytest.raises(StoreError, match="pg_hba"):
            PostgresStore(server.dsn(sslmode="disable"))
    finally:
        server.remove()
