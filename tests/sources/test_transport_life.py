"""Transports on many loops, in threads and after forks close everything that they open, and log nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time

import httpx
import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.sources.http import Headers, HttpRequest, HttpResponse, Transport, open_transport
from profile_enrich.sources.http.client_per_loop import LoopClients
from profile_enrich.testing import VendorServer, faults
from tests.helpers import until

from .transport_fixtures import (
    OWN,
    Open,
    failure,
    make_no_proxies,
    make_own,
    make_server,
    make_transport,
    make_vendor,
    request,
)

pytestmark = pytest.mark.usefixtures("no_proxies")
# pytest finds them under their names here
fixtures = (make_no_proxies, make_own, make_server, make_transport, make_vendor)


# --- loops, threads, forks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_L9_one_transport_serves_many_loops_one_after_the_other(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    for _ in range(3):
        answer = asyncio.run(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)))
        assert answer.status == 404
    gc.collect()
    assert_closed(vendor)


@pytest.mark.parametrize("name", OWN)
def test_L9_one_transport_serves_several_loops_at_once(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    statuses: list[int] = []

    async def ask() -> None:
        for _ in range(10):
            answer = await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
            statuses.append(answer.status)

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [404] * 40
    assert_closed(vendor)


@pytest.mark.parametrize("name", OWN)
async def test_L14_aclose_reaches_the_clients_of_other_running_loops(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    asked, done = threading.Event(), threading.Event()

    async def ask() -> None:
        await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
        asked.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    await asyncio.to_thread(asked.wait)
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    await transport.aclose()
    await asyncio.to_thread(assert_closed, vendor)
    done.set()
    await asyncio.to_thread(thread.join)
    await transport.aclose()  # nothing is left to close


@pytest.mark.parametrize("name", OWN)
async def test_L14_a_transport_that_is_dropped_closes_its_connections(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    del transport
    gc.collect()
    await asyncio.to_thread(assert_closed, vendor)


def assert_closed(vendor: VendorServer) -> None:
    limit = time.monotonic() + 30
    while vendor.open_connections and time.monotonic() < limit:
        time.sleep(0.005)
    assert vendor.open_connections == 0


async def test_L14_aclose_and_use_again(transport: Transport, vendor: VendorServer) -> None:
    await transport.aclose()
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    await transport.aclose()
    assert (await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))).status == 404


_FORK = """
import asyncio, os, sys
from profile_enrich._utils.deadline import Deadline
from profile_enrich.sources.http import HttpRequest, open_transport
name, url = sys.argv[1:]
transport = open_transport(name)
async def ask():
    return (await transport.send(HttpRequest("GET", url, {}), deadline=Deadline(5))).status
loop = asyncio.new_event_loop()
assert loop.run_until_complete(ask()) == 404
child = os.fork()
if child == 0:
    status = asyncio.run(ask())
    asyncio.run(transport.aclose())
    os._exit(0 if status == 404 else 1)
assert os.waitpid(child, 0)[1] == 0
assert loop.run_until_complete(ask()) == 404   # on the connection from before the fork
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""

_DIRTY = """
import asyncio, sys
from profile_enrich._utils.deadline import Deadline
from profile_enrich.sources.http import HttpRequest, open_transport
name, url = sys.argv[1:]
async def ask():
    for _ in range(2):
        transport = open_transport(name)
        await transport.send(HttpRequest("GET", url, {}), deadline=Deadline(5))
asyncio.run(ask())
"""


@pytest.mark.long
@pytest.mark.parametrize("name", OWN)
def test_A9_nothing_survives_a_fork(name: str, vendor: VendorServer) -> None:
    done = run(_FORK, name, vendor)
    assert (done.returncode, done.stderr) == (0, "")
    parents = [call.connection for call in vendor.calls]
    assert parents[0] == parents[2] != parents[1]


