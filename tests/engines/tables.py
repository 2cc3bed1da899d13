"""Helpers for engines with tables: the job as columns, and the expected result of each row."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from profile_enrich import InvalidKeyError, MemorySource, ProfileClient
from profile_enrich.pipeline.keys import key_of
from profile_enrich.testing import VendorServer, faults

from .conftest import ROOT, VARIABLE, Job, make_job

FIELDS = {"tier": "string", "score": "double", "tags": "string"}

Row = tuple[object, ...]

BRISK = {
    "deadline": 0.5,
    "source_policy": {"breaker": {"failures": 0, "open_for": 0.1, "max_open": 2}, "retry": {"attempts": 1}},
}
"""A client that gives one key up soon, and the source not at all: only some keys have faults that do not pass."""


def key_columns(job: Job) -> dict[str, list[Any]]:
    """The job's keys as columns of one type each: text, integers, and floats, which are not keys."""
    raw = [record.get("user_id") for record in job.records]
    whole = [int(key) if isinstance(key, str) and key.isdigit() else None for key in raw]
    return {
        "text": [None if key is None else str(key) for key in raw],
        "whole": whole,
        "fraction": [None if key is None else key + 0.5 for key in whole],
    }


def columns(job: Job, kind: str = "text") -> dict[str, list[Any]]:
    """The job as columns."""
    return {
        "position": [record["position"] for record in job.records],
        "user_id": key_columns(job)[kind],
        "amount": [record["amount"] for record in job.records],
    }


def core(job: Job, keys: Iterable[Any]) -> dict[int, Row]:
    """Return the expected tier, score, tags and reason by position, from the lookup core."""
    said: dict[int, Row] = {}
    with ProfileClient(MemorySource(job.profiles)).blocking() as client:
        for position, key in enumerate(keys):
            try:
                profile = client.lookup(key_of(key))
            except InvalidKeyError as error:
                said[position] = (None, None, None, error.code)
                continue
            tags = f'["a", {profile["tags"][1]}]' if profile else None
            reason = None if profile.reason is None else str(profile.reason)
            said[position] = (profile.get("tier"), profile.get("score"), tags, reason)
    return said


def distinct(keys: Iterable[Any]) -> int:
    """Return the expected number of calls."""
    usable = set()
    for key in keys:
        try:
            usable.add(key_of(key))
        except InvalidKeyError:
            continue
    return len(usable)


def by_position(rows: Iterable[dict[str, Any]]) -> dict[int, Row]:
    """Return an engine's output, checked for repeated rows."""
    found: dict[int, Row] = {}
    for row in rows:
        assert row["position"] not in found, "a row is repeated"
        assert row["amount"] == row["position"] / 4
        found[row["position"]] = tuple(
            row[name] for name in ("profile_tier", "profile_score", "profile_tags", "profile_reason")
        )
    return found


def break_some(vendor: VendorServer) -> dict[str, str | None]:
    """Plans faults for some keys. Returns, by key, the reason that its rows should give."""
    vendor.always(faults.ServerError(), key="3")
    vendor.always(faults.Hang(), key="4")
    vendor.script(faults.RateLimited(retry_after=1), key="5")
    vendor.always(faults.Garbage(), key="6")
    return {"3": "source_unavailable", "4": "source_timeout", "5": None, "6": "source_response"}


def most_in_a_second(vendor: VendorServer) -> int:
    """Return the largest number of lookups within any second."""
    times = sorted(call.at for call in vendor.calls if "/record" in call.path)
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] > 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def children(of: int) -> dict[int, str]:
    """Return the descendants of a process, with their command lines."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just exited
    found: dict[int, str] = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != of:
            ancestor = parents[ancestor]
        if ancestor == of and pid != of:
            try:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "the condition never held"
        time.sleep(0.02)


def say(text: str) -> None:
    """Print a figure, which pytest shows with `-s`, or if the test fails."""
    sys.stdout.write(f"\n{text}\n")


def page_code(page: Path, vendor: VendorServer, where: Path) -> str:
    """Return the code of a page, with the test's vendor, variable and directory substituted."""
    (code,) = re.findall(r"^```py\n(.+?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    options = {"entity": "Users", "base_url": vendor.base_url}
    changed = code.replace('{"entity": "Users"}', repr(options)).replace("CENSUS_API_KEY", VARIABLE)
    changed = changed.replace('("orders', f'("{where}/orders').replace('("enriched', f'("{where}/enriched')
    assert repr(options) in changed
    assert VARIABLE in changed
    return str(changed)


def run_page(page: str, vendor: VendorServer, where: Path, **names: object) -> dict[int, Row]:
    """Runs the code of a page on a file of 5,000 orders. Returns what it wrote: by position, tier and reason."""
    import pyarrow as pa
    from pyarrow import dataset, parquet

    code = page_code(ROOT / "docs" / page, vendor, where)
    parquet.write_table(pa.table(columns(make_job())), where / "orders.parquet")
    exec(compile(code, page, "exec"), dict(names))
    (written,) = (path for path in where.iterdir() if path.name.startswith("enriched"))
    rows = dataset.dataset(sorted(map(str, written.glob("*.parquet")))).to_table().to_pylist()
    return {row["position"]: (row["profile_tier"], row["profile_reason"]) for row in rows}


def expected_of_page() -> dict[int, Row]:
    """Return the expected output of the page."""
    job = make_job()
    return {position: (row[0], row[3]) for position, row in core(job, key_columns(job)["text"]).items()}
