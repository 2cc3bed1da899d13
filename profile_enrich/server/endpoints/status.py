"""Content of `/status`, within the scope of the key."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...store import Collection, ProfileStore
from ..auth.api_keys import ApiKey
from ..counters import BUCKETS, SharedCounters
from .change_feed import ChangeFeed

__all__ = ["status_of"]

_FAILED = "the refresh failed; a key with access to all collections can read the reason"


def status_of(
    store: ProfileStore,
    totals: SharedCounters,
    feed: ChangeFeed,
    key: ApiKey,
    refreshing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the collections that the key may read, their age, and the counters, as JSON data.

    Args:
        store: the served store.
        totals: counters of the workers.
        feed: the change feed of this process.
        key: the key of the request. Data about the whole store (its generation, the feed's counts, a refresh's error,
            which names columns) are only for keys with access to all collections.
        refreshing: the state of scheduled refreshing, if any.
    """
    now = time.time()
    counted = totals.all()
    requests: Counter[str] = Counter()
    responses: Counter[str] = Counter()
    for (kind, family), count in counted["requests"].items():
        requests[kind] += count
        responses[family] += count
    seen = key.visible(store.collections())
    content: dict[str, Any] = {
        "generation": store.generation if key.sees_everything else max((item.generation for item in seen), default=0),
        "uptime_seconds": round(now - totals.started, 3),
        "collections": [_collection(item, key, now) for item in seen],
        "process": os.getpid(),
        "processes": counted["processes"],
        "requests": requests,
        "responses": responses,
        "latency": {"up_to_seconds": BUCKETS, "counts": counted["buckets"]},
    }
    if key.sees_everything:
        content["feed"] = {"streams": feed.streams, "keys_sent": feed.sent}
    if refreshing is not None:
        content["refreshing"] = dict(refreshing)
        if not key.sees_everything and refreshing.get("last_error") is not None:
            content["refreshing"]["last_error"] = _FAILED
    return content


def _collection(item: Collection, key: ApiKey, now: float) -> dict[str, Any]:
    return {
        "id": item.id,
        "index_id": None if item.index_fields is None else item.index_id,
        "name": item.name,
        "description": item.description,
        "key": item.key if key.sees_ids(item) else None,
        "columns": [{"name": column.name, "type": column.type} for column in key.columns(item)],
        "filterable": key.filterable(item),
        "rows": item.rows,
        "generation": item.generation,
        "updated_at": item.updated_at.isoformat(timespec="seconds"),
        "age_seconds": round(max(0.0, now - item.updated_at.timestamp()), 3),
    }
