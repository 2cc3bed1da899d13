"""Serving: the address, readiness, signals, missing requirements (P6)."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import ConfigurationError, MissingExtraError
from profile_enrich.server import serve
from profile_enrich.server.process import sockets as _listen

from .helpers import KEYS, build

_SERVE = """
import sys
from pathlib import Path
from profile_enrich.server import serve
from tests.server.helpers import KEYS
serve(Path(sys.argv[1]), keys=KEYS[:1], port=0, on_ready=lambda url: print(url, flush=True))
print("stopped")
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_P6_it_serves_this_machine_alone_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    path = build(tmp_path)
    command = [sys.executable, "-c", _SERVE, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(number)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_P6_what_is_alive_at_the_start_is_left_out_of_garbage_collections(tmp_path: Path) -> None:
    ready = "(print(gc.get_freeze_count(), flush=True), os.kill(os.getpid(), signal.SIGTERM))"
    script = "import gc, os, signal" + _SERVE.replace("print(url, flush=True)", ready)
    done = subprocess.run(
        [sys.executable, "-c", script, str(build(tmp_path))],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=True,
    )
    frozen, end = done.stdout.split()
    assert int(frozen) > 10_000  # modules, application and store
    assert end == "stopped"


def test_in_a_thread_it_leaves_signals_and_garbage_collection_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    path = build(tmp_path)
    servers: list[Any] = []
    urls: list[str] = []
    started = uvicorn.Server.startup

    async def startup(self: Any, sockets: Any = None) -> None:
        await started(self, sockets=sockets)
        servers.append(self)

    monkeypatch.setattr(uvicorn.Server, "startup", startup)

    def ready(url: str) -> None:
        urls.append(url)
        servers[0].should_exit = True

    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: serve(path, keys=KEYS[:1], port=0, on_ready=ready))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert urls[0].startswith("http://127.0.0.1:")
    assert signal.getsignal(signal.SIGTERM) is before
    assert not frozen


def test_P6_without_a_key_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs at least one key"):
        serve(build(tmp_path), port=0)


@pytest.mark.parametrize("level", ["trace", "TRACE", "5"])
def test_A18_a_log_level_that_shows_whole_requests_is_refused(tmp_path: Path, level: str) -> None:
    with pytest.raises(ConfigurationError, match="log_level must be one of critical, error, warning, info, debug"):
        serve(build(tmp_path), keys=KEYS[:1], port=0, log_level=level)


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    path = build(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} on 127.0.0.1 is taken; stop what") as caught:
            serve(path, keys=KEYS[:1], port=port)
        assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "from 0 to 65535"),
        ("127.0.0.1", True, "from 0 to 65535"),
        ("no such host", 0, "not an address of this machine"),
        ("203.0.113.1", 0, "not an address of this machine"),
    ],
)
def test_addresses_that_cannot_be_had(host: str, port: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        _listen.bind(host, port)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("error", "message"), [(13, "needs special privileges"), (5, "cannot be listened on: Input")])
def test_what_the_system_refuses_is_said(monkeypatch: pytest.MonkeyPatch, error: int, message: str) -> None:
    import os

    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ConfigurationError, match=message):
        _listen.bind("127.0.0.1", 80)


def test_ipv6_urls_have_brackets() -> None:
    try:
        listener = _listen.bind("::1", 0)
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert _listen.url_of(listener).startswith("http://[::1]:")


def test_without_uvicorn_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    call: Callable[[], None] = lambda: serve(build(tmp_path), keys=KEYS[:1])  # noqa: E731  # one line is clearer here
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[server\]") as caught:
        call()
    assert caught.value.__context__ is None
