"""Filling of a mirror in advance, before the vendor shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from .._utils.validation import check_int, check_number
from ..client.pipeline_lookup import run_workers
from ..sources.amperity import AmperitySource
from ..sources.base import Found, ProfileSource
from ..store.mirror_store import MirrorStore
from .paced_calls import Calls
from .recording_source import RecordingSource

__all__ = ["MirrorReport", "mirror_ids", "mirror_index"]


@dataclass(slots=True)
class MirrorReport:
    """The outcome of a run.

    Args:
        found: records written to the mirror.
        missing: ids that the vendor does not have.
        fresh: ids skipped because the mirror's entry is recent.
        failed: ids for which the call failed; run it again.
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
    """Fetch each of these ids and mirror the records, for a vendor that cannot list them.

    Entries not older than `max_age` are skipped, so an interrupted run can be repeated.

    Args:
        source: the vendor's source, e.g. a `CensusSource`.
        store: the mirror.
        collection: the name of the collection in the mirror.
        ids: the ids, read lazily.
        max_age: the age in seconds from which an entry is fetched again. Default one day.
        concurrency: the number of concurrent calls. Default 8.
        rate: the largest number of calls per second. No limit by default.
        timeout: the timeout of one call, in seconds; a failed call is retried twice.

    Returns:
        The counts of the run.

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
        source: the source of the index.
        store: the mirror.
        collection: the name of the collection in the mirror.
        limit: the number of profiles per page.
        timeout: the timeout of one page, in seconds.

    Returns:
        The number of profiles.

    Raises:
        SourceError: a page could not be fetched. Profiles mirrored so far are kept.
    """
    known = store.collection(collection)
    report = MirrorReport()
    async for page in source.profile_pages(limit=limit, timeout=timeout):
        await asyncio.to_thread(store.put_many, known, [(row.id, row.attributes) for row in page.data])
        report.found += len(page.data)
    return report
