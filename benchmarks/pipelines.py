"""Enriching many records: by hand, with `enrich`, and with engines, against an upstream that takes 5 ms.

`python -m benchmarks.pipelines` writes `benchmarks/PIPELINES.md`. Each contender runs in a process of its own, so that
its memory is its own; they take turns in every round, each round in another order.

Engines have tables of their own (`_engines.py`), each measured in the environment that `make test-engines` builds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _engines, _machine
from ._child import Child
from ._measure import number
from ._report import replaced, results
from ._table import Table, Verdict
from .miss import TRANSPORTS

RESULTS = Path(__file__).with_name("PIPELINES.md")

UPSTREAM_SECONDS = 0.005
SLOW_EVERY = 100

_HEAD = """# Enriching records, side by side

Events of customers with Zipf-distributed frequencies (s = 1); an upstream of 5 ms in another process, which counts
its calls; 64 concurrent calls. Each run is a separate process; contenders take turns in every round, each round in
another order; figures are medians over the rounds, ratios are medians of the rounds' own ratios. Memory is the peak
growth of the process (`ru_maxrss`). Contenders without a cache take the same time for every record, so they run with
a part of the records.

```console
$ make bench-pipelines                              # all of it; writes this file; on an idle machine
$ .venv/bin/python -m benchmarks.pipelines --quick  # tiny sizes, only to check that it works
```
"""


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
        name: what it is called.
        command: of the process, for a port, a number of records and a number of keys.
        share: of the records that it does: 1.0, or less for what would take minutes.
        base: the name of the contender that its ratio is over.
    """

    name: str
    command: Callable[[int, int, int], list[str]]
    share: float = 1.0
    base: str = ""


