"""Connections to Valkey or Redis: one client for each event loop, errors without addresses, keys or values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..._utils.optional_import import engine
from ...errors import ConfigurationError
from ...sources.http.client_per_loop import LoopClients

__all__ = ["Connections"]

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")


class Connections:
    """Opens clients of the `redis` package.

    Args:
        url: `redis://`, `rediss://` (TLS), `valkey://`, `valkeys://` (TLS) or `unix://`.
        cluster: whether the server is a cluster.
        timeout: seconds that one command of a lookup may take.
        options: further arguments of `redis.asyncio.Redis`, e.g. `ssl_ca_certs`.

    Raises:
        ConfigurationError: the URL is not one.
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
        self._timeout = timeout
        self._options = dict(options)
        self.clients: LoopClients[Any] = LoopClients(self._quick, _close)
        """The clients of the running loops, for lookups."""
        errors = engine("redis.exceptions", "the shared cache", "redis")
        self.failures: tuple[type[Exception], ...] = (errors.RedisError, OSError, TimeoutError)
        """What a command raises when the server is not there, slow, or refuses it."""

    def _quick(self) -> Any:
        return self.open(self._timeout, pool=64)

    def open(self, timeout: float, *, pool: int = 4) -> Any:
        """Make a client that the caller closes. It connects with its first command.

        Args:
            timeout: seconds that a command may take; connecting may take four times as long.
            pool: connections at the same time, at most.
        """
        retry = engine("redis.backoff", "the shared cache", "redis").NoBackoff()
        once = engine("redis.asyncio.retry", "the shared cache", "redis").Retry(retry, 0)
        kind = self._redis.RedisCluster if self._cluster else self._redis.Redis
        return kind.from_url(
            self._url,
            **{
                "socket_timeout": timeout,
                "socket_connect_timeout": 4 * timeout,
                "max_connections": pool,
                "retry": once,
                "protocol": 2,
                **self._options,
            },
        )

    def subscriber(self, timeout: float) -> Any:
        """Make a client for publish and subscribe: a node of the cluster, since each message reaches all nodes."""
        plain = Connections.__new__(Connections)
        plain.__dict__.update(self.__dict__, _cluster=False)
        return plain.open(timeout)

    async def aclose(self) -> None:
        """Close the clients of the running loops."""
        await self.clients.aclose()

    def __repr__(self) -> str:
        return f"<Connections {'to a cluster' if self._cluster else 'to one server'}>"


async def _close(client: Any) -> None:
    await client.aclose()
