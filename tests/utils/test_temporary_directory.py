"""Temporary directories: no process removes another's, and none is left after a kill or a signal."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from profile_enrich._utils.temporary_directory import temporary_directory


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.long
def test_of_many_at_once_each_keeps_its_own(parent: Path) -> None:
    def use(_: int) -> bool:
        with temporary_directory() as directory:
            (directory / "data").write_text("x")
            with temporary_directory():  # looks for directories of dead processes
                pass
            return (directory / "data").exists()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(400)))
    assert list(parent.iterdir()) == []


HOLDING = """
import sys, time
from profile_enrich._utils.signals import ending_on_signals
from profile_enrich._utils.temporary_directory import temporary_directory
with ending_on_signals(), temporary_directory() as directory:
    (directory / "data").write_text("x")
    print(directory, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_P9_what_a_killed_process_left_the_next_one_removes(parent: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert stat.S_IMODE(left.stat().st_mode) == 0o700
        with temporary_directory():
            assert (left / "data").exists()  # its process is running
        process.send_signal(number)
        assert process.wait(20) == (-number if number is signal.SIGKILL else 128 + number)
    assert left.exists() == (number is signal.SIGKILL)
    with temporary_directory():
        assert not left.exists()


def test_what_is_not_this_users_or_is_no_directory_is_left_alone(parent: Path) -> None:
    kept = parent / "profile-enrich-of-somebody"
    (kept / "inside").mkdir(parents=True)
    elsewhere = parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "running").write_text("")
    (parent / "profile-enrich-link").symlink_to(elsewhere)
    (kept / "running").symlink_to(elsewhere / "running")
    with temporary_directory():
        pass
    assert (elsewhere / "running").exists()
    assert (kept / "inside").exists()
