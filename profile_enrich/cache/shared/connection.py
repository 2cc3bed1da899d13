"""Connections to Valkey or Redis: one client per event loop; errors hold no addresses, keys or values."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..._utils.optional_import import engine
from ...errors import ConfigurationError
from ...sources.http.client_per_loop import LoopClients

__all__ = ["PARALLEL", "Connections", "NoConnection"]

T = TypeVar("T")

PARALLEL = 16
"""Commands of one client at the same time, each on a connection of its own."""

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")


class NoConnection(Exception):
    """More lookups at once than there are connections: nothing is wrong with the server."""


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
        self._redis = engine("redis.asyncio", "the shared cache", "redis")
        self._cluster = cluster
        self._options = dict(options)
        self.timeout = timeout
        self._clients: LoopClients[_LoopClient] = LoopClients(self._quick, _close)

    async def run(self, command: Callable[[Any], Awaitable[T]]) -> T:
        """Run one command of a lookup on the running loop's client.

        Raises:
            NoConnection: all connections were in use for the time that a command may take.
            Exception: the server is not there, slow, or refuses the command.
        """
        lease = await self._clients.acquire()
        slots = lease.client.slots
        try:
            if slots.locked():
                await _wait_for(slots, self.timeout)
            else:
                await slots.acquire()
            try:
                if self._cluster:  # until it knows the topology, it sends commands to nodes at random
                    await lease.client.redis.initialize()
                return await command(lease.client.redis)
            finally:
                slots.release()
        finally:
            self._clients.release(lease)

    def _quick(self) -> _LoopClient:
        return _LoopClient(self.open(self.timeout), asyncio.Semaphore(PARALLEL))

    def open(self, timeout: float) -> Any:
        """Make a client that the caller closes. It connects with its first command, and takes `PARALLEL` at a time.

        Args:
            timeout: the timeout of a command, in seconds; connecting may take four times as long.
        """
        pause = engine("redis.backoff", "the shared cache", "redis").NoBackoff()
        # A client of a cluster that reads its topology anew closes all its connections under the other commands.
        attempts = 3 if self._cluster else 0
        retries = engine("redis.asyncio.retry", "the shared cache", "redis").Retry(pause, attempts)
        kind = self._redis.RedisCluster if self._cluster else self._redis.Redis
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

    def subscriber(self, timeout: float) -> Any:
        """Make a client for publish and subscribe. In a cluster, it uses one node, since messages reach all nodes."""
        plain = Connections.__new__(Connections)
        plain.__dict__.update(self.__dict__, _cluster=False)
        return plain.open(timeout)

    async def aclose(self) -> None:
        """Close the clients of the event loops."""
        await self._clients.aclose()

    def __repr__(self) -> str:
        return f"<Connections {'to a cluster' if self._cluster else 'to one server'}>"


async def _wait_for(slots: asyncio.Semaphore, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(slots.acquire(), seconds)
        return
    raise NoConnection


@dataclass(frozen=True, slots=True)
class _LoopClient:
    """A client of one event loop, and how many more commands it takes."""

    redis: Any
    slots: asyncio.Semaphore


async def _close(client: _LoopClient) -> None:
    await client.redis.aclose()
