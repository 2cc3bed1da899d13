"""Several workers, reloading, the configuration file, totals and metrics."""

from __future__ import annotations

import errno
import gc
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from profile_enrich.cli.app import cli
from profile_enrich.errors import ConfigurationError, MissingExtraError
from profile_enrich.server import serve
from profile_enrich.server.config import read_config
from profile_enrich.server.counters import SharedCounters
from profile_enrich.server.cross_worker_state import SharedState
from profile_enrich.server.process import supervisor as supervisor_module
from profile_enrich.server.process.supervisor import Supervisor

from .helpers import KEYS, LIMITED, SECRET, amperity, api, ask, bearer, build

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="several workers need fork")

CONFIG = """
[server]
port = 0
workers = 2
key = ["the-secret-of-the-key"]
metrics = "keys"
{more}

[collections.Users]
source = "users.csv"
key = "user_id"
"""
RECORD = "/api/v1/entities/1/record?record_id=u1"


@contextmanager
def serving(directory: Path, more: str = "", **env: str) -> Generator[tuple[subprocess.Popen[str], httpx.Client]]:
    (directory / "users.csv").write_text("user_id,tier\nu1,gold\n")
    (directory / "server.toml").write_text(CONFIG.format(more=more))
    command = [sys.executable, "-m", "profile_enrich", "serve", "--config", str(directory / "server.toml")]
    (directory / "t").mkdir(exist_ok=True)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory / "t"), **env},
    ) as process:
        try:
            assert process.stdout is not None
            shown = ""
            for line in process.stdout:
                shown += line
                if line.startswith("Ctrl-C"):
                    break
            url = re.search(r"http://\S+", shown)
            assert url is not None, process.stderr.read() if process.stderr else ""
            with httpx.Client(base_url=url[0], headers=bearer(), trust_env=False, timeout=10) as client:
                yield process, client
        finally:
            if process.poll() is None:
                process.kill()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs ps with --ppid")
def test_two_workers_share_a_port_are_replaced_and_leave_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, client):
        first = workers_of(process)
        assert len(first) == 2
        assert client.get(RECORD).json()["data"]["tier"] == "gold"
        assert client.get("/status").json()["process"] in first
        # A worker dies: another replaces it, and requests continue.
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(set(workers_of(process)) - {first[0]}) == 2)
        assert client.get(RECORD).status_code == 200
        # The file changes: it is reloaded without an interruption.
        before = set(workers_of(process))
        (tmp_path / "server.toml").write_text(CONFIG.format(more="max_age = 60"))
        process.send_signal(signal.SIGHUP)
        until(lambda: len(workers_of(process)) == 2 and not before & set(workers_of(process)))
        assert client.get(RECORD).headers["cache-control"] == "private, max-age=60"
        # The new file is invalid: the running configuration stays.
        (tmp_path / "server.toml").write_text(CONFIG.format(more="max_agee = 61"))
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert client.get(RECORD).headers["cache-control"] == "private, max-age=60"
        last = workers_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert process.stderr is not None
        said = process.stderr.read()
    assert "Traceback" not in said
    assert "a worker ended (exit code -9); another one is started" in said
    assert "reloaded" in said
    assert SECRET not in said
    assert list((tmp_path / "t").iterdir()) == []
    for pid in last:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.long
def test_one_process_reloads_too(tmp_path: Path) -> None:
    with serving(tmp_path, PROFILE_ENRICH_WORKERS="1") as (process, client):
        assert client.get(RECORD).headers["cache-control"] == "private"
        for more, control in (("max_age = 5", "private, max-age=5"), ("max_ago = 5", "private, max-age=5")):
            (tmp_path / "server.toml").write_text(CONFIG.format(more=more))
            process.send_signal(signal.SIGHUP)
            until(lambda control=control: client.get(RECORD).headers["cache-control"] == control)  # type: ignore[misc]  # mypy does not see the default
        assert process.stderr is not None
        said = next(line for line in process.stderr if "not reloaded, the old settings stay" in line)
        assert client.get(RECORD).headers["cache-control"] == "private, max-age=5"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        said += process.stderr.read()
    assert "did you mean 'max_age'?" in said


