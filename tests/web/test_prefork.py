"""One application in several processes: server workers, and forks at any time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from profile_enrich.testing import VendorServer, faults
from tests.apps.serving import HOST, ROOT, Served, free_port, unclean
from tests.web.test_servers import NO_TLS, needs

KEYS = ["before", "after", "slow", "warm", "shared", "a", "a1", "a2", "b", "b1", "b2"]
TRANSPORTS = ["aiohttp", *(pytest.param(name, marks=pytest.mark.long) for name in ("httpx2", "httpx"))]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def vendor() -> Generator[VendorServer]:
    with VendorServer({key: {"tier": f"tier of {key}"} for key in KEYS}, key="secret") as vendor:
        yield vendor


def connections_of(vendor: VendorServer) -> dict[str, list[int]]:
    """Return the connections on which each key was requested."""
    found: dict[str, list[int]] = defaultdict(list)
    for call in vendor.calls:
        if call.key is not None:
            found[call.key].append(call.connection)
    return dict(found)


# --- workers of servers ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def two_workers(url: str, scratch: Path) -> Generator[tuple[httpx.Client, httpx.Client]]:
    """Two clients with a connection each, to two different workers.

    While the first worker is blocked, only the second can take a new connection.
    """
    began, until = scratch / "began", scratch / "until"
    with (
        httpx.Client(base_url=url, timeout=15, verify=NO_TLS) as first,
        httpx.Client(base_url=url, timeout=15, verify=NO_TLS) as second,
    ):
        first.get("/about").raise_for_status()
        query = {"began": str(began), "until": str(until)}
        blocked = threading.Thread(target=lambda: first.get("/block", params=query))
        blocked.start()
        try:
            limit = time.monotonic() + 30
            while not began.exists():
                assert time.monotonic() < limit, "the first worker never got the request"
                time.sleep(0.005)
            second.get("/about").raise_for_status()
        finally:
            until.touch()
            blocked.join()
        yield first, second


def check_workers(served: Served, vendor: VendorServer, scratch: Path) -> list[dict[str, Any]]:
    """Check that each worker serves, calls once per key, and uses its own connections; return their `/about`."""
    with two_workers(served.wait().url, scratch) as workers:
        abouts: list[dict[str, Any]] = [worker.get("/about").json() for worker in workers]
        assert abouts[0]["pid"] != abouts[1]["pid"]
        for _ in range(3):
            for worker, own in zip(workers, ("a", "b"), strict=True):
                for key in (own, f"{own}1", f"{own}2", "shared", "warm"):
                    assert worker.get(f"/tier/{key}").text == f"tier of {key}"
        assert [worker.get("/about").json()["pid"] for worker in workers] == [about["pid"] for about in abouts]
    asked = connections_of(vendor)
    for key in ("a", "a1", "a2", "b", "b1", "b2"):
        assert len(asked[key]) == 1, key
    assert len(asked["shared"]) == 2, "once for each worker"
    sockets = [{number for key in (own, f"{own}1", f"{own}2") for number in asked[key]} for own in ("a", "b")]
    assert not sockets[0] & sockets[1]
    assert served.stop() in (0, -15), served.errors
    told = [line for line in served.errors.splitlines() if line.startswith("shut down:")]
    assert len(told) == 2, served.errors
    assert all(", closed>, its tasks: []" in line for line in told)
    assert not served.unclean()
    return abouts


@pytest.mark.long
def test_A9_uvicorn_with_two_workers(vendor: VendorServer, tmp_path: Path) -> None:
    """A9: the module is imported by each worker."""
    needs("uvicorn")
    port = free_port()
    command = [sys.executable, "-W", "always::ResourceWarning", "-m", "uvicorn", "--workers", "2", "--host", HOST]
    command += ["--port", str(port), "--timeout-keep-alive", "60", "--log-level", "warning", "tests.apps.served:app"]
    with Served(command, port, {"VENDOR_URL": vendor.base_url}) as served:
        check_workers(served, vendor, tmp_path)
    assert len(connections_of(vendor)["warm"]) == 2


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_A9_gunicorn_with_two_workers_forked_from_a_loaded_application(
    transport: str, vendor: VendorServer, tmp_path: Path
) -> None:
    """A9: the module was imported, and its client used, by the master before it forked."""
    needs("gunicorn", "uvicorn_worker", transport)
    port = free_port()
    command = [sys.executable, "-W", "always::ResourceWarning", "-m", "gunicorn", "--preload", "--workers", "2"]
    command += ["--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"{HOST}:{port}", "--keep-alive", "60"]
    command += ["--log-level", "warning", "tests.apps.served:app"]
    environment = {"VENDOR_URL": vendor.base_url, "TRANSPORT": transport, "WARM_UP": "warm"}
    with Served(command, port, environment) as served:
        abouts = check_workers(served, vendor, tmp_path)
    assert [about["transport"] for about in abouts] == [transport] * 2
    asked = connections_of(vendor)
    assert len(asked["warm"]) == 1, "the workers inherited the cache entry"
    workers = {number for key, numbers in asked.items() if key != "warm" for number in numbers}
    assert asked["warm"][0] not in workers, "the workers do not use the master's connection"


# --- forks ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forking(
    scenario: str, transport: str, vendor: VendorServer, loop: str = "asyncio"
) -> Generator[subprocess.Popen[str]]:
    needs(transport, loop)
    told = {"VENDOR_URL": vendor.base_url, "TRANSPORT": transport, "LOOP": loop, "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **told}
    command = [sys.executable, "-W", "always::ResourceWarning", "-m", "tests.apps.forking", scenario]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def end_of(process: subprocess.Popen[str], typed: str = "") -> list[dict[str, Any]]:
    """Return the child's output after it exited with 0."""
    said, errors = process.communicate(typed, timeout=30)
    assert process.returncode == 0, errors
    assert not unclean(errors)
    lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    assert [line["code"] for line in lines if "code" in line].count(0) == sum("code" in line for line in lines), errors
    return lines


