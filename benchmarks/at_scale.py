"""Measures the store, the embedded server, its alternatives and files at scale; writes `benchmarks/SERVER.md`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from importlib import import_module
from pathlib import Path

from . import _machine
from ._report import results
from ._table import Table

RESULTS = Path(__file__).with_name("SERVER.md")
PARTS = ("store", "server", "alternatives", "files")

_HEAD = """# The embedded Profile API at scale

```console
$ make bench-server                             # all of it; writes this file
$ BIG=1 make bench-server                       # ten million profiles, too: needs 40 GB of disk
$ .venv/bin/python -m benchmarks.store --quick  # tiny sizes, only to check that it works
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.at_scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to check that it works")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; nothing is written then")
    parser.add_argument("--output", type=Path, help=f"where to write; default: {RESULTS.name}, nothing when partial")
    options = parser.parse_args()
    output: Path | None = options.output
    if output is None and not options.quick and not options.only:
        output = RESULTS
    before, started = _machine.load(), time.monotonic()
    tables: list[Table] = []
    for name in options.only or PARTS:
        if importlib.util.find_spec(f"benchmarks.{name}") is None:
            continue
        print(f"... {name}", file=sys.stderr, flush=True)
        for table in import_module(f"benchmarks.{name}").run(options.quick):
            print(table.text(), flush=True)
            tables.append(table)
        if output is not None:  # after each part, so that a run that is stopped leaves what it measured
            seconds, loads = time.monotonic() - started, (before, _machine.load())
            output.write_text(results(_HEAD, tables, quick=options.quick, seconds=seconds, loads=loads))
            print(f"Written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