@dataclass(frozen=True)
class Result:
    """One run: records, seconds, CPU seconds, MB, and what the upstream saw."""

    rows: int
    seconds: float
    cpu: float
    mb: float
    calls: int
    most: int

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def _pipe(way: str, transport: str) -> Callable[[int, int, int], list[str]]:
    def command(port: int, records: int, keys: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks._pipe", way, transport, str(port), str(records), str(keys)]

    return command


SEQUENTIAL = "httpx, one after the other"


def core() -> list[Contender]:
    """The ways without an engine, over each HTTP client that is installed."""
    found = [Contender(SEQUENTIAL, _pipe("sequential", "httpx"), 0.04)]
    for transport in TRANSPORTS:
        if importlib.util.find_spec(transport) is None:
            continue
        gather = f"{transport}, gather + semaphore"
        found += [
            Contender(gather, _pipe("gather", transport), 0.2),
            Contender(f"{transport}, TTLCache + gather", _pipe("cached", transport), 0.2, gather),
            Contender(f"{transport}, enrich ordered", _pipe("ordered", transport), base=gather),
            Contender(f"{transport}, enrich unordered", _pipe("unordered", transport), base=gather),
        ]
    return found


def one(upstream: Child, contender: Contender, records: int, keys: int, *, slow: bool = False) -> Result:
    """Runs a contender once."""
    upstream.ask(every=SLOW_EVERY if slow else 0)
    count = max(keys, round(records * contender.share)) if contender.share == 1.0 else round(records * contender.share)
    done = subprocess.run(
        contender.command(upstream.ready()["port"], count, keys), check=True, capture_output=True, text=True
    )
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if said["rows"] != count:
        raise RuntimeError(f"{contender.name}: {said['rows']:,} of {count:,} records came out")
    seen = upstream.ask(every=0)
    return Result(count, said["seconds"], said["cpu"], said["mb"], seen["calls"], seen["most"])


def rounds(
    upstream: Child, contenders: list[Contender], records: int, keys: int, count: int, *, slow: bool = False
) -> dict[str, list[Result]]:
    """Each contender once a round."""
    found: dict[str, list[Result]] = {contender.name: [] for contender in contenders}
    for turn in range(count):
        first = turn % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            print(f"... round {turn + 1}: {contender.name}", file=sys.stderr, flush=True)
            found[contender.name].append(one(upstream, contender, records, keys, slow=slow))
    return found


def _median(results: Iterable[Result], figure: Callable[[Result], float]) -> float:
    return statistics.median(map(figure, results))


def _ratio(results: list[Result], base: list[Result]) -> float:
    return statistics.median(one.rate / other.rate for one, other in zip(results, base, strict=True))


def ways(upstream: Child, quick: bool) -> Table:
    """All contenders side by side."""
    records, keys, count = (500, 50, 1) if quick else (50_000, 5_000, 3)
    contenders = core()
    found = rounds(upstream, contenders, records, keys, count)
    table = Table(
        f"{records:,} records, {keys:,} keys",
        (
            "way",
            "records",
            "records/s",
            "× sequential",
            "× own pattern",
            "calls",
            "calls a record",
            "CPU µs",
            "peak MB",
        ),
    )
    for contender in contenders:
        results = found[contender.name]
        rows = results[0].rows
        table.add(
            contender.name,
            f"{rows:,}",
            f"{_median(results, lambda each: each.rate):,.0f}",
            number(_ratio(results, found[SEQUENTIAL])),
            number(_ratio(results, found[contender.base])) if contender.base else "",
            f"{_median(results, lambda each: each.calls):,.0f}",
            f"{_median(results, lambda each: each.calls / each.rows):.3f}",
            number(_median(results, lambda each: each.cpu / each.rows * 1e6)),
            number(_median(results, lambda each: each.mb)),
        )
    for transport in TRANSPORTS:
        ours = found.get(f"{transport}, enrich ordered")
        if ours is None:
            continue
        calls = max(each.calls for each in ours)
        table.verdicts.append(Verdict(f"{transport}: calls = {keys:,} distinct keys", f"{calls:,}", calls == keys))
        if transport == "aiohttp":
            ratio = _ratio(ours, found[SEQUENTIAL])
            table.verdicts.append(Verdict("aiohttp: at least 100 × sequential httpx", f"{ratio:.0f} ×", ratio >= 100))
    table.notes.append(
        f"Own pattern: gather + semaphore with the same HTTP client. It makes {records // keys} calls for each of "
        "ours, so while the CPU is the limit, fewer calls can raise its rate by that factor at most."
    )
    most = max(each.most for results in found.values() for each in results)
    table.verdicts.append(Verdict("at most 64 calls in flight", f"{most}", most <= 64))
    return table


def slow_calls(upstream: Child, quick: bool) -> Table:
    """What 1 % of calls that take 500 ms do to it."""
    records, keys, count = (500, 50, 1) if quick else (50_000, 5_000, 3)
    ours = [each for each in core() if each.name.startswith("aiohttp, enrich")]
    table = Table("1 % of calls take 500 ms (aiohttp)", ("way", "records/s", "with slow calls", "of the rate without"))
    well = rounds(upstream, ours, records, keys, count)
    badly = rounds(upstream, ours, records, keys, count, slow=True)
    for contender in ours:
        left = _ratio(badly[contender.name], well[contender.name])
        table.add(
            contender.name,
            f"{_median(well[contender.name], lambda each: each.rate):,.0f}",
            f"{_median(badly[contender.name], lambda each: each.rate):,.0f}",
            f"{left:.0%}",
        )
    ordered, unordered = (badly[contender.name] for contender in ours)
    ratio = _ratio(ordered, unordered)
    table.verdicts.append(Verdict("ordered at least two thirds of unordered", f"{ratio:.0%}", ratio >= 2 / 3))
    share = statistics.median(
        # What 64 calls at a time can bring at best, when 1 % of them takes half a second.
        (keys * ((1 - 1 / SLOW_EVERY) * UPSTREAM_SECONDS + 0.5 / SLOW_EVERY) / 64) / each.seconds
        for each in unordered
    )
    table.notes.append(f"With 64 concurrent calls, looking up the keys takes at least {share:.0%} of unordered's time.")
    bound = 4096 / 0.5
    table.notes.append(
        "If ordered, the window of 4,096 records always contains one that waits for a slow call, so at most 4,096 "
        f"records come out per 0.5 s: {bound:,.0f} records/s, of which "
        f"{_median(badly[ours[0].name], lambda each: each.rate) / bound:.0%} are reached. A larger `window` raises "
        "this limit."
    )
    return table


def lengths(upstream: Child, quick: bool) -> Table:
    """Memory over the length of the input."""
    counts = (200, 2_000) if quick else (50_000, 500_000, 2_000_000)
    keys = 50 if quick else 5_000
    table = Table("Memory over the length (aiohttp, ordered)", ("records", "records/s", "calls", "peak MB"))
    contender = next(each for each in core() if each.name == "aiohttp, enrich ordered")
    peaks: list[float] = []
    for count in counts:
        print(f"... {count:,} records", file=sys.stderr, flush=True)
        result = one(upstream, contender, count, keys)
        peaks.append(result.mb)
        table.add(f"{count:,}", f"{result.rate:,.0f}", f"{result.calls:,}", number(result.mb))
    grown = peaks[-1] - peaks[0]
    table.verdicts.append(
        Verdict("the longest takes at most 5 MB more than the shortest", f"{grown:.1f} MB", grown <= 5)
    )
    return table


PARTS = {"ways": ways, "slow": slow_calls, "lengths": lengths}
ENGINES = "engines"


def run(quick: bool, only: Iterable[str] = (*PARTS, ENGINES)) -> Iterator[Table]:
    """All tables: ours against one upstream, then those of the engines."""
    wanted = list(only)
    with Child("_late", str(UPSTREAM_SECONDS)) as upstream:
        upstream.ready()
        yield from (part(upstream, quick) for name, part in PARTS.items() if name in wanted)
    if ENGINES in wanted:
        yield from _engines.tables(quick)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipelines", description=run.__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to check that it works")
    everything = [*PARTS, ENGINES]
    parser.add_argument("--only", nargs="+", choices=everything, default=everything, help="some of the tables")
    parser.add_argument("--replace", action="store_true", help=f"with --only: replace these tables in {RESULTS.name}")
    parser.add_argument("--output", type=Path, help=f"where to write; default: {RESULTS.name}, nothing when partial")
    options = parser.parse_args(arguments)
    whole = not options.quick and options.only == everything
    output: Path | None = options.output or (RESULTS if whole else None)
    before, started = _machine.load(), time.monotonic()
    tables: list[Table] = []
    for table in run(options.quick, options.only):
        print(table.text(), flush=True)
        tables.append(table)
    loads = (before, _machine.load())
    if options.replace and not whole and not options.quick:
        RESULTS.write_text(replaced(RESULTS.read_text(), tables, loads))
        print(f"Replaced in {RESULTS}", file=sys.stderr)
    if output is not None:
        seconds = time.monotonic() - started
        output.write_text(results(_HEAD, tables, quick=options.quick, seconds=seconds, loads=loads))
        print(f"Written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
