"""Relay: the embedded Profile API over a mirror that is filled from the vendor on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from .._utils.validation import check_number
from ..client.client import ProfileClient
from ..client.source_policy import SourcePolicy
from ..errors import ConfigurationError, InvalidKeyError, StoreError
from ..profile import ProfileKey, Reason
from ..server import ProfileAPI
from ..sources.base import ProfileSource
from ..store.collection import Collection
from ..store.mirror_store import MirrorStore
from .recording_source import RecordingSource

__all__ = ["Relay"]

_MOMENT = 0.001  # the mirror is the cache, so the client caches nothing beyond the load that callers share


class Relay:
    """Serve records from a mirror, and fetch missing or outdated ones from the vendor.

    Concurrent requests share one load per key and the vendor's rate limits, and every response is written to the
    mirror. If the vendor is slow, the mirrored record is served after `budget` seconds while the load continues. If it
    is unavailable, mirrored records are served at any age, and a key that was never mirrored gets a 503 response, not
    "no such record".

    ```python
    mirror = MirrorStore("users.mirror")
    mirror.add_collection("Users", key="user_id", id=17)  # the entity's id at Census
    relay = Relay(mirror, {"Users": CensusSource(key, entity=17)})
    app = relay.app(keys=[ApiKey.from_secret(...)])
    ```

    Run it in one process, because single flight and limits apply per process.

    Args:
        store: the mirror with the served collections.
        sources: the vendor's sources by name of the collection. A collection without a source is served from the mirror
            only.
        max_age: the age in seconds from which a record is fetched again. Default 3600.
        missing_max_age: how long a missing record is cached, in seconds. Default 300.
        budget: how long a request for an outdated record waits for a new one, in seconds. Default 0.2.
        deadline: the time limit of a load, and of a request without a mirrored record, in seconds. Default 5.
        trust_missing_for: how long after returning a record the vendor's report of a missing record is accepted, in
            seconds. Default 60.
        source_policy: circuit breaker, retries and limits of each source.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: the mirror lacks the collection of a source, or a number is out of range.
    """

    def __init__(
        self,
        store: MirrorStore,
        sources: dict[str, ProfileSource],
        *,
        max_age: float = 3600.0,
        missing_max_age: float = 300.0,
        budget: float = 0.2,
        deadline: float = 5.0,
        trust_missing_for: float = 60.0,
        source_policy: SourcePolicy | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._max_age = check_number("max_age", max_age)
        self._missing_max_age = check_number("missing_max_age", missing_max_age)
        self._budget = check_number("budget", budget)
        self._deadline = check_number("deadline", deadline, positive=True)
        check_number("trust_missing_for", trust_missing_for)
        self._clients: dict[int, ProfileClient] = {}
        for name, source in sources.items():
            found = store.find(name)
            if found is None:
                raise ConfigurationError(f"the mirror has no collection {name!r}; add it with add_collection()")
            recording = RecordingSource(source, store, found.id, trust_missing_for=trust_missing_for, timer=timer)
            self._clients[found.id] = ProfileClient(
                recording,
                ttl=_MOMENT,
                stale_ttl=0,
                negative_ttl=_MOMENT,
                deadline=deadline,
                source_policy=source_policy,
                timer=timer,
            )

    def app(self, **options: Any) -> ProfileAPI:
        """Return the ASGI application; the arguments are those of `ProfileAPI`."""
        return ProfileAPI(self.store, before_read=self.fill, **options)

    async def fill(self, collection: Collection, record_ids: Sequence[str]) -> None:
        """Bring these records of the mirror up to date, within the budget.

        Raises:
            StoreError: a record was never mirrored, and the vendor is unavailable.
        """
        client = self._clients.get(collection.id)
        if client is not None:
            await asyncio.gather(
                *(self._fill(client, collection, record_id) for record_id in dict.fromkeys(record_ids))
            )

    async def _fill(self, client: ProfileClient, collection: Collection, record_id: str) -> None:
        known = self.store.look(collection, record_id)
        if known is not None:
            age = self.store.now() - known.fetched_at
            if age <= (self._max_age if known.there else self._missing_max_age):
                return
        try:
            key = ProfileKey(record_id)
        except InvalidKeyError:
            return  # no record can have this id
        profile = await client.lookup(key, budget=self._deadline if known is None else self._budget)
        if known is None and not profile and profile.reason is Reason.UNAVAILABLE:
            raise StoreError("this record is not mirrored, and the vendor is unavailable")

    async def aclose(self) -> None:
        """Cancel running loads and close the sources. The mirror stays open."""
        for client in self._clients.values():
            await client.aclose()

    async def __aenter__(self) -> Relay:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Relay over {self.store!r}>"
