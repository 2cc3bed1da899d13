"""`SharedCache`: settings of the second level, shared by all clients of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..._utils.validation import check_number
from ...errors import ConfigurationError, SharedCacheUnavailable
from ..cache import ProfileCache
from .backplane import Backplane
from .connection import Connections
from .sealing import Plaintext, Sealer, Sealing, check_secrets
from .second_level import CacheKey, SecondLevel

__all__ = ["SharedCache"]


class SharedCache:
    """A second cache level in Valkey or Redis, shared by all processes, with a backplane for invalidations.

    ```python
    shared = SharedCache("rediss://cache.internal:6379/0", secrets=[os.environ["PROFILE_CACHE_SECRET"]])
    profiles = ProfileClient(source, shared=shared)
    ```

    A lookup reads the first level, then the second one, then the source; one process at a time loads a key.
    Invalidations, overlays and `rekey` are sent to all processes; `await client.acknowledged()` returns when all have
    applied them. While the server is down or slow, lookups continue without it.

    Names on the server are HMACs, and values are encrypted, so ids and attributes cannot be read there.

    Args:
        url: `redis://`, `rediss://` (TLS), `valkey://`, `valkeys://` (TLS) or `unix://`.
        secrets: texts of at least 32 characters. The first one encrypts, all of them decrypt. To rotate, add the new
            one at the end in all processes, then move it to the front.
        prefix: the prefix of all names on the server. Processes with the same prefix, secrets and source share entries.
            Default `"profile_enrich"`.
        cluster: whether the server is a cluster. Default false.
        timeout: the timeout of one command, in seconds, after which the lookup continues without it. Default 0.02.
        lease: seconds without a heartbeat after which a process serves only entries loaded within that time; also how
            long an acknowledgement waits for a process that does not respond. Default 1.
        load_lease: seconds after which another process takes over the load of a dead process. Default 1.
        eager_refresh: the share of its `ttl`, between 0 and 1, after which a lookup of an entry starts a refresh in one
            of the processes, before the entry is stale. Default none.
        insecure_plaintext: whether to store values without encryption. Default false.
        options: further arguments of `redis.asyncio.Redis`, e.g. `{"ssl_ca_certs": "ca.pem"}`.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
        MissingExtraError: `redis` or `cryptography` is not installed (extra `redis`).
    """

    def __init__(
        self,
        url: str,
        *,
        secrets: Sequence[str] = (),
        prefix: str = "profile_enrich",
        cluster: bool = False,
        timeout: float = 0.02,
        lease: float = 1.0,
        load_lease: float = 1.0,
        eager_refresh: float | None = None,
        insecure_plaintext: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(prefix, str) or not prefix or not prefix.isascii() or {"{", "}"} & set(prefix):
            raise ConfigurationError("prefix of SharedCache must be a non-empty ASCII text without braces")
        if insecure_plaintext and secrets:
            raise ConfigurationError("SharedCache takes secrets, or insecure_plaintext=True, not both")
        self._sealing: Sealing = Plaintext() if insecure_plaintext else Sealer(check_secrets(secrets))
        timeout = check_number("timeout", timeout, positive=True)
        self.lease = check_number("lease", lease, positive=True)
        self._load_lease = check_number("load_lease", load_lease, positive=True)
        if eager_refresh is not None and not 0 < check_number("eager_refresh", eager_refresh) < 1:
            raise ConfigurationError(f"eager_refresh must be a share between 0 and 1, not {eager_refresh!r}")
        self._eager_refresh = eager_refresh
        self._connections = Connections(url, cluster=cluster, timeout=timeout, options=options or {})
        self.backplane = Backplane(self._connections, prefix, self._sealing, self.lease)

    def level(
        self, namespace: str, *, cache: ProfileCache[CacheKey], max_entry_bytes: int, timer: Callable[[], float]
    ) -> SecondLevel:
        """Make the second level of one client. Internal: `ProfileClient` calls it."""
        return SecondLevel(
            namespace,
            cache=cache,
            connections=self._connections,
            sealing=self._sealing,
            backplane=self.backplane,
            lease=self._load_lease,
            eager_refresh=self._eager_refresh,
            max_entry_bytes=max_entry_bytes,
            timer=timer,
        )

    async def acknowledged(self, timeout: float) -> None:
        """Wait until all processes have applied the invalidations of this one so far.

        Args:
            timeout: seconds to wait.

        Raises:
            SharedCacheUnavailable: the timeout passed. The invalidation is repeated in the background.
        """
        waiting = asyncio.wrap_future(self.backplane.outbox.acknowledgement())
        done, _ = await asyncio.wait({waiting}, timeout=timeout)
        if not done:
            waiting.cancel()
            raise SharedCacheUnavailable(
                f"the other processes did not acknowledge the invalidation within {timeout:g} s;"
                " it is repeated in the background until they do"
            )

    async def aclose(self) -> None:
        """Close the connections of lookups on the running loop."""
        await self._connections.aclose()

    def __repr__(self) -> str:
        return f"<SharedCache {'available' if self.backplane.available else 'not available'}>"
