"""Runs the benchmarks, prints their tables and writes them to `benchmarks/RESULTS.md`."""

from __future__ import annotations

import argparse
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from . import _machine, expiry, hit, memory, miss, page, request, stampede
from ._table import Table

ALL = {module.__name__.rpartition(".")[2]: module for module in (hit, request, miss, stampede, expiry, memory, page)}
RESULTS = Path(__file__).with_name("RESULTS.md")

_HEAD = """# What it costs

Measured side by side in one run: contenders take turns in every round, each round in another order; the figures are
medians over the rounds, ratios are medians of the rounds' own ratios. CPU is `time.process_time()` of the measuring
process. Before each measurement garbage is collected and what is alive is frozen (`gc.freeze`); whether the collector
runs meanwhile is said below each table.

To reproduce, on a machine that does nothing else:

```console
$ make bench                                # all of it; writes this file
$ .venv/bin/python -m benchmarks.hit        # one table; also request, miss, stampede, expiry, memory, page
$ .venv/bin/python -m benchmarks --only hit --replace   # one table, into this file
$ .venv/bin/python -m benchmarks --quick    # tiny sizes: shows that it works, not what it costs
```
"""


def results(tables: list[Table], quick: bool, seconds: float, loads: tuple[str, str], head: str = _HEAD) -> str:
    """The whole file."""
    parts = [head]
    if quick:
        parts.append("**This was a `--quick` run: its figures mean nothing.**\n")
    facts = [
        *_machine.facts(),
        (
            "When",
            f"{datetime.now(UTC):%Y-%m-%d}, {seconds:,.0f} s, load average {loads[0]} before and {loads[1]} after",
        ),
    ]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in _machine.versions())
    parts.append(f"Versions: {versions}.\n")
    missed = [f"{table.title}. {verdict}" for table in tables for verdict in table.verdicts if not verdict.met]
    parts.append("## Targets missed\n\n" + ("\n".join(f"- {text}" for text in missed) or "None.") + "\n")
    return "\n".join([*parts, *(table.markdown() for table in tables)])


def replaced(text: str, tables: list[Table], loads: tuple[str, str]) -> str:
    """The file with these tables in the place of those that were measured before, each saying when that was."""
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    when = f"Measured by itself on {datetime.now(UTC):%Y-%m-%d}, load average {loads[0]} before and {loads[1]} after."
    for table in tables:
        place = next((n for n, each in enumerate(sections) if each.startswith(f"## {table.title}\n")), None)
        if place is None:
            raise SystemExit(f"{RESULTS.name} has no table {table.title!r}; run all of them first")
        sections[place] = f"{table.markdown()}\n{when}\n\n"
    missed = [
        f"- {each.partition(chr(10))[0].removeprefix('## ')}. {line}"
        for each in sections
        for line in each.splitlines()
        if line.startswith("Target: ") and line.endswith("MISSED.")
    ]
    sections[0] = "## Targets missed\n\n" + ("\n".join(missed) or "None.") + "\n\n"
    return (head + "".join(sections)).rstrip() + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, not what it costs")
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
        text = results(tables, options.quick, time.monotonic() - started, (before, _machine.load()))
        output.write_text(text)
        print(f"Written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