@pytest.mark.long
def test_SIGHUP_applies_another_interval_of_refreshing(tmp_path: Path) -> None:
    def every() -> object:
        return client.get("/status").json()["refreshing"]["every"]

    with serving(tmp_path, more='refresh_every = "1h"') as (process, client):
        assert every() == 3600
        (tmp_path / "server.toml").write_text(CONFIG.format(more='refresh_every = "2h"'))
        process.send_signal(signal.SIGHUP)
        until(lambda: every() == 7200)
        (tmp_path / "server.toml").write_text(CONFIG.format(more=""))  # it can be changed, not ended
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert any(
            "refresh_every can be changed while the server runs, not begun or ended" in line for line in process.stderr
        )
        assert every() == 7200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


@pytest.mark.parametrize("workers", [0, 65, True, "2"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ConfigurationError, match="workers must be a whole number from 1 to 64"):
        serve(build(tmp_path), keys=KEYS[:1], port=0, workers=workers)


# --- the configuration file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", r"has no setting 'prot'; did you mean 'port'\?"),
        ("[server]\nzzz = 1", "has no setting 'zzz'; known are: data, port"),
        ("[sever]", r"'sever' is not known here; did you mean 'server'\?"),
        ("port = 1", r"'port' is not known here inside \[server\]"),
        ("server = 1", r"\[server\] must be a table"),
        ("[server]\nport = [1]", "port takes one value"),
        ("[server]\ndata = 'x'", "data takes a list"),
        ("[server]\nport = {a = 1}", "port must be text, a number"),
        ("[server]\nport = planted", r"is not TOML \(at line 2"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_config(file, ["port", "data"], many=["data"])
    assert "planted" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_config(tmp_path / "nothing.toml", [])
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        read_config(tmp_path / "latin.toml", [])


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[server]\nstore = "s"\ndata = ["a.csv"]\n[collections.X]\n')
    table, described = read_config(file, ["store", "data"], many=["data"], paths=["store", "data"])
    assert table == {"store": str(tmp_path / "s"), "data": [str(tmp_path / "a.csv")]}
    assert described


def test_the_command_says_it_as_it_says_a_wrong_flag(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("[server]\nwrokers = 2\n")
    done = CliRunner().invoke(cli, ["serve", "--config", str(tmp_path / "server.toml")])
    assert done.exit_code == 2
    assert "did you mean 'workers'?" in done.stderr


# --- totals and metrics ---------------------------------------------------------------------------------------------


def test_totals_are_those_of_all_workers_also_of_one_that_died() -> None:
    with SharedState.create(several=False) as nothing, SharedState.create(several=True) as shared:
        assert nothing.directory is None
        directory = shared.directory
        one, two = SharedCounters(directory), SharedCounters(directory)
        one.count("census.record", 200, 0.002)
        one.count("census.record", 404, 0.2)
        one.write()
        two.count("census.record", 200, 30.0)
        totals = two.all()
        assert totals["processes"] == 2
        assert totals["requests"]["census.record", "2xx"] == 2
        assert sum(totals["buckets"]["census.record"]) == 3
        assert totals["seconds"]["census.record"] == pytest.approx(30.202)
        assert directory is not None
        (directory / "broken.json").write_text("{")
        assert two.all()["processes"] == 2
    assert not directory.exists()
    one.write()  # the directory is gone: nothing happens


def test_metrics_are_for_whom_they_are_meant(tmp_path: Path) -> None:
    path = build(tmp_path)
    off, keys, everybody = (api(path, metrics=metrics) for metrics in ("off", "keys", "open"))
    assert ask(off, "/metrics", headers=bearer()).status == 404
    assert ask(off, "/metrics").status == 404
    assert ask(keys, "/metrics").status == 401
    scoped = ask(keys, "/metrics", headers=bearer(LIMITED)).body.decode()
    assert 'collection="Users"' in scoped
    assert "Orders" not in scoped
    ask(keys, RECORD, headers=bearer())
    answer = ask(keys, "/metrics", headers=bearer())
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    assert 'profile_api_requests_total{kind="census.record",status="2xx"} 1.0' in text
    assert 'profile_api_request_seconds_count{kind="census.record"} 1.0' in text
    assert 'profile_api_records{collection="Users"} 62.0' in text
    for headers in (None, bearer("not a key of anybody's")):  # the response does not reveal what exists
        answer = ask(everybody, "/metrics", headers=headers)
        assert answer.status == 200
        assert "collection=" not in answer.body.decode()
    assert 'collection="Orders"' in ask(everybody, "/metrics", headers=bearer()).body.decode()
    for private in ("u1", SECRET, "k1"):
        assert f'"{private}"' not in text
    with pytest.raises(ConfigurationError, match="metrics is"):
        api(path, metrics="yes")


def test_without_prometheus_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[prometheus\]") as caught:
        api(build(tmp_path), metrics="keys")
    assert caught.value.__context__ is None


def test_status_tells_how_refreshing_goes(tmp_path: Path) -> None:
    app = api(build(tmp_path), refreshing=lambda: {"every": 900.0, "last_error": None})
    status = ask(app, "/status", headers=amperity()).json
    assert status["refreshing"] == {"every": 900.0, "last_error": None}
    assert status["feed"] == {"streams": 0, "keys_sent": 0}
    assert status["process"] == os.getpid()


# --- the supervisor, in this process --------------------------------------------------------------------------------


def supervise(
    run: Callable[[Callable[[], None]], None],
    on_ready: Callable[[], None],
    on_reload: Callable[[], None] | None = None,
    count: int = 2,
) -> int:
    return Supervisor(run, count, drain=5, on_reload=on_reload, on_ready=on_ready).run()


def highest_descriptor() -> int:
    listed = list(Path("/proc/self/fd").iterdir())
    return max(int(each.name) for each in listed if each.exists())  # not the one of the listing itself


def idle(ready: Callable[[], None]) -> None:
    ready()
    time.sleep(30)


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_P9_a_signal_ends_all_workers(number: signal.Signals) -> None:
    before = signal.getsignal(number), children()
    assert supervise(idle, lambda: os.kill(os.getpid(), number)) == number
    assert (signal.getsignal(number), children()) == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_P9_SIGHUP_replaces_the_workers_and_a_dead_one_comes_back() -> None:
    pids: list[set[int]] = []
    others = children()

    def now() -> set[int]:
        return children() - others

    def play() -> None:
        pids.append(now())
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: len(now()) == 2 and not now() & pids[0])
        pids.append(now())
        os.kill(min(pids[1]), signal.SIGKILL)
        until(lambda: len(now()) == 2 and now() != pids[1])
        os.kill(os.getpid(), signal.SIGTERM)

    supervise(idle, threading.Thread(target=play).start, on_reload=lambda: None)
    assert children() == others


@pytest.mark.parametrize("error", [ConfigurationError("wrong"), RuntimeError("planted")])
def test_P9_a_worker_that_cannot_start_is_said_and_stops_all(error: Exception) -> None:
    def fail(ready: Callable[[], None]) -> None:
        raise error

    before = children()
    with pytest.raises(ConfigurationError, match="a worker ended before it was ready"):
        supervise(fail, lambda: None)
    assert children() == before


def test_P9_without_processes_it_ends_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    real, before = os.fork, children()
    calls: list[int] = []

    def fork() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(ConfigurationError, match="cannot be started: Resource temporarily unavailable; start fewer"):
        supervise(idle, lambda: None)
    assert children() == before


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_P9_without_descriptors_it_tries_again_while_others_serve(caplog: pytest.LogCaptureFixture) -> None:
    before = children()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def play() -> None:
        try:
            victim, other = sorted(children() - before)
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest_descriptor() + 1, hard))
            os.kill(victim, signal.SIGKILL)  # frees one descriptor; a worker needs two
            until(lambda: "trying again" in caplog.text)
            left.append(children() - before == {other})
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            until(lambda: len(children() - before) == 2)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    left: list[bool] = []
    gc.collect()
    gc.disable()  # a worker could use the descriptors that it closes meanwhile
    opened = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while opened[-1] < highest_descriptor():
            opened.append(os.open(os.devnull, os.O_RDONLY))  # until there is no gap
        supervise(idle, threading.Thread(target=play).start)
    finally:
        gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)
    assert left == [True]
    assert children() == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_P9_when_no_worker_can_run_any_more_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_RETRY_INITIAL", 0.01)
    before = children()
    flag = os.pipe()

    def once(ready: Callable[[], None]) -> None:
        ready()
        os.read(flag[0], 1)  # until it is told to exit; the next one exits at once

    def play() -> None:
        os.write(flag[1], b"x" * 100)

    with pytest.raises(ConfigurationError, match="no worker can be started any more"):
        supervise(once, play, count=1)
    for descriptor in flag:
        os.close(descriptor)
    assert children() == before


@pytest.mark.long
def test_P9_a_worker_signalled_as_it_is_born_does_not_swallow_it() -> None:
    """The parent's handler must not run in a child: it would only set a flag there, and the stop took 7 s."""
    for _ in range(20):
        began = time.monotonic()
        supervise(idle, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert time.monotonic() - began < 4.5  # the workers would be killed after 5
