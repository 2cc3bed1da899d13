"""The embedded Profile API over a mirror that is filled from the vendor as it is asked."""

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
from ..store.mirror_store import MirrorStore
from ..store.model import Collection
from .recording_source import RecordingSource

__all__ = ["Relay"]

_MOMENT = 0.001  # the mirror is the cache: the client's own holds nothing beyond the load that callers share


class Relay:
    """Answers from a mirror, and asks the vendor for what it lacks or what is too old.

    All requests share one load a key, and the vendor's limits. What the vendor says is written into the mirror. When it
    is slow, what is mirrored is served after `budget` seconds, and the load goes on; when it is gone, what is mirrored
    is served whatever its age, and what never was is answered with 503, not with "no such record".

    ```python
    mirror = MirrorStore("users.mirror")
    mirror.add_collection("Users", key="user_id", id=17)       # the number that the entity has at Census
    relay = Relay(mirror, {"Users": CensusSource(key, entity=17)})
    app = relay.app(keys=[ApiKey.from_secret(...)])
    ```

    Run it in one process: its single flight and limits are those of the process.

    Args:
        store: the mirror, with the collections that are served.
        sources: the vendor's source of each collection, by its name. A collection without one is served as it is.
        max_age: seconds after which a record is asked for again. Default 3600.
        missing_max_age: seconds for which it is remembered that there is no such record. Default 300.
        budget: seconds that a request with a record too old waits for a newer one. Default 0.2.
        deadline: seconds that a request without any record waits, and that one load may take. Default 5.
        trust_missing_for: seconds after it found a record within which the vendor's word that a mirrored record is gone
            is taken. Default 60.
        source_policy: circuit breaker, retries and limits of the calls to each source.
        timer: the monotonic clock, in seconds.

    Raises:
        ConfigurationError: a source is for a collection that the mirror does not have, or a number is out of range.
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
                raise ConfigurationError(f"the mirror has no collection {name!r}; add_collection() makes it")
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
        """The ASGI application; the arguments are those of `ProfileAPI`."""
        return ProfileAPI(self.store, before_read=self.fill, **options)

    async def fill(self, collection: Collection, record_ids: Sequence[str]) -> None:
        """Have the mirror know these records, as new as can be had within the budget.

        Raises:
            StoreError: nothing is known of one of them, and the vendor cannot be asked.
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
            return  # no record has such an id
        profile = await client.lookup(key, budget=self._deadline if known is None else self._budget)
        if known is None and not profile and profile.reason is Reason.UNAVAILABLE:
            raise StoreError("nothing is known of this record, and the vendor does not answer")

    async def aclose(self) -> None:
        """End the loads under way, and close the sources. The mirror stays open."""
        for client in self._clients.values():
            await client.aclose()

    async def __aenter__(self) -> Relay:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Relay over {self.store!r}>"
