"""Fill a mirror ahead, before the vendor is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from .._utils.deadline import Deadline
from .._utils.validation import check_int, check_number
from ..errors import InvalidKeyError, SourceError
from ..profile import ProfileKey
from ..sources.amperity import AmperitySource
from ..sources.base import Found, ProfileSource
from ..store.mirror_store import MirrorStore
from .recording_source import RecordingSource

__all__ = ["MirrorReport", "mirror_ids", "mirror_index"]

_ATTEMPTS = 3


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
    """
    known = store.collection(collection)
    check_int("concurrency", concurrency)
    check_number("max_age", max_age)
    every = 0.0 if rate is None else 1 / check_number("rate", rate, unit="calls a second", positive=True)
    recording = RecordingSource(source, store, known.id, trust_missing_for=0.0)
    report = MirrorReport()
    waiting = iter(ids)
    loop = asyncio.get_running_loop()
    next_call = loop.time()

    async def work() -> None:
        nonlocal next_call
        for record_id in waiting:
            there = store.look(known, record_id)
            if there is not None and store.now() - there.fetched_at <= max_age:
                report.fresh += 1
                continue
            turn, next_call = next_call, max(next_call, loop.time()) + every
            await asyncio.sleep(turn - loop.time())
            outcome = await _ask(recording, record_id, timeout)
            if outcome is None:
                report.failed += 1
            elif outcome:
                report.found += 1
            else:
                report.missing += 1

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return report


async def _ask(source: ProfileSource, record_id: str, timeout: float) -> bool | None:
    """Whether the vendor has the record; `None` when it cannot be asked."""
    for attempt in range(_ATTEMPTS):
        try:
            result = await source.fetch(ProfileKey(record_id), deadline=Deadline(timeout))
            return isinstance(result, Found)
        except InvalidKeyError:
            return False
        except SourceError as failure:
            wait = failure.retry_after if getattr(failure, "retry_after", None) else 0.2 * 2**attempt
            if attempt + 1 < _ATTEMPTS:
                await asyncio.sleep(min(float(wait or 0.2), timeout))
    return None


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
