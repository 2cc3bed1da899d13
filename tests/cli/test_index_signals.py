"""Signals while a store is built: the command ends at once with 128 + n, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from profile_enrich.store import CollectionSpec, LocalStore, build_store
from profile_enrich.store.writes.refresh_status import read_last_refresh

ROUNDS = int(os.environ.get("SIGNAL_ROUNDS", "1"))
"""`SIGNAL_ROUNDS=200 pytest tests/cli/test_index_signals.py` tries it at 200 random moments each."""

BUILD = [sys.executable, "-m", "profile_enrich", "index", "build", "--entity", "Users", "--data", "-", "--format"]
ROWS = {"csv": b"id,tier\n" + b"u1,gold\n" * 5000, "jsonl": b'{"id": "u1", "tier": "gold"}\n' * 5000}


def start(command: list[str], tmp_path: Path) -> subprocess.Popen[bytes]:
    temporary = tmp_path / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip


def working(process: subprocess.Popen[bytes], *places: Path) -> None:
    """Wait until the command has written something."""
    deadline = time.monotonic() + 90
    while not any(place.is_dir() and list(place.glob("*[!K]")) for place in places):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("attempt", range(ROUNDS))
def test_P9_a_signal_ends_a_build_and_nothing_stays(
    kind: str, number: signal.Signals, attempt: int, tmp_path: Path
) -> None:
    """The input is not at its end: CSV is being copied, JSONL is being stored."""
    store = tmp_path / "s"
    with start([*BUILD, kind, "--store", str(store)], tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(ROWS[kind])
        process.stdin.flush()
        working(process, tmp_path / "tmp", store)
        time.sleep(random.random() * 0.3)
        process.send_signal(number)
        began = time.monotonic()
        code = process.wait(20)
        assert time.monotonic() - began < 2 * (1 + os.getloadavg()[0] / 2)
        said = process.stderr.read().decode() if process.stderr is not None else ""
    assert code == 128 + number, said
    assert "Traceback" not in said
    assert not list((tmp_path / "tmp").iterdir())
    assert not [file.name for file in store.iterdir() if file.name not in ("LOCK", "REFRESHING")]


def test_P9_a_signal_during_a_refresh_keeps_what_is_served_and_is_noted(tmp_path: Path) -> None:
    path, source = tmp_path / "s", tmp_path / "pipe.jsonl"
    build_store(path, [CollectionSpec("Users", [{"id": "u1"}])])
    before = sorted(file.name for file in path.iterdir() if file.suffix in (".db", ""))
    source.write_bytes(b"".join(b'{"id": "u%d"}\n' % n for n in range(400_000)))
    command = [sys.executable, "-m", "profile_enrich", "index", "refresh", "--store", str(path), "--data", str(source)]
    with start([*command, "--entity", "Users"], tmp_path) as process:
        deadline = time.monotonic() + 90
        while len(list(path.glob("*.db"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.terminate()
        assert process.wait(20) == 143
    after = sorted(file.name for file in path.iterdir() if file.suffix in (".db", ""))
    assert after == sorted({*before, "REFRESHED", "REFRESHING"})
    last = read_last_refresh(path)
    assert last is not None
    assert last.error == "it was ended by the signal SIGTERM"
    assert last.failures == 1
    with LocalStore(path) as store:
        assert store.get("Users", "u1") is not None
    assert (path / "LOCK").stat().st_mode & 0o777 == 0o600
