"""The audit log."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import ConfigurationError
from profile_enrich.server import AuditLog, ProfileAPI
from profile_enrich.server import audit as module
from profile_enrich.server.audit import hash_id
from profile_enrich.store import LocalStore

from .helpers import LIMITED, SECRET, amperity, api, ask, bearer, build


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalStore(build(tmp_path_factory.mktemp("audit"))) as opened:
        yield opened


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make(store: LocalStore, path: Path, **options: Any) -> tuple[ProfileAPI, AuditLog]:
    audit = AuditLog(path, clock=lambda: 1_800_000_000.5, **options)
    return api(store, audit=audit), audit


def test_a_line_for_each_record_without_values_and_ids(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    app, audit = make(store, path)
    index = store.collection("Users").index_id
    ask(app, "/api/v1/entities/1/record?record_id=u7", headers=bearer())
    ask(app, "/api/v1/entities/1/record?record_id=planted-id", headers=bearer(LIMITED))
    ask(app, "/api/v1/entities/2/record?record_id=planted-id", headers=bearer(LIMITED))
    ask(app, "/api/v1/entities/1/record?record_id=planted-id", headers=bearer("planted-key-of-nobody"))
    ask(app, f"/api/indexes/{index}/profiles?filter[tier]=planted-id", headers=amperity())
    ask(app, f"/api/indexes/{index}/profiles/u7", headers=amperity())
    ask(app, "/api/x/entities/1/records", method="POST", headers=bearer(), body=b'{"ids":["u7","planted-id"]}')
    ask(app, "/healthz")
    ask(app, "/planted-id", method="PLANTED-ID")
    audit.close()
    rows = lines(path)
    assert {row["at"] for row in rows} == {"2027-01-15T08:00:00.500Z"}
    seven, planted = hash_id(store.secret, "u7"), hash_id(store.secret, "planted-id")
    assert [(row["key"], row["kind"], row["entity"], row["record"], row["status"]) for row in rows] == [
        ("k1", "census.record", "Users", seven, 200),
        ("k2", "census.record", "Users", planted, 404),
        ("k2", "census.record", None, None, 403),
        (None, "census.record", None, None, 401),
        ("k1", "amperity.profiles", "Users", None, 200),
        ("k1", "amperity.profile", "Users", seven, 200),
        ("k1", "census.batch", "Users", seven, 200),
        ("k1", "census.batch", "Users", planted, 404),
        (None, "unknown", None, None, 404),
    ]
    assert rows[-1]["method"] == "other"
    assert [row.get("profiles") for row in rows] == [None] * 4 + [0] + [None] * 4
    text = path.read_text(encoding="utf-8").lower()
    for value in ("planted", "u7@x.example", SECRET, "gold"):
        assert value not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_page_of_an_index_is_one_line_with_the_number_of_its_profiles(store: LocalStore, tmp_path: Path) -> None:
    app, audit = make(store, tmp_path / "audit.jsonl")
    users = store.collection("Users")
    answer = ask(app, f"/api/indexes/{users.index_id}/profiles?limit=3", headers=amperity())
    audit.close()
    (row,) = lines(tmp_path / "audit.jsonl")
    assert (row["record"], row["profiles"], row["entity"]) == (None, len(answer.json["data"]), "Users")
    assert row["profiles"] == min(3, users.rows)


@pytest.mark.parametrize(("ids", "shown"), [("none", None), ("clear", "u7")])
def test_ids_as_asked(store: LocalStore, tmp_path: Path, ids: str, shown: str | None) -> None:
    app, audit = make(store, tmp_path / "a", ids=ids)
    ask(app, "/api/v1/entities/1/record?record_id=u7", headers=bearer())
    audit.close()
    assert lines(tmp_path / "a")[0]["record"] == shown


def test_the_hash_is_the_stores(store: LocalStore) -> None:
    assert hash_id(store.secret, "u7") != hash_id(b"other", "u7")
    assert len(hash_id(store.secret, "\ud800")) == 32
    wrong: Any = "plain"
    with pytest.raises(ConfigurationError, match="ids of an audit log"):
        AuditLog(logging.NullHandler(), ids=wrong)


def test_a_rotated_file_is_opened_anew(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "a"
    app, audit = make(store, path)
    ask(app, "/status", headers=bearer())
    audit.close()
    path.rename(tmp_path / "a.1")
    ask(app, "/status", headers=bearer())
    ask(app, "/status", headers=bearer())
    audit.close()
    audit.close()
    assert (len(lines(tmp_path / "a.1")), len(lines(path))) == (1, 2)


def test_a_file_moved_away_while_it_is_open(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "a"
    app, audit = make(store, path)
    written = threading.Event()
    handler: Any = audit._handler
    original = handler.write_line

    def write_line(line: str) -> None:
        original(line)
        written.set()

    handler.write_line = write_line
    ask(app, "/status", headers=bearer())
    assert written.wait(30)
    path.rename(tmp_path / "a.1")
    ask(app, "/status", headers=bearer())
    audit.close()
    assert (len(lines(tmp_path / "a.1")), len(lines(path))) == (1, 1)


class Slow(logging.Handler):
    """A handler that accepts a line only when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.go.wait(30)
        self.lines.append(record.getMessage())


def test_a_slow_disk_stops_no_answer_and_what_is_lost_is_counted(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAITING", 3)
    handler = Slow()
    audit = AuditLog(handler)
    app = api(store, audit=audit)
    for _ in range(20):
        assert ask(app, "/status", headers=bearer()).status == 200
    handler.go.set()
    while audit._queue.qsize():
        pass
    ask(app, "/status", headers=bearer())
    audit.close()
    rows = [json.loads(line) for line in handler.lines]
    assert sum(row.get("dropped", 0) for row in rows) + len(rows) == 21
    assert sum(row.get("dropped", 0) for row in rows) >= 16  # three waited, one was being written


class Failing(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        if self.calls < 3:
            raise OSError(28, "planted-id")


def test_a_failing_disk_is_said_once_without_what_it_said(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    handler = Failing()
    audit = AuditLog(handler)
    app = api(store, audit=audit)
    for _ in range(4):
        assert ask(app, "/status", headers=bearer()).status == 200
    audit.close()
    assert handler.calls == 4
    assert caplog.text.count("the audit log cannot be written (OSError)") == 1
    assert "planted-id" not in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_A9_a_forked_process_writes_its_own_lines(store: LocalStore, tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "a")
    audit.record(secret=b"s", key="parent", kind="k", status=200)
    # The parent's thread already runs; the test checks that the child starts its own.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        audit.record(secret=b"s", key="child", kind="k", status=200)
        audit.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    audit.close()
    assert sorted(row["key"] for row in lines(tmp_path / "a")) == ["child", "parent"]


def test_lines_that_a_full_disk_loses_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file)
    real, room = os.write, [300]

    def write(descriptor: int, data: bytes) -> int:
        """A disk with space for some bytes: the last line is written in part, as the system does."""
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = data[: room[0]]
        room[0] -= len(taken)
        return real(descriptor, taken)

    monkeypatch.setattr(os, "write", write)

    def note(number: int) -> None:
        log.record(secret=b"s", key=f"k{number}", kind="census.record", status=200)

    for number in range(50):
        note(number)
    log.close()
    assert "lines of the audit log were lost" in caplog.text
    room[0] = 10**9
    note(50)
    log.close()
    lines = file.read_text().splitlines()
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    assert whole[-1]["key"] == "k50"
    assert len(whole) - 1 + whole[-1]["dropped"] == 50
    assert len([line for line in lines if not line.endswith("}")]) <= 1  # the truncated line, on a line of its own
