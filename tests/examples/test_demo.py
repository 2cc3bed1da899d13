"""The launcher behind `make demo`: ports, readiness, and no process left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from examples import demo

from .shop import free_port

ROOT = Path(demo.__file__).parent.parent


def launch(**ports: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env={**os.environ, **{name: str(port) for name, port in ports.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, f"it ended before it said {words!r}: {said}"
        said += line
    return said


def children(pid: int) -> dict[int, str]:
    """The processes that were started by `pid`, with their arguments."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"PPid:\t{pid}\n" in (entry / "status").read_text():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
    return found


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((demo.HOST, port)) == 0


def wait_until_gone(*ports: int) -> None:
    end = time.monotonic() + 10
    while any(answers(port) for port in ports):
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_both_says_where_and_stops_both(ending: signal.Signals) -> None:
    api, shop = free_port(), free_port()
    with launch(API_PORT=api, SHOP_PORT=shop) as process:
        try:
            said = read_until(process, "Ctrl-C stops both")
            assert f"http://127.0.0.1:{shop}" in said
            assert f"http://127.0.0.1:{api}" in said
            assert "2280" in said
            assert httpx.get(f"http://127.0.0.1:{shop}/").status_code == 200
            assert httpx.get(f"http://127.0.0.1:{api}/status").status_code == 401

            commands = children(process.pid)
            assert len(commands) == 2
            environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in commands]
            keys = {
                variable.partition(b"=")[2].decode()
                for environment in environments
                for variable in environment.split(b"\0")
                if variable.startswith((b"PROFILE_ENRICH_KEYS=", b"STOREFRONT_API_KEY="))
            }
            (key,) = keys
            assert len(key) >= 32
            assert all(key not in command for command in commands.values())
            assert key not in said
        finally:
            process.send_signal(ending)
        assert process.wait(15) == 0
        wait_until_gone(api, shop)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
@pytest.mark.parametrize(("victim", "name"), [("profile_enrich serve", "The Profile API"), ("uvicorn", "The shop")])
def test_when_one_dies_it_says_which_and_stops_the_other(victim: str, name: str) -> None:
    api, shop = free_port(), free_port()
    with launch(API_PORT=api, SHOP_PORT=shop) as process:
        try:
            read_until(process, "Ctrl-C stops both")
            (pid,) = [pid for pid, command in children(process.pid).items() if victim in command]
            os.kill(pid, signal.SIGKILL)
            assert process.wait(15) == 1
        finally:
            if process.poll() is None:
                process.terminate()
        assert process.stderr is not None
        assert f"{name} ended by itself" in process.stderr.read()
        wait_until_gone(api, shop)


@pytest.mark.parametrize("name", ["API_PORT", "SHOP_PORT"])
def test_a_taken_port_is_said_before_anything_starts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ports = {"API_PORT": free_port(), "SHOP_PORT": free_port()}
    with socket.create_server((demo.HOST, 0)) as other:
        ports[name] = other.getsockname()[1]
        with pytest.raises(demo.DemoError, match=f"Port {ports[name]} is taken.* make demo {name}="):
            demo.Ports.from_environment({key: str(port) for key, port in ports.items()})


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1", "80.5", "８０"])
def test_what_is_no_port_is_said(text: str) -> None:
    with pytest.raises(demo.DemoError, match="SHOP_PORT must be a port number from 1 to 65535"):
        demo.Ports.from_environment({"SHOP_PORT": text, "API_PORT": str(free_port())})


def test_one_port_for_both_is_said() -> None:
    port = str(free_port())
    with pytest.raises(demo.DemoError, match=f"both {port}"):
        demo.Ports.from_environment({"SHOP_PORT": port, "API_PORT": port})


def test_a_process_that_dies_at_the_start_is_said_with_its_last_words() -> None:
    command = [sys.executable, "-c", "print('no such luck'); raise SystemExit(3)"]
    process = demo.Process("It", command, {}, f"http://127.0.0.1:{free_port()}/")
    process.start()
    try:
        with pytest.raises(demo.DemoError, match=r"It ended by itself \(exit code 3\).\n  \| no such luck"):
            process.wait_until_ready(seconds=10)
    finally:
        process.stop()


def test_a_process_that_never_answers_is_said() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = demo.Process("It", command, {}, f"http://127.0.0.1:{free_port()}/")
    process.start()
    try:
        with pytest.raises(demo.DemoError, match="did not answer within 0 seconds"):
            process.wait_until_ready(seconds=0.2)
    finally:
        process.stop()


def test_a_process_that_will_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STOP_SECONDS", 0.2)
    port = free_port()
    code = (
        "import signal, http.server\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers()\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
    )
    process = demo.Process("It", [sys.executable, "-c", code], {}, f"http://127.0.0.1:{port}/")
    process.start()
    process.wait_until_ready(seconds=10)
    process.stop()
    assert process.has_died
    wait_until_gone(port)
