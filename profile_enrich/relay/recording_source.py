"""Source that writes each of the vendor's responses to the mirror."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .._utils.deadline import Deadline
from ..errors import ConfigurationError, SourceResponseError
from ..profile import ProfileKey
from ..sources.base import Excluded, Found, NotFound, NotModified, ProfileSource, SourceResult, Validators
from ..store.mirror_store import MirrorStore

__all__ = ["RecordingSource"]


class RecordingSource:
    """Fetch from the vendor, and write the result to a collection of the mirror before returning it.

    A vendor that is being shut down may report every record as missing. A report that a mirrored record is missing is
    therefore accepted only within `trust_missing_for` seconds after the vendor returned a record.

    Args:
        source: the vendor's source.
        store: the mirror.
        collection: the entity id of the collection in the mirror.
        trust_missing_for: how long missing records are trusted after a found one, in seconds.
        timer: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        source: ProfileSource,
        store: MirrorStore,
        collection: int,
        *,
        trust_missing_for: float,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._store = store
        self._collection = collection
        self._trust_for = trust_missing_for
        self._timer = timer
        self._found_at: float | None = None

    @property
    def name(self) -> str:
        """The vendor's."""
        return self._source.name

    @property
    def namespace(self) -> str:
        """The vendor's."""
        return self._source.namespace

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Fetch from the vendor and mirror the result; see `ProfileSource.fetch`."""
        result = await self._source.fetch(key, deadline=deadline)
        await asyncio.to_thread(self._note, key.value, result)
        return result

    def _note(self, record_id: str, result: SourceResult) -> None:
        collection = self._store.collection(self._collection)
        problem = ""
        if isinstance(result, Found):
            try:
                self._store.put_record(collection, record_id, result.record.attributes)
            except ConfigurationError as failure:
                problem = failure.message
            self._found_at = self._timer()
        elif isinstance(result, Excluded):  # an opt-out is always accepted
            self._store.delete_record(collection, record_id)
        elif isinstance(result, NotFound):
            known = self._store.look(collection, record_id)
            if known is None or not known.there or self._is_trusted():
                self._store.delete_record(collection, record_id)
        elif isinstance(result, NotModified):
            self._store.touch(collection, record_id)
        if problem:
            raise SourceResponseError(f"the vendor's record cannot be mirrored: {problem}")

    def _is_trusted(self) -> bool:
        return self._found_at is not None and self._timer() - self._found_at <= self._trust_for

    async def aclose(self) -> None:
        """Close the vendor's source."""
        await self._source.aclose()
