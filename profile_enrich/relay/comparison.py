"""Comparison of a vendor's records with the mirror's, by attribute and without values."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..client.pipeline_lookup import run_workers
from ..sources.amperity import AmperitySource
from ..sources.base import Found, ProfileSource
from ..store import ProfileStore
from ..store.files.row_encoder import to_json
from .paced_calls import Calls

__all__ = ["Comparison", "compare", "compare_index"]


@dataclass(slots=True)
class Comparison:
    """The differences between two servers: names of attributes and counts, no ids and no values.

    Args:
        same: records that are equal, or missing in both.
        different: records that differ.
        only_vendor: records that the store lacks.
        only_store: records that the vendor lacks.
        failed: records for which the call to the vendor failed.
        attributes: the number of records in which each attribute differs.
        types: the number of records in which each attribute differs only in its JSON type (`"1"` and `1`).
    """

    same: int = 0
    different: int = 0
    only_vendor: int = 0
    only_store: int = 0
    failed: int = 0
    attributes: Counter[str] = field(default_factory=Counter[str])
    types: Counter[str] = field(default_factory=Counter[str])

    @property
    def equal(self) -> bool:
        """Whether nothing differs and no call failed."""
        return not (self.different or self.only_vendor or self.only_store or self.failed)


async def compare(
    source: ProfileSource,
    store: ProfileStore,
    collection: str,
    ids: Iterable[str],
    *,
    concurrency: int = 8,
    rate: float | None = None,
    timeout: float = 10.0,
) -> Comparison:
    """Fetch these ids from the vendor and compare the records with the store's. Nothing is written.

    Args:
        source: the vendor's source.
        store: any store: a mirror, a local store, a database.
        collection: its name there.
        ids: the ids of the records.
        concurrency: the number of concurrent calls. Default 8.
        rate: calls a second at most. Default no limit.
        timeout: seconds for one call; a failed one is repeated twice.

    Returns:
        Counts, by attribute.

    Raises:
        SourceAuthError: the vendor refuses the key.
        SourceRequestError: the vendor refuses the request, e.g. it has no such entity.
    """
    known = store.collection(collection)
    found = Comparison()
    waiting = iter(ids)
    calls = Calls(source, rate=rate, timeout=timeout)

    async def work() -> None:
        for record_id in waiting:
            here = await asyncio.to_thread(store.get, known, record_id)
            result = await calls.fetch(record_id)
            if result is None:
                found.failed += 1
                continue
            there = result.record.attributes if isinstance(result, Found) else None
            _note(found, None if here is None else here.attributes, there)

    await run_workers(work, concurrency)
    return found


async def compare_index(
    source: AmperitySource, store: ProfileStore, collection: str, *, limit: int = 500, timeout: float = 30.0
) -> Comparison:
    """Page through an Amperity index, and compare each profile with what the store has. Nothing is written.

    Args:
        source: the source of the index.
        store: any store: a mirror, a local store, a database.
        collection: its name there.
        limit: profiles of a page.
        timeout: seconds for one page.

    Returns:
        Counts, by attribute. What only the store has does not show: name its ids to `compare`.

    Raises:
        SourceError: a page could not be had.
    """
    known = store.collection(collection)
    found = Comparison()
    async for page in source.profile_pages(limit=limit, timeout=timeout):
        for row in page.data:
            here = await asyncio.to_thread(store.get, known, row.id)
            _note(found, None if here is None else here.attributes, row.attributes)
    return found


def _note(found: Comparison, here: Mapping[str, Any] | None, there: Mapping[str, Any] | None) -> None:
    if here is None or there is None:
        found.same += here is there
        found.only_vendor += here is None and there is not None
        found.only_store += there is None and here is not None
        return
    one, other = ({name: to_json(value) for name, value in each.items()} for each in (here, there))
    differing = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    found.same += not differing
    found.different += bool(differing)
    found.attributes.update(differing)
    found.types.update(name for name in differing if _text(one.get(name)) == _text(other.get(name)))


def _text(value: str | None) -> str | None:
    return None if value is None else str(json.loads(value))
