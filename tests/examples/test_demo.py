"""The launcher behind `make demo`: ports, readiness, and no process left behind."""

from __future__ import annotations

import json
import os
import re
import select
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

ROOT = demo.ROOT


def launch(**ports: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env={**os.environ, **{name: str(port) for name, port in ports.items()}},
        stdin=subprocess.DEVNULL,
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


def ask_as_printed(said: str) -> dict[str, object]:
    """Paste the printed `export` and `curl` lines into a shell, and return the record that the Profile API answers."""
    lines = re.search(r"^ +export .*?entities/1/record$", said, re.DOTALL | re.MULTILINE)
    assert lines is not None, said
    printed = subprocess.run(
        ["bash", "-e"], input=lines[0].replace("curl", "curl -s"), capture_output=True, text=True, timeout=20,
        env={name: value for name, value in os.environ.items() if name != "PROFILE_ENRICH_API_KEY"},
    )  # fmt: skip
    record: dict[str, object] = json.loads(printed.stdout)["data"]
    return record


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((demo.HOST, port)) == 0


def wait_until_gone(*ports: int) -> None:
    end = time.monotonic() + 30
    while any(answers(port) for port in ports):
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
@pytest.mark.parametrize("ending", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
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
                if variable.startswith(b"PROFILE_ENRICH_API_KEY=")
            }
            (key,) = keys
            assert len(key) >= 32
            assert all(key not in command for command in commands.values())
            assert key in said
            assert ask_as_printed(said)["household_id"] == "2280"
        finally:
            process.send_signal(ending)
        assert process.wait(30) == 0
        wait_until_gone(api, shop)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
@pytest.mark.parametrize(("victim", "name"), [("profile_enrich serve", "The Profile API"), ("uvicorn", "The shop")])
@pytest.mark.long
def test_when_one_dies_the_other_one_stays(victim: str, name: str) -> None:
    api, shop = free_port(), free_port()
    with launch(API_PORT=api, SHOP_PORT=shop) as process:
        try:
            read_until(process, "Ctrl-C stops both")
            (pid,) = [pid for pid, command in children(process.pid).items() if victim in command]
            os.kill(pid, signal.SIGKILL)
            read_until(process, f"{name} ended by itself")
            assert process.poll() is None
            assert answers(shop if name == "The Profile API" else api)
            assert not answers(api if name == "The Profile API" else shop)
        finally:
            process.terminate()
        assert process.wait(30) == 0
        wait_until_gone(api, shop)


class Terminal:
    """The launcher in a terminal of its own."""

    def __init__(self, columns: int = 80, **ports: int) -> None:
        import termios

        self.ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (40, columns))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.demo"], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
            env={**environment, **{name: str(port) for name, port in ports.items()}},
        )  # fmt: skip
        os.close(theirs)
        self._said = ""

    def wait_for(self, words: str, seconds: float = 60.0) -> str:
        """Wait until the launcher prints `words`, and return what it printed up to them."""
        end = time.monotonic() + seconds
        while words not in self._said:
            assert time.monotonic() < end, self._said
            ready, _, _ = select.select([self.ours], [], [], 0.2)
            if ready:
                self._said += os.read(self.ours, 4096).decode()
        said, _, self._said = self._said.partition(words)
        return said

    def press(self, key: str) -> None:
        os.write(self.ours, key.encode())


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal, which this system does not have")
@pytest.mark.long
def test_keys_in_the_terminal_stop_and_start_each_process() -> None:
    api, shop = free_port(), free_port()
    terminal = Terminal(API_PORT=api, SHOP_PORT=shop)
    try:
        terminal.wait_for("q  quit")
        for key, name, port in (("a", "The Profile API", api), ("s", "The shop", shop)):
            terminal.press(key)
            terminal.wait_for(f"{name} is stopped.")
            assert not answers(port)
            assert answers(shop if port == api else api)
            terminal.press(key)
            terminal.wait_for(f"{name} is running.")
            assert answers(port)
        terminal.press("q")
        terminal.wait_for("Stopping.")
        assert terminal.process.wait(30) == 0
        wait_until_gone(api, shop)
    finally:
        if terminal.process.poll() is None:
            terminal.process.terminate()
            terminal.process.wait(30)
        os.close(terminal.ours)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal, which this system does not have")
@pytest.mark.parametrize("columns", [60, pytest.param(80, marks=pytest.mark.long)])
def test_no_line_is_wider_than_the_terminal_and_commands_can_be_pasted(columns: int) -> None:
    api, shop = free_port(), free_port()
    terminal = Terminal(columns, API_PORT=api, SHOP_PORT=shop)
    try:
        said = terminal.wait_for("q  quit").replace("\r\n", "\n")
        (victim,) = [pid for pid, command in children(terminal.process.pid).items() if "uvicorn" in command]
        os.kill(victim, signal.SIGKILL)
        said += terminal.wait_for("(exit code -9).")
        assert ask_as_printed(said)["household_id"] == "2280"
        assert [line for line in said.splitlines() if len(line) > columns] == []
    finally:
        terminal.process.terminate()
        terminal.process.wait(30)
        os.close(terminal.ours)


@pytest.mark.long
def test_the_button_of_the_shop_stops_the_profile_api_and_pages_keep_coming() -> None:
    api, shop = free_port(), free_port()
    with launch(API_PORT=api, SHOP_PORT=shop) as process:
        try:
            read_until(process, "Ctrl-C stops both")
            with httpx.Client(base_url=f"http://127.0.0.1:{shop}", follow_redirects=True, timeout=70) as visitor:
                visitor.headers["origin"] = f"http://127.0.0.1:{shop}"
                assert "Stop the Profile API" in visitor.post("/sign-in", data={"household": "2280"}).text
                page = visitor.post("/profile-api", data={"api": "stop", "next": "/account"})
                assert page.url.path == "/account"
                assert "The Profile API is stopped." in page.text
                assert "Start the Profile API" in page.text
                assert not answers(api)
                assert "Household 2280" in visitor.get("/").text
                visitor.post("/profile/drop", data={"next": "/"})
                for _ in range(8):  # the circuit breaker opens
                    page = visitor.get("/")
                assert "the Profile API cannot be reached" in page.text
                page = visitor.post("/profile-api", data={"api": "start", "next": "/"})
                assert "The Profile API is running." in page.text
                assert 'data-strip="status">hit<' in page.text
                assert answers(api)
        finally:
            process.terminate()
        assert process.wait(30) == 0
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
    monkeypatch.setattr("examples.demo.process.STOP_SECONDS", 0.2)
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
    assert not process.is_running
    wait_until_gone(port)
