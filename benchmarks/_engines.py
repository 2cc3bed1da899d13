"""The engines' tables: each measured by its own script, in the environment that `make test-engines` builds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ._table import Table

__all__ = ["ENGINES", "tables"]

ENGINES = ("beam", "spark", "ray", "dask")
_ROOT = Path(__file__).resolve().parent.parent


def tables(quick: bool) -> Iterator[Table]:
    """One table an engine; one that says what to do where its environment is not there."""
    for engine in ENGINES:
        python = _ROOT / ".venv-engines" / engine / "bin" / "python"
        if not python.exists():
            note = f"Not measured: its environment is not there; `make test-engine-{engine}` builds it."
            yield Table(engine.capitalize(), ("contender",), notes=[note])
            continue
        print(f"... {engine}", file=sys.stderr, flush=True)
        command = [str(python), "-W", "ignore", "-m", f"benchmarks.engines.{engine}", "--json"]
        done = subprocess.run(
            [*command, "--quick"] if quick else command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        yield from map(Table.of, json.loads(done.stdout.splitlines()[-1]))
