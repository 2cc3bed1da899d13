"""Flask and Django under gunicorn and uWSGI: several workers with several threads, forked from a loaded application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("django", reason="Django is not installed: pip install django")
pytest.importorskip("flask", reason="Flask is not installed: pip install flask")
pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")

from profile_enrich.testing import VendorServer
from tests.apps.serving import HOST, ROOT, Served, free_port

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

USERS = [f"u{number}" for number in range(6)]


@pytest.fixture
def vendor() -> Generator[VendorServer]:
    with VendorServer({key: {"tier": f"tier of {key}"} for key in (*USERS, "warm")}, key="secret") as vendor:
        yield vendor


def ask(url: str, path: str, user: str) -> dict[str, Any]:
    # Not httpx: a client of its own for each request costs more than the request.
    with urlopen(Request(url + path, headers={"Cookie": f"who={user}"}), timeout=60) as response:
        assert response.headers["Cache-Control"] == "private"
        answer: dict[str, Any] = json.load(response)
    assert answer["tier"] == f"tier of {user}"
    return answer


def visits(url: str, path: str = "/") -> list[dict[str, Any]]:
    with ThreadPoolExecutor(12) as pool:
        return list(pool.map(lambda number: ask(url, path, USERS[number % 6]), range(36)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "preload"),
    [
        ("flask_app", True),
        pytest.param("django_app", True, marks=pytest.mark.long),
        pytest.param("flask_app", False, marks=pytest.mark.long),
    ],
)
def test_A9_several_workers_and_threads(name: str, preload: bool, vendor: VendorServer) -> None:
    """A9: each worker has its own event loop, regardless of the master; each thread gets the right profile."""
    port = free_port()
    command = [sys.executable, "-W", "always::ResourceWarning", "-m", "gunicorn", "--workers", "2", "--threads", "8"]
    command += ["--bind", f"{HOST}:{port}", "--log-level", "warning", *(["--preload"] if preload else [])]
    command.append(f"tests.frameworks.served_wsgi:{name}")
    with Served(command, port, environment(vendor, warm_up=preload)) as served:
        answers = visits(served.wait(60).url)
        end = time.monotonic() + 30
        while len({answer["pid"] for answer in answers}) < 2:  # one worker may take all requests while the other starts
            assert time.monotonic() < end
            answers += visits(served.url)
        assert ask(served.url, "/", "warm")["tier"] == "tier of warm"
    assert len({answer["thread"] for answer in answers}) > 4
    assert {answer["own"] for answer in answers} <= {0, 1}, "hits need no loop; misses need one for all threads"
    keys = [call.key for call in vendor.calls]
    assert all(keys.count(user) <= 2 for user in USERS), "one load per worker"
    if preload:
        master = {call.connection for call in vendor.calls if call.key == "warm"}
        assert not master & {call.connection for call in vendor.calls if call.key in USERS}
    assert served.unclean() == []


@pytest.mark.long
@pytest.mark.parametrize("path", ["/", "/async"])
def test_A9_django_under_asgi_workers(path: str, vendor: VendorServer) -> None:
    """A9: the same, with Django's ASGI handler and views of both kinds."""
    pytest.importorskip("uvicorn_worker", reason="uvicorn-worker is not installed: pip install uvicorn-worker")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"{HOST}:{port}"]
    command += ["--worker-class", "uvicorn_worker.UvicornWorker", "--log-level", "warning"]
    command.append("tests.frameworks.served_wsgi:django_asgi_app")
    with Served(command, port, environment(vendor, warm_up=True)) as served:
        answers = visits(served.wait(60).url, path)
    assert {answer["own"] for answer in answers} <= {0, 1}
    assert served.unclean() == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["flask_app", "django_app"])
def test_A9_greenlets_instead_of_threads(name: str, vendor: VendorServer) -> None:
    """A9: gevent runs all loops and requests of a worker in one thread."""
    pytest.importorskip("gevent", reason="gevent is not installed: pip install gevent")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gevent", "--workers", "2"]
    command += ["--bind", f"{HOST}:{port}", "--log-level", "warning", f"tests.frameworks.served_wsgi:{name}"]
    with Served(command, port, environment(vendor, warm_up=False)) as served:
        visits(served.wait(60).url)
    keys = [call.key for call in vendor.calls]
    assert all(keys.count(user) <= 2 for user in USERS), "one load per worker"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "warm_up", "option"),
    [
        ("flask_app", True, "--py-call-uwsgi-fork-hooks"),
        ("django_app", True, "--py-call-uwsgi-fork-hooks"),
        ("flask_app", True, "--lazy-apps"),
        ("flask_app", False, "--auto-procname"),  # nothing that concerns the fork, which no hook of Python's notices
    ],
)
def test_A9_uwsgi(name: str, warm_up: bool, option: str, vendor: VendorServer) -> None:
    """A9: uWSGI forks its workers from a loaded application, unless it loads one in each of them."""
    with Served(uwsgi(name, port := free_port(), option), port, environment(vendor, warm_up=warm_up)) as served:
        visits(served.wait(60).url)
        assert ask(served.url, "/", "warm")["tier"] == "tier of warm"
    keys = [call.key for call in vendor.calls]
    assert all(keys.count(user) <= 2 for user in USERS), "one load per worker"
    assert "workers can hang" not in served.errors


@pytest.mark.long
def test_A9_a_lookup_before_uwsgi_forks_without_hooks_is_warned_of(vendor: VendorServer) -> None:
    """A9: its workers hang if another thread holds the global lock at the moment of the fork."""
    ended_before_fork = uwsgi("missing_app", free_port())  # it imports the module, and does not find the application
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment(vendor, warm_up=True)}
    done = subprocess.run(ended_before_fork, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
    assert "workers can hang: set py-call-uwsgi-fork-hooks or lazy-apps" in done.stdout + done.stderr


def uwsgi(name: str, port: int, *options: str) -> list[str]:
    program = Path(sys.executable).with_name("uwsgi")
    if not program.exists():
        pytest.skip("uWSGI is not installed: pip install pyuwsgi")
    command = [str(program), "--http-socket", f"{HOST}:{port}", "--wsgi", f"tests.frameworks.served_wsgi:{name}"]
    command += ["--master", "--processes", "2", "--threads", "4", "--enable-threads", "--need-app", "--disable-logging"]
    command += ["--die-on-term", "--pythonpath", str(Path.cwd()), "--virtualenv", sys.prefix]
    return [*command, "--worker-reload-mercy", "2", "--no-orphans", *options]


def environment(vendor: VendorServer, *, warm_up: bool) -> dict[str, str]:
    return {"VENDOR_URL": vendor.base_url, **({"WARM_UP": "warm"} if warm_up else {})}
