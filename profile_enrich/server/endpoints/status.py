"""What `/status` tells a key's holder."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

from ...store import ProfileStore
from ..auth.api_keys import ApiKey
from ..counters import SharedCounters
from .change_feed import ChangeFeed

__all__ = ["status_of"]


def status_of(store: ProfileStore, totals: SharedCounters, feed: ChangeFeed, key: ApiKey) -> dict[str, Any]:
    """The collections that the key may read, their age, and what was counted; ready for JSON.

    Args:
        store: what is served.
        totals: what the workers counted.
        feed: the change feed of this process.
        key: who asks.
    """
    now = time.time()
    counted = totals.all()
    requests: Counter[str] = Counter()
    responses: Counter[str] = Counter()
    for (kind, family), count in counted["requests"].items():
        requests[kind] += count
        responses[family] += count
    return {
        "generation": store.generation,
        "uptime_seconds": round(now - totals.started, 3),
        "collections": [
            {
                "id": item.id,
                "index_id": item.index_id,
                "name": item.name,
                "rows": item.rows,
                "generation": item.generation,
                "updated_at": item.updated_at.isoformat(timespec="seconds"),
                "age_seconds": round(max(0.0, now - item.updated_at.timestamp()), 3),
            }
            for item in store.collections()
            if key.may_read(item.name)
        ],
        "process": os.getpid(),
        "processes": counted["processes"],
        "requests": requests,
        "responses": responses,
        "feed": {"streams": feed.streams, "keys_sent": feed.sent},
    }
