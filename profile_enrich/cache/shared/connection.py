"""Connections to Valkey or Redis: one client per event loop; errors hold no addresses, keys or values."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..._utils.optional_import import import_extra
from ...errors import ConfigurationError
from ...sources.http.client_per_loop import LoopClients
from .pipelined_connection import PipelinedClient

__all__ = ["PARALLEL", "Connections", "NoConnection"]

PARALLEL = 16
"""The largest number of concurrent commands to a cluster, each on a separate connection."""

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")


class NoConnection(Exception):
    """More lookups at once than a cluster's client has connections: nothing is wrong with the server."""


class Connections:
    """Open clients of the `redis` package.

    Args:
        url: `redis://`, `rediss://` (TLS), `valkey://`, `valkeys://` (TLS) or `unix://`.
        cluster: whether the server is a cluster.
        timeout: the timeout of one command of a lookup, in seconds.
        options: further arguments of `redis.asyncio.Redis`, e.g. `ssl_ca_certs`.

    Raises:
        ConfigurationError: the URL is invalid.
        MissingExtraError: `redis` is not installed (extra `redis`).
    """

    def __init__(self, url: str, *, cluster: bool, timeout: float, options: Mapping[str, Any]) -> None:
        scheme = urlsplit(url).scheme if isinstance(url, str) else ""
        if scheme not in SCHEMES:
            raise ConfigurationError(
                "the url of SharedCache must begin with redis://, rediss://, valkey://, valkeys:// or unix://"
            )
        self._url = url.replace("valkey", "redis", 1) if scheme.startswith("valkey") else url
        self._redis = import_extra("redis.asyncio", "the shared cache", "redis")
        self._cluster = cluster
        self._options = dict(options)
        self.connect_timeout = 4 * timeout
        """Seconds that connecting may take for a lookup."""
        self._clients: LoopClients[_LoopClient] = LoopClients(lambda: self.open(timeout), _close)

    async def run(self, *words: str | bytes | int) -> Any:
        """Run one command of a lookup on the running loop's client.

        Raises:
            NoConnection: a cluster's connections were all in use for the time that a command may take.
            Exception: the server is not there, slow, or refuses the command.
        """
        lease = await self._clients.acquire()
        try:
            return await lease.client.run(*words)
        finally:
            self._clients.release(lease)

    def open(self, timeout: float) -> _LoopClient:
        """Make a client that the caller closes. It connects with its first command.

        Args:
            timeout: the timeout of a command, in seconds; connecting may take four times as long.
        """
        return (_ClusterClient if self._cluster else PipelinedClient)(self._make(timeout, self._cluster), timeout)

    def subscriber(self, timeout: float) -> Any:
        """Make a client for publish and subscribe. In a cluster, it uses one node, since messages reach all nodes."""
        return self._make(timeout, False)

    def _make(self, timeout: float, cluster: bool) -> Any:
        pause = import_extra("redis.backoff", "the shared cache", "redis").NoBackoff()
        # A client of a cluster that reads its topology anew closes all its connections under the other commands.
        attempts = 3 if cluster else 0
        retries = import_extra("redis.asyncio.retry", "the shared cache", "redis").Retry(pause, attempts)
        kind = self._redis.RedisCluster if cluster else self._redis.Redis
        return kind.from_url(
            self._url,
            **{
                "socket_timeout": timeout,
                "socket_connect_timeout": 4 * timeout,
                "max_connections": 2 * PARALLEL,
                "retry": retries,
                "protocol": 2,
                **self._options,
            },
        )

    async def aclose(self) -> None:
        """Close the clients of the event loops."""
        await self._clients.aclose()

    def __repr__(self) -> str:
        return f"<Connections {'to a cluster' if self._cluster else 'to one server'}>"


class _LoopClient(Protocol):
    """A client of one event loop."""

    async def run(self, *words: str | bytes | int) -> Any: ...

    async def aclose(self) -> None: ...


class _ClusterClient:
    """A client of a cluster, with a bound on its commands at the same time."""

    def __init__(self, redis: Any, timeout: float) -> None:
        self._redis = redis
        self._timeout = timeout
        self._slots = asyncio.Semaphore(PARALLEL)

    async def run(self, *words: str | bytes | int) -> Any:
        try:
            async with asyncio.timeout(self._timeout if self._slots.locked() else None):
                await self._slots.acquire()
        except TimeoutError:
            raise NoConnection from None
        try:
            await self._redis.initialize()  # until it knows the topology, it sends commands to nodes at random
            return await self._redis.execute_command(*words)
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        with contextlib.suppress(TimeoutError):  # commands that run would open new connections
            async with asyncio.timeout(self._timeout):
                for _ in range(PARALLEL):
                    await self._slots.acquire()
        # Its own `aclose` does nothing while it reads the topology anew, or right after a failure.
        for nodes in ("nodes_cache", "startup_nodes"):
            with contextlib.suppress(Exception):
                await self._redis.nodes_manager.aclose(nodes)
        await self._redis.aclose()


async def _close(client: _LoopClient) -> None:
    await client.aclose()