async def test_A9_a_forked_child_neither_uses_nor_closes_its_parents_clients(
    own: Open, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = own()
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    await transport.aclose()
    assert vendor.open_connections == 1
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    assert [call.connection for call in vendor.calls] == [vendor.calls[0].connection, vendor.calls[0].connection + 1]


async def test_L14_the_end_of_a_closed_loop_leaves_nothing_to_do(vendor: VendorServer) -> None:
    transport = open_transport("httpx")

    async def ask() -> None:
        await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))

    await asyncio.to_thread(asyncio.run, ask())
    await ask()  # forgets the client of the loop that ended
    await asyncio.to_thread(asyncio.run, ask())
    await transport.aclose()
    await asyncio.to_thread(assert_closed, vendor)


@pytest.mark.long
@pytest.mark.parametrize("name", OWN)
def test_L14_nothing_warns_when_nobody_closes(name: str, vendor: VendorServer) -> None:
    done = run(_DIRTY, name, vendor)
    assert (done.returncode, done.stderr) == (0, "")


def run(script: str, name: str, vendor: VendorServer) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script, name, vendor.origin + "/x"]
    # Measured for coverage, anyio's `except asyncio.InvalidStateError` lets one through in such a short-lived process.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)


async def test_L2_L14_closing_a_retired_client_is_no_requests_business() -> None:
    """L2, L14: a retired client is closed in its own task, which a cancelled request does not stop."""
    gate = asyncio.Event()
    closed: list[str] = []
    names = iter(("first", "second"))

    async def close(client: str) -> None:
        await gate.wait()
        closed.append(client)

    clients = LoopClients(lambda: next(names), close)
    first = await clients.acquire()
    clients.retire(first)
    assert (await clients.acquire()).client == "second"  # `first` is in use: nothing is closed yet
    clients.release(first)
    tasks = asyncio.all_tasks()
    user = asyncio.create_task(clients.acquire())
    second = await user
    (closing,) = asyncio.all_tasks() - tasks
    assert (second.client, closed) == ("second", [])
    assert not user.cancel()
    clients.release(second)
    end = asyncio.create_task(clients.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await end
    assert sorted(closed) == ["first", "second"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
async def test_L14_a_retired_pool_is_closed_with_the_next_request(name: str, vendor: VendorServer) -> None:
    transport = open_transport(name)  # type: ignore[arg-type]  # the parameter's values are the allowed names
    vendor.script(faults.Hang())
    task = asyncio.create_task(transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)))
    other = [transport.send(request(vendor.origin + "/x"), deadline=Deadline(5)) for _ in range(5)]
    await asyncio.gather(*other)
    await vendor.calls_reached(6)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await transport.send(request(vendor.origin + "/x"), deadline=Deadline(5))
    await until(lambda: vendor.open_connections == 1)  # the fresh pool's
    await transport.aclose()
    await asyncio.to_thread(assert_closed, vendor)


# --- logs -------------------------------------------------------------------------------------------------------------


async def test_A18_the_http_clients_own_logging_is_quiet(
    transport: Transport, vendor: VendorServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "httpcore.http11", "httpcore2.http11", "aiohttp.client"):
        caplog.set_level(logging.DEBUG, logger=name)
    vendor.script(faults.Respond(200, b"{}", {"X-Echo": "planted-value"}), then=faults.Reset())
    await transport.send(request(vendor.origin + "/planted-id", authorization="planted-key"), deadline=Deadline(5))
    await failure(transport, vendor.origin + "/planted-id")
    assert "planted" not in caplog.text
    assert "/planted" not in "".join(str(record.args) + repr(record.__dict__) for record in caplog.records)


async def test_A18_the_users_own_requests_are_logged_as_before(
    vendor: VendorServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    open_transport("httpx")
    async with httpx.AsyncClient() as client:
        await client.get(vendor.origin + "/theirs")
        await open_transport(client).send(request(vendor.origin + "/ours"), deadline=Deadline(5))
    assert "/theirs" in caplog.text
    assert "/ours" not in caplog.text


def test_A18_reprs_show_no_values() -> None:
    sent = HttpRequest("GET", "https://h.example/planted", {"authorization": "planted"}, b"planted")
    got = HttpResponse(200, Headers([(b"x", b"planted")]), b"planted")
    assert "planted" not in repr(sent) + repr(got) + repr(got.headers)
