"""Fill a mirror ahead, before the vendor is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from .._utils.validation import check_int, check_number
from ..client.waiting_lookup import run_workers
from ..sources.amperity import AmperitySource
from ..sources.base import Found, ProfileSource
from ..store.mirror_store import MirrorStore
from .calls import Calls
from .recording_source import RecordingSource

__all__ = ["MirrorReport", "mirror_ids", "mirror_index"]


@dataclass(slots=True)
class MirrorReport:
    """What became of the records.

    Args:
        found: written to the mirror.
        missing: the vendor has none with this id.
        fresh: not asked for, because the mirror's answer is new enough.
        failed: the vendor could not be asked; run it again.
    """

    found: int = 0
    missing: int = 0
    fresh: int = 0
    failed: int = 0


async def mirror_ids(
    source: ProfileSource,
    store: MirrorStore,
    collection: str,
    ids: Iterable[str],
    *,
    max_age: float = 86400.0,
    concurrency: int = 8,
    rate: float | None = None,
    timeout: float = 10.0,
) -> MirrorReport:
    """Ask the vendor for each of these ids and mirror the answers: for a vendor that cannot list its records.

    What is mirrored and not older than `max_age` is not asked for again, so that a run that broke off goes on.

    Args:
        source: the vendor's, e.g. a `CensusSource`.
        store: the mirror.
        collection: its name there.
        ids: the ids; read as they are needed.
        max_age: seconds for which a mirrored answer is new enough. Default one day.
        concurrency: calls at the same time. Default 8.
        rate: calls a second at most. Default no limit.
        timeout: seconds for one call; a failed one is repeated twice.

    Returns:
        How many were found, are missing, were new enough, or failed.

    Raises:
        SourceAuthError: the vendor refuses the key. What was mirrored stays.
        SourceRequestError: the vendor refuses the request, e.g. it has no such entity.
    """
    known = store.collection(collection)
    check_int("concurrency", concurrency)
    check_number("max_age", max_age)
    recording = RecordingSource(source, store, known.id, trust_missing_for=0.0)
    calls = Calls(recording, rate=rate, timeout=timeout)
    report = MirrorReport()
    waiting = iter(ids)

    async def work() -> None:
        for record_id in waiting:
            there = store.look(known, record_id)
            if there is not None and store.now() - there.fetched_at <= max_age:
                report.fresh += 1
                continue
            result = await calls.fetch(record_id)
            report.failed += result is None
            report.found += isinstance(result, Found)
            report.missing += result is not None and not isinstance(result, Found)

    await run_workers(work, concurrency)
    return report


async def mirror_index(
    source: AmperitySource, store: MirrorStore, collection: str, *, limit: int = 500, timeout: float = 30.0
) -> MirrorReport:
    """Page through an Amperity index and mirror every profile.

    Args:
        source: of the index.
        store: the mirror.
        collection: its name there.
        limit: profiles of a page.
        timeout: seconds for one page.

    Returns:
        How many profiles there were.

    Raises:
        SourceError: a page could not be had. What was mirrored stays.
    """
    known = store.collection(collection)
    report = MirrorReport()
    async for page in source.profile_pages(limit=limit, timeout=timeout):
        await asyncio.to_thread(store.put_many, known, [(row.id, row.attributes) for row in page.data])
        report.found += len(page.data)
    return report
