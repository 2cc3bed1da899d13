"""A signal during a refresh: the served data stay, and the next status reports it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from profile_enrich.store import CollectionSpec, LocalStore, build_store
from profile_enrich.store.writes.refresh_status import read_last_refresh


def start(command: list[str], tmp_path: Path) -> subprocess.Popen[bytes]:
    temporary = tmp_path / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip


@pytest.mark.long
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
