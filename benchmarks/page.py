"""A page under uvicorn while its vendor is healthy, slow, hung, down or failing: p50 and p99, ours beside hand-written.

Four processes: shop, vendor, visitors, and this one. Regulars are in the cache when the vendor changes condition, but
profiles are fresh for one second only; a part of the visitors was never seen before. The first half of the visits shows
what the change does. The second half begins after the first calls have failed (ours gives them 5 seconds), and shows
what is left of it.
"""

from __future__ import annotations

import statistics
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ._child import Child
from ._measure import number
from ._pages import BARE, KINDS, OURS
from ._table import Table, Verdict, main
from ._vendor import CONDITIONS


@dataclass(frozen=True)
class Plan:
    """How much traffic: `visits` at `rate` a second, of `regulars` and a share of `newcomers`; who waits longer than
    `retry_timeout` seconds has failed."""

    visits: int
    rate: float
    regulars: int
    rounds: int
    newcomers: float = 0.2
    retry_timeout: float = 3.0


FULL = Plan(visits=2_100, rate=150, regulars=100, rounds=1)
QUICK = Plan(visits=12, rate=80, regulars=3, rounds=1, retry_timeout=0.5)


def visit_all(plan: Plan, kind: str, condition: str, shop: Child, vendor: Child, visitors: Child) -> dict[str, Any]:
    """One measurement, with a new vendor and an empty cache."""
    port = shop.ready()["port"]
    where = vendor.ask(do="open")
    # A shop that was stuck in the last condition takes its time to come to this.
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/fresh?{urlencode(where)}", timeout=120) as answer:
        answer.read()
    crowd = {"port": port, "regulars": plan.regulars, "retry_timeout": plan.retry_timeout, "rate": plan.rate}
    if kind != BARE:
        visitors.ask(do="warm", **crowd)
    before = vendor.ask(do="set", condition=condition)["calls"]
    seen = visitors.ask(do="visit", visits=plan.visits, newcomers=plan.newcomers, **crowd)
    return {**seen, "calls": vendor.ask(do="close")["calls"] - before}


def measure(plan: Plan) -> Table:
    with ExitStack() as stack:
        vendor, visitors, *shops = [
            stack.enter_context(Child(module, *args))
            for module, *args in (("_vendor",), ("_load",), *(("_pages", kind) for kind in KINDS))
        ]
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for _ in range(plan.rounds):
            for condition in CONDITIONS:
                for kind, shop in zip(KINDS, shops, strict=True):
                    if kind != BARE or condition == CONDITIONS[0]:
                        seen = visit_all(plan, kind, condition, shop, vendor, visitors)
                        found.setdefault((condition, kind), []).append(seen)
    return _table(found, plan)


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def _table(found: dict[tuple[str, str], list[dict[str, Any]]], plan: Plan) -> Table:
    half = plan.visits // 2
    columns = (
        "vendor: shop",
        "failed pages",
        "p50 ms, first half",
        "p99",
        "p50 ms, second half",
        "p99",
        "vendor calls",
    )
    table = Table(f"A page under uvicorn, {plan.rate:g} visits a second", columns)
    p99: dict[tuple[str, str], tuple[float, float]] = {}
    for (condition, kind), rounds in found.items():
        halves = [[seen["ms"][:half] for seen in rounds], [seen["ms"][half:] for seen in rounds]]
        figures = [
            statistics.median(percentile(values, part) for values in one) for one in halves for part in (0.5, 0.99)
        ]
        p99[condition, kind] = figures[1], figures[3]
        failed = sum(sum(seen["failed"]) for seen in rounds)
        visits = plan.visits * len(rounds)
        calls = statistics.median(seen["calls"] for seen in rounds)
        table.add(
            f"{condition}: {kind}",
            f"{failed:,.0f} of {visits:,}",
            *map(number, figures),
            "refused" if condition == "down" else f"{calls:,.0f}",
        )
    first, then = p99["hung", OURS]
    bare = p99["healthy", BARE][1]
    table.verdicts = [
        Verdict("hung: p99 of ours at first at most the budget + 10 ms", f"{first:.1f} ms", first <= 60),
        Verdict("hung: p99 of ours later about that of no profile", f"{then:.1f} and {bare:.1f} ms", then <= bare + 5),
        _no_failure(found),
    ]
    table.notes.append(
        f"Medians of {plan.rounds} rounds of {plan.visits:,} visits; {plan.newcomers:.0%} newcomers, {plan.regulars} "
        "regulars. Latency is measured from the scheduled time of a visit; a page that takes over "
        f"{plan.retry_timeout:g} s counts as failed. uvicorn runs on asyncio's own loop. A healthy vendor takes 20 "
        "ms. The hand-written middleware fails open (no profile on any httpx error)."
    )
    return table


def _no_failure(found: dict[tuple[str, str], list[dict[str, Any]]]) -> Verdict:
    failed = sum(sum(seen["failed"]) for (_, kind), rounds in found.items() if kind == OURS for seen in rounds)
    return Verdict("no failed page of ours in any condition", f"{failed:,.0f}", failed == 0)


def run(quick: bool) -> list[Table]:
    """Pages under uvicorn, with a vendor in all conditions."""
    return [measure(QUICK if quick else FULL)]


if __name__ == "__main__":
    main(run)
