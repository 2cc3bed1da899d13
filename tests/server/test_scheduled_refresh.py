"""Scheduled refreshes of a server, in their own process."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.server import ProfileAPI, scheduled_refresh
from profile_enrich.server.scheduled_refresh import RefreshSchedule, seconds_of
from profile_enrich.store import CollectionSpec, LocalStore, Stream, build_store
from profile_enrich.store.files.manifest import locked
from profile_enrich.store.inputs.source_config import write_recipe
from profile_enrich.store.writes.refresh_process import NICENESS
from profile_enrich.store.writes.refresh_status import is_refreshing, note_refresh, read_last_refresh, refreshing_alone

SLOW = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users.csv"
    file.write_text("id,n\n1,a\n")
    return file


@pytest.fixture
def store(tmp_path: Path, users: Path) -> Path:
    specs = [CollectionSpec("U", users)]
    build_store(tmp_path / "s", specs)
    write_recipe(tmp_path / "s", specs)
    return tmp_path / "s"


@pytest.fixture
def schedules() -> Iterator[Callable[..., RefreshSchedule]]:
    """Create schedules, and stop them after the test."""
    made: list[RefreshSchedule] = []

    def make(*arguments: Any, **options: Any) -> RefreshSchedule:
        made.append(RefreshSchedule(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), (" 2 h ", 7200), ("1d", 86400), ("900", 900)])
def test_a_span_is_written_with_its_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0.5s", "15 min", "-1m", "400d", "nan", "1e3"])
def test_a_span_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="90s, 15m, 2h or 1d"):
        seconds_of(text)


def test_a_schedule_that_makes_no_sense_is_refused(store: Path, tmp_path: Path) -> None:
    for every in (0, -1, True, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="every must be a number of seconds, above 0 and at most 31,"):
            RefreshSchedule(store, every=every)
    with pytest.raises(ConfigurationError, match="jitter must be a number of parts of"):
        RefreshSchedule(store, every=60, jitter=2)
    with pytest.raises(ConfigurationError, match="can be read only once"):
        RefreshSchedule(store, [CollectionSpec("U", Stream(sys.stdin.buffer, "csv"))], every=60)
    with pytest.raises(ConfigurationError, match="needs changed_only=True"):
        RefreshSchedule(store, every=60, vanished="delete")
    with pytest.raises(StoreError, match="there is no store"):
        RefreshSchedule(tmp_path / "nowhere", every=60)


@pytest.mark.long
def test_of_several_workers_one_refreshes(
    store: Path, users: Path, schedules: Callable[..., RefreshSchedule], caplog: pytest.LogCaptureFixture
) -> None:
    """After a failure, all schedules wait for the next interval and report it; it is logged once."""
    workers = [schedules(store, every=3600, jitter=0) for _ in range(3)]
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    note_refresh(store, long_ago, None)
    users.write_text("id,n\n1,a\n2,b\n")
    for worker in workers:
        worker.start()
        worker.start()  # once is enough
    until(lambda: LocalStore(store).generation == 2)
    soon = (datetime.now(UTC) + timedelta(minutes=50)).isoformat()
    until(lambda: all((worker.status()["next_at"] or "") > soon for worker in workers))
    assert LocalStore(store).generation == 2
    status = workers[2].status()
    assert (status["every"], status["failures"], status["last_error"]) == (3600, 0, None)
    assert status["age"] is not None
    assert 0 <= status["age"] < 60
    assert caplog.text == ""
    json.dumps(status)


@pytest.mark.long
def test_a_worker_that_another_one_forestalls_waits_for_the_next_interval_at_once(
    store: Path, schedules: Callable[..., RefreshSchedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not wait as long as for a build by hand."""
    note_refresh(store, datetime.now(UTC) - timedelta(hours=2), None)
    looks = iter([False])  # the other one begins right after this worker has looked
    monkeypatch.setattr(scheduled_refresh, "is_refreshing", lambda path: next(looks, True) and is_refreshing(path))
    worker = schedules(store, every=3600, jitter=0)
    with refreshing_alone(store):
        worker.start()
        until(lambda: worker.status()["running"])
        until(lambda: not worker.status()["running"])
        note_refresh(store, datetime.now(UTC), None)
    soon = (datetime.now(UTC) + timedelta(minutes=50)).isoformat()
    until(lambda: (worker.status()["next_at"] or "") > soon, 15)
    assert LocalStore(store).generation == 1


@pytest.mark.long
def test_a_failure_is_said_once_and_the_old_data_stay(
    store: Path, users: Path, schedules: Callable[..., RefreshSchedule], caplog: pytest.LogCaptureFixture
) -> None:
    users.unlink()
    schedule = schedules(store, [CollectionSpec("U", users)], every=0.1)
    schedule.start()
    until(lambda: schedule.status()["failures"] >= 3)
    assert schedule.status()["last_error"] == f"{users} is not there"
    with LocalStore(store) as opened:
        assert opened.get("U", "1") is not None
    users.write_text("id,n\n1,a\n2,b\n")
    until(lambda: len(caplog.records) > 1)
    assert schedule.status()["failures"] == 0
    schedule.stop()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        f"the refresh failed, and the old data are still served: {users} is not there",
        "the store is refreshed again",
    ]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.long