def statuses(lines: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((line["key"], line["tier"], line["status"]) for line in lines if "key" in line)


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_A9_nothing_is_opened_before_a_fork(transport: str, vendor: VendorServer) -> None:
    """A9: nothing bound to a loop or a socket exists before a fork: no descriptor, no thread."""
    with forking("nothing_before", transport, vendor) as process:
        lines = end_of(process)
    assert lines[0]["opened"] is False
    assert statuses(lines) == [(key, f"tier of {key}", "miss") for key in ("a", "b")]
    asked = connections_of(vendor)
    assert asked["a"] != asked["b"]


@pytest.mark.long
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_A9_a_client_that_was_used_works_on_both_sides_of_a_fork(
    transport: str, loop: str, vendor: VendorServer
) -> None:
    """A9: children inherit the cache and open their own connections; the parent's keep working."""
    with forking("used_before", transport, vendor, loop) as process:
        lines = end_of(process)
    children = {line["child"] for line in lines if "child" in line}
    assert len(children) == 2
    for line in lines:
        if line.get("key") == "before" and line["pid"] in children:
            assert line["status"] == "hit"
    expected = [(key, f"tier of {key}", "miss") for key in ("a", "a2", "after", "b", "b2", "before")]
    expected += [("before", "tier of before", "hit")] * 3
    assert statuses(lines) == sorted(expected)
    asked = connections_of(vendor)
    assert asked["before"] == asked["after"], "the parent keeps using its connection"
    assert asked["a"] == asked["a2"]
    assert asked["b"] == asked["b2"]
    assert len({*asked["before"], *asked["a"], *asked["b"]}) == 3


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_A9_a_child_does_not_wait_for_its_parents_load(transport: str, vendor: VendorServer) -> None:
    """A9: a child forked during a load starts its own; the parent's load completes normally."""
    vendor.script(faults.Hang(), key="slow")
    with forking("while_loading", transport, vendor) as process:
        limit = time.monotonic() + 20
        while "slow" not in connections_of(vendor):
            assert time.monotonic() < limit
            assert process.poll() is None
            time.sleep(0.005)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("fork\n")
        process.stdin.flush()
        child = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert child[0]["in_flight"] == 0
        assert statuses(child[1:2]) == [("slow", "tier of slow", "miss")]
        assert child[2]["code"] == 0
        vendor.release()
        lines = end_of(process, "go on\n")
    assert statuses(lines) == [("slow", "tier of slow", "miss")]
    asked = connections_of(vendor)
    assert len(asked["slow"]) == 2
    assert len(set(asked["slow"])) == 2
