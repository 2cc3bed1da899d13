"""Runs the benchmarks, prints their tables and writes them to `benchmarks/RESULTS.md`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import _machine, expiry, frameworks, hit, memory, miss, page, request, stampede
from ._report import replaced, results
from ._table import Table

ALL = {
    module.__name__.rpartition(".")[2]: module
    for module in (hit, request, frameworks, miss, stampede, expiry, memory, page)
}
RESULTS = Path(__file__).with_name("RESULTS.md")

_HEAD = """# Benchmark results

Measured side by side in one run: contenders take turns in every round, each round in another order; the figures are
medians over the rounds, ratios are medians of the rounds' own ratios. CPU is `time.process_time()` of the measuring
process. Before each measurement, garbage is collected and live objects are frozen (`gc.freeze`); a note below each
table says whether the collector runs during it.

To reproduce on an idle machine:

```console
$ make bench                                # all of it; writes this file
$ .venv/bin/python -m benchmarks.hit        # one table; also request, frameworks, miss, stampede, expiry, memory, page
$ .venv/bin/python -m benchmarks --only hit --replace   # one table, into this file
$ .venv/bin/python -m benchmarks --quick    # tiny sizes, only to check that it works
```
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to check that it works")
    parser.add_argument("--only", nargs="+", choices=list(ALL), metavar="NAME", help=f"some of: {', '.join(ALL)}")
    parser.add_argument("--replace", action="store_true", help=f"with --only: replace these tables in {RESULTS.name}")
    parser.add_argument("--output", type=Path, help=f"where to write; default: {RESULTS.name}, nothing when partial")
    options = parser.parse_args(arguments)
    output: Path | None = options.output
    if output is None and not options.quick and not options.only:
        output = RESULTS
    before, started = _machine.load(), time.monotonic()
    tables: list[Table] = []
    for name in options.only or ALL:
        print(f"... {name}", file=sys.stderr, flush=True)
        for table in ALL[name].run(options.quick):
            print(table.text(), flush=True)
            tables.append(table)
    if options.replace and options.only and not options.quick:
        RESULTS.write_text(replaced(RESULTS.read_text(), tables, (before, _machine.load())))
        print(f"Replaced in {RESULTS}", file=sys.stderr)
    if output is not None:
        seconds, loads = time.monotonic() - started, (before, _machine.load())
        output.write_text(results(_HEAD, tables, quick=options.quick, seconds=seconds, loads=loads))
        print(f"Written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
