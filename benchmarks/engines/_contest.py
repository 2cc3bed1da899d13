"""The contenders of one engine, each in a process of its own, before the same upstream; with the memory of all."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks._child import Child
from benchmarks._table import Table, Verdict

__all__ = [
    "FIELDS",
    "IN_FLIGHT",
    "VARIABLE",
    "WORKERS",
    "Contest",
    "ask",
    "base_url",
    "config",
    "orders",
    "show",
    "timed",
]

RECORDS, KEYS, SAMPLE = 50_000, 5_000, 5_000
IN_FLIGHT = 64
WORKERS = 2
VARIABLE = "BENCH_API_KEY"
FIELDS = {"tier": "string", "score": "int64", "city": "string"}


def zipf(records: int, keys: int) -> list[str]:
    """The same keys each time."""
    rng = random.Random(42)
    return [str(key) for key in rng.choices(range(keys), [1 / rank for rank in range(1, keys + 1)], k=records)]


def orders(records: int, keys: int) -> dict[str, list[Any]]:
    """The input, as columns."""
    return {"user_id": zipf(records, keys), "n": list(range(records))}


def base_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api/v1"


def config(port: int, transport: str) -> Any:
    """How workers make their client."""
    from profile_enrich.pipeline.workers import ClientConfig

    return ClientConfig(
        "census",
        options={"entity": 1, "base_url": base_url(port), "transport": transport},
        secrets={"api_key": VARIABLE},
        client={"ttl": 3600},
        concurrency=IN_FLIGHT,
    )


def ask(client: Any, url: str, key: str) -> dict[str, Any]:
    """A call a row, as one writes it."""
    response = client.get(
        f"{url}/entities/1/record", params={"record_id": key}, headers={"authorization": "Bearer key"}
    )
    response.raise_for_status()
    found: dict[str, Any] = response.json()["data"]
    return found


class Contest:
    """The contenders of one engine.

    Args:
        engine: its name, and that of its module here.
        alone: the contender that makes no lookup.
        own: the contender that the target is about: the engine's own pattern.
        naive: contenders that make a call for each row, and so get a sample of the rows.
        ours: contenders of this package, each with both HTTP clients.
        contend: runs one: its name, the HTTP client, the rows, the keys and the upstream's port. Returns the seconds.
    """

    def __init__(
        self,
        engine: str,
        *,
        alone: str,
        own: str,
        naive: Sequence[str],
        ours: Sequence[str],
        contend: Callable[[str, str, int, int, int], float],
        notes: Sequence[str] = (),
    ) -> None:
        self._engine = engine
        self._alone = alone
        self._own = own
        self._naive = naive
        self._ours = ours
        self._contend = contend
        self._notes = notes

    def run(self, quick: bool = False) -> list[Table]:
        """All of them, one after the other."""
        records, keys, sample = (2_000, 200, 200) if quick else (RECORDS, KEYS, SAMPLE)
        plan = [(self._alone, "", records), *((name, "httpx", sample) for name in self._naive)]
        plan += [(name, transport, records) for name in self._ours for transport in ("httpx", "aiohttp")]
        table = Table(
            f"{self._engine.capitalize()}: {records:,} rows, {keys:,} keys (Zipf, s = 1), 5 ms upstream",
            (
                "contender",
                "HTTP client",
                "rows",
                "rows/s",
                "ratio",
                "upstream calls",
                "of keys",
                "in flight",
                "peak MB",
            ),
        )
        rates: dict[tuple[str, str], float] = {}
        for name, transport, count in plan:
            with Child("engines._upstream") as upstream:
                one = self._one(name, transport or "auto", count, keys, upstream.ready()["port"])
                seen = upstream.ask(do="count")
            rates[name, transport] = count / one["seconds"]
            own = rates.get((self._own, "httpx"))
            table.add(
                name,
                transport,
                f"{count:,}",
                f"{rates[name, transport]:,.0f}",
                f"{rates[name, transport] / own:.1f}" if own and name != self._alone else "",
                f"{seen['calls']:,}",
                f"{len(set(zipf(count, keys))):,}",
                seen["most"],
                f"{one['peak']:.0f}",
            )
        best = rates[self._ours[0], "httpx"] / rates[self._own, "httpx"]
        target = f"{self._ours[0]} ≥ 10 × {self._own}, both with httpx"
        table.verdicts.append(Verdict(target, f"{best:.1f} ×", best >= 10))
        table.notes.append(
            f"Contenders that make one call for each row had {sample:,} rows: their rows/s do not depend on the number "
            "of rows. The time is that of the job on a started and warm engine; the memory is the peak of all its "
            "processes together, with shared pages counted in each."
        )
        table.notes.extend(self._notes)
        return [table]

    def _one(self, name: str, transport: str, records: int, keys: int, port: int) -> dict[str, float]:
        arguments = json.dumps([name, transport, records, keys, port])
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", f"benchmarks.engines.{self._engine}", "--one", arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                VARIABLE: "key",
                "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
                "PYSPARK_PYTHON": sys.executable,
                "RAY_USAGE_STATS_ENABLED": "0",
            },
        )
        family = _Memory(process.pid)
        out, said = process.communicate()
        peak = family.end()
        if process.returncode:
            raise RuntimeError(f"{name} ended with {process.returncode}:\n{said[-2000:]}")
        return {"seconds": float(out.splitlines()[-1]), "peak": peak}

    def main(self) -> None:
        """The command line."""
        parser = argparse.ArgumentParser(description=f"{self._engine}: its own patterns beside this package.")
        parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, not what it costs")
        parser.add_argument("--json", action="store_true", help="for the program that joins the engines' tables")
        parser.add_argument("--one", help=argparse.SUPPRESS)
        given = parser.parse_args()
        if given.one:
            logging.disable(logging.CRITICAL)
            # Not as `__main__`, so that workers import what they run, and keep what it keeps.
            contest: Contest = importlib.import_module(f"benchmarks.engines.{self._engine}").CONTEST
            print(contest._contend(*json.loads(given.one)), flush=True)
            return
        show(self.run(given.quick), given.json)


def show(tables: list[Table], as_json: bool) -> None:
    """Prints them."""
    print(json.dumps([asdict(table) for table in tables]) if as_json else "\n".join(table.text() for table in tables))


class _Memory:
    """Watches the resident memory of a process and all that descend from it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> float:
        """The most that it was, in MB."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self._peak = max(self._peak, self._now())

    def _now(self) -> float:
        parents: dict[int, int] = {}
        pages: dict[int, int] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents[int(stat.parent.name)], pages[int(stat.parent.name)] = int(fields[1]), int(fields[21])
        return (
            sum(size for pid, size in pages.items() if self._descends(pid, parents)) * os.sysconf("SC_PAGESIZE") / 1e6
        )

    def _descends(self, pid: int, parents: dict[int, int]) -> bool:
        while pid != self._pid:
            if pid not in parents:
                return False
            pid = parents[pid]
        return True


def timed(work: Callable[[], int], records: int) -> float:
    """Seconds that the work takes, which returns how many rows came out."""
    began = time.perf_counter()
    came = work()
    seconds = time.perf_counter() - began
    if came != records:
        raise RuntimeError(f"{came} of {records} rows came out")
    return seconds