@pytest.mark.parametrize("allowed", [False, True])
def test_P11_a_scheduled_refresh_that_loses_too_much_fails_and_shows(
    store: Path, users: Path, schedules: Callable[..., RefreshSchedule], allowed: bool
) -> None:
    users.write_text("id,n\n")
    more = {"max_shrink": 1.0} if allowed else {}
    schedule = schedules(store, [CollectionSpec("U", users)], every=0.1, **more)
    app = ProfileAPI(store, no_auth=True, metrics="open", refreshing=schedule.status)
    schedule.start()
    until(lambda: schedule.status()["failures"] > 0 or LocalStore(store).generation > 1)
    schedule.stop()
    with LocalStore(store) as opened:
        assert (opened.get("U", "1") is None) is allowed
    with TestClient(app) as client:
        status = client.get("/status").json()["refreshing"]
        metrics = client.get("/metrics").text
    assert ("would lose" in (status["last_error"] or "")) is not allowed
    assert f"profile_api_refresh_failed {float(not allowed)}" in metrics
    app.close()


@pytest.mark.long
def test_while_another_process_builds_it_waits(
    store: Path, schedules: Callable[..., RefreshSchedule], caplog: pytest.LogCaptureFixture
) -> None:
    schedule = schedules(store, every=0.1)
    with locked(store):
        schedule.start()
        until(lambda: schedule.status()["running"])
        until(lambda: not schedule.status()["running"])
    until(lambda: read_last_refresh(store) is not None)
    assert schedule.status()["last_error"] is None
    assert caplog.text == ""


@pytest.mark.long
def test_stopping_ends_a_refresh_that_is_under_way(
    store: Path, tmp_path: Path, schedules: Callable[..., RefreshSchedule], caplog: pytest.LogCaptureFixture
) -> None:
    from profile_enrich.store import SqlQuery

    (tmp_path / "x.db").touch()
    schedule = schedules(store, [CollectionSpec("U", SqlQuery(f"sqlite:///{tmp_path}/x.db", SLOW))], every=0.1)
    schedule.start()
    until(lambda: len(list(store.glob("*.db"))) > 1)  # it writes
    assert schedule.status()["running"]
    assert schedule.status()["next_at"] is None
    schedule.stop()
    assert not schedule.status()["running"]
    assert read_last_refresh(store) is None
    assert caplog.text == ""
    with LocalStore(store) as opened:
        assert opened.generation == 1
    schedule.stop()


@pytest.mark.long
def test_a_process_that_is_killed_counts_as_a_failure(
    store: Path, tmp_path: Path, schedules: Callable[..., RefreshSchedule], caplog: pytest.LogCaptureFixture
) -> None:
    from profile_enrich.store import SqlQuery

    (tmp_path / "x.db").touch()
    schedule = schedules(store, [CollectionSpec("U", SqlQuery(f"sqlite:///{tmp_path}/x.db", SLOW))], every=0.1)
    schedule.start()
    until(lambda: len(list(store.glob("*.db"))) > 1)
    child = schedule._child
    assert child is not None
    os.killpg(child.pid, signal.SIGKILL)
    # The store itself shows the killed refresh, before the schedule reports it.
    until(lambda: schedule.status()["last_error"] == "the refreshing process ended with code -9")
    assert schedule.status()["failures"] == 1


def test_when_the_server_dies_the_refresh_ends_too(store: Path, tmp_path: Path) -> None:
    """The refresh stops at the end of its standard input, which closes however the server ends."""
    order: dict[str, Any] = {
        "path": str(store),
        "since": None,
        "changed_only": False,
        "vanished": "keep",
        "on_duplicate": "last",
        "max_shrink": 0.2,
    }
    (tmp_path / "x.db").touch()
    order["collections"] = {"U": {"sql": SLOW, "url": f"sqlite:///{tmp_path}/x.db"}}
    command = [sys.executable, "-m", "profile_enrich.store.writes.refresh_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        until(lambda: len(list(store.glob("*.db"))) > 1)
        assert process.poll() is None
        own, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, process.pid))
        assert its == min(own + NICENESS, 19)  # requests do not wait for it
        process.stdin.close()
        assert process.wait(30) == -signal.SIGKILL


def test_a_process_that_cannot_be_started_is_tried_again(
    store: Path,
    schedules: Callable[..., RefreshSchedule],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    schedule = schedules(store, every=0.05)
    schedule.start()
    until(lambda: caplog.records)
    assert "the store cannot be refreshed: No such file or directory; trying again" in caplog.text
    schedule.stop()


def test_a_store_that_is_gone_has_no_age(store: Path) -> None:
    schedule = RefreshSchedule(store, every=60)
    assert schedule.status()["last_succeeded_at"] is not None
    (store / "CURRENT").unlink()
    assert schedule.status() == {
        "every": 60.0,
        "running": False,
        "last_started_at": None,
        "last_succeeded_at": None,
        "age": None,
        "last_error": None,
        "failures": 0,
        "next_at": None,
    }
