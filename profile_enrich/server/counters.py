"""Request counters of this process, summed with those of its sibling workers."""

from __future__ import annotations

import contextlib
import json
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["BUCKETS", "SharedCounters"]

BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds of the duration buckets, in seconds."""

_WRITE_EVERY = 1.0


class SharedCounters:
    """Count requests and their durations, by kind and status class.

    Each worker writes its counts to its own file, at most once per second and only while there are requests; totals are
    the sum of all files. The file of a dead worker is kept, so totals never decrease.

    Args:
        directory: the directory of the workers' files; `None` for a single process.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, float] = {}
        self.buckets: dict[str, list[int]] = {}
        self.started = time.time()
        self._directory = directory
        self._file = None if directory is None else directory / f"{os.getpid()}-{time.time_ns()}.json"
        self._written = 0.0

    def count(self, kind: str, status: int, seconds: float) -> None:
        """Count one response."""
        self.requests[kind, f"{status // 100}xx"] += 1
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
        buckets = self.buckets.get(kind)
        if buckets is None:
            buckets = self.buckets[kind] = [0] * (len(BUCKETS) + 1)
        buckets[bisect_left(BUCKETS, seconds)] += 1
        if self._file is not None and (now := time.monotonic()) - self._written >= _WRITE_EVERY:
            self._written = now
            self.write()

    def write(self) -> None:
        """Publish this worker's counters to its siblings."""
        if self._file is None or not self.requests:
            return
        new = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk must not stop the server
            new.write_text(json.dumps(self._content()))
            new.replace(self._file)

    def all(self) -> dict[str, Any]:
        """Return the totals of all workers: `processes`, `requests` (kind, class, count), `seconds`, `buckets`."""
        contents = [self._content()]
        for file in [] if self._directory is None else sorted(self._directory.glob("*.json")):
            if file != self._file:
                with contextlib.suppress(OSError, ValueError):  # the directory was removed
                    contents.append(json.loads(file.read_text()))
        requests: Counter[tuple[str, str]] = Counter()
        seconds: dict[str, float] = {}
        buckets: dict[str, list[int]] = {}
        for content in contents:
            for kind, family, count in content["requests"]:
                requests[kind, family] += count
            for kind, spent in content["seconds"].items():
                seconds[kind] = seconds.get(kind, 0.0) + spent
            for kind, counts in content["buckets"].items():
                buckets[kind] = [a + b for a, b in zip(buckets.get(kind, [0] * len(counts)), counts, strict=True)]
        return {"processes": len(contents), "requests": requests, "seconds": seconds, "buckets": buckets}

    def _content(self) -> Mapping[str, Any]:
        return {
            "requests": [[kind, family, count] for (kind, family), count in self.requests.items()],
            "seconds": dict(self.seconds),
            "buckets": self.buckets,
        }
