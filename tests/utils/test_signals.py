"""Signals end a process with 128 + n, also one that is blocked or that does not stop by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

PREAMBLE = """
import os, sys, time
from profile_enrich._utils.signals import *
def begun():
    os.write(2, b"begun\\n")
"""
BLOCKED = f"""{PREAMBLE}
with ending_on_signals(), stopping_on_signals(lambda: None):
    begun()
    while True:
        os.write(1, b"x" * 65536)
"""
BUFFERED = f"""{PREAMBLE}
os.set_blocking(1, False)
try:
    while True:
        os.write(1, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(1, True)
print("buffered", end="")
with ending_on_signals():
    begun()
    time.sleep(60)
"""
STUBBORN = f"""{PREAMBLE}
with ending_on_signals(), stopping_on_signals(begun):
    begun()
    while True:
        time.sleep(60)
"""
OBEDIENT = f"""{PREAMBLE}
stopped = []
with ending_on_signals(), stopping_on_signals(lambda: stopped.append(1)) as received:
    begun()
    while not stopped:
        time.sleep(0.01)
time.sleep(2)  # nothing ends it later
sys.exit(received[0] + 10)
"""


@contextmanager
def running(code: str, **environment: str) -> Generator[subprocess.Popen[bytes]]:
    """A process that has reported its start; its standard output is not read."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == b"begun\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("code", [BLOCKED, BUFFERED, STUBBORN], ids=["blocked", "buffered", "stubborn"])
def test_P9_a_process_that_waits_for_a_pipe_or_does_not_stop_is_ended(code: str, number: signal.Signals) -> None:
    with running(code) as process:
        process.send_signal(number)
        assert process.wait(30) == 128 + number


def test_P9_a_second_signal_ends_it_at_once() -> None:
    with running(STUBBORN) as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == b"begun\n"  # the first one has been taken
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


@pytest.mark.long
def test_P9_what_stops_by_itself_is_left_alone() -> None:
    with running(OBEDIENT) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == signal.SIGTERM + 10


def test_E7_no_lock_file_stays(tmp_path: Path) -> None:
    lock = tmp_path / "output.lock"
    code = f"""{PREAMBLE}
from pathlib import Path
from profile_enrich._utils.files import FileLock
with ending_on_signals(), FileLock(Path({str(lock)!r})) as held:
    held.acquire()
    begun()
    time.sleep(60)
"""
    with running(code) as process:
        assert lock.exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert not lock.exists()


def test_P9_no_unfinished_file_stays(tmp_path: Path) -> None:
    """P9: a signal between the creation and the rename of a file that replaces another."""
    code = f"""{PREAMBLE}
import os
from pathlib import Path
from profile_enrich._utils.files import replace_private
def fsync(descriptor):
    begun()
    time.sleep(60)
os.fsync = fsync
with ending_on_signals():
    replace_private(Path({str(tmp_path / "file")!r}), b"new")
"""
    with running(code) as process:
        assert (tmp_path / "file.new").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert not list(tmp_path.iterdir())


def test_P9_a_thread_does_not_make_again_the_directory_that_a_signal_removed(tmp_path: Path) -> None:
    """P9: a build makes the parents of its store, which lies in a temporary directory that is being removed."""
    code = f"""{PREAMBLE}
from pathlib import Path
from profile_enrich._utils.temporary_directory import temporary_directory
from profile_enrich.store import CollectionSpec, build_store
def build(directory):
    begun()
    while directory.exists():
        time.sleep(0.001)
    try:
        build_store(directory / "profiles.store", [CollectionSpec("Users", [dict(id="u1")])])
    finally:
        tried.append(1)
def until_tried(_):
    while not tried:
        time.sleep(0.001)
tried = []
with on_signal(until_tried), temporary_directory() as directory:
    run_in_thread(lambda: build(directory))
"""
    with running(code, TMPDIR=str(tmp_path)) as process:
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_an_ignored_signal_stays_ignored() -> None:
    """`nohup` ignores SIGHUP."""
    with running(f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{STUBBORN}") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


def test_a_process_is_killed_where_a_test_fails_while_it_runs() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process,
    ):
        assert 1 / 0
    assert process.returncode == -signal.SIGKILL
