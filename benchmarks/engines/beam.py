"""Beam: its own Enrichment, with and without Redis, beside `EnrichProfiles` and `ProfileHandler`.

50,000 rows, 5,000 keys (Zipf, s = 1), an upstream 5 ms away, 64 calls in flight where there can be so many. Each
contender runs in a process of its own on the local runner. Its time is that of the whole pipeline, with its start;
"Beam alone" shows what the engine itself takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._child import Child
from benchmarks._table import Table, Verdict
from benchmarks.engines._contest import show

RECORDS, KEYS, SAMPLE = 50_000, 5_000, 5_000
IN_FLIGHT = 64
THREADS = 16
VARIABLE = "BENCH_API_KEY"

BEAMS, THREADED, REDIS = "Enrichment + httpx", f"Enrichment + httpx, {THREADS} threads", "Enrichment + httpx + Redis"
HANDLER, TRANSFORM, UNKEYED = "Enrichment + ProfileHandler", "EnrichProfiles", "EnrichProfiles, keyed=False"
ALONE = "Beam alone, no lookup"


def zipf(records: int, keys: int) -> list[str]:
    """The same keys each time."""
    rng = random.Random(42)
    return [str(key) for key in rng.choices(range(keys), [1 / rank for rank in range(1, keys + 1)], k=records)]


# --- one contender, in a process of its own -----------------------------------------------------------------------


def contend(name: str, transport: str, records: int, keys: int, upstream: int, redis: int) -> dict[str, float]:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    logging.disable(logging.INFO)
    os.environ[VARIABLE] = "key"
    base_url = f"http://127.0.0.1:{upstream}/api/v1"
    rows = [beam.Row(user_id=key, n=n) for n, key in enumerate(zipf(records, keys))]
    flags = ["--runner=FnApiRunner"]
    if name == THREADED:
        flags += [f"--direct_num_workers={THREADS}", "--direct_running_mode=multi_threading"]
    step = _steps(base_url, transport, redis)[name]()
    began = time.perf_counter()
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        found = pipeline | beam.Create(rows) | "Enrich" >> step
        enriched = found["enriched"] if name in (TRANSFORM, UNKEYED) else found
        total = enriched | beam.combiners.Count.Globally()
        total | beam.io.WriteToText(os.environ["BENCH_OUT"], shard_name_template="")
    seconds = time.perf_counter() - began
    counted = int(Path(os.environ["BENCH_OUT"]).read_text())
    assert counted == records, (counted, records)
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _steps(base_url: str, transport: str, redis: int) -> dict[str, Callable[[], Any]]:
    import apache_beam as beam
    from apache_beam.transforms.enrichment import Enrichment

    from benchmarks.engines._beam_handler import HttpxHandler
    from profile_enrich.pipeline.beam import EnrichProfiles
    from profile_enrich.pipeline.beam_enrichment import ProfileHandler
    from profile_enrich.pipeline.workers import ClientConfig

    config = ClientConfig(
        "census",
        options={"entity": 1, "base_url": base_url, "transport": transport},
        secrets={"api_key": VARIABLE},
        client={"ttl": 3600},
        concurrency=IN_FLIGHT,
    )
    return {
        ALONE: lambda: beam.Map(lambda row: row),
        BEAMS: lambda: Enrichment(HttpxHandler(base_url)),
        THREADED: lambda: Enrichment(HttpxHandler(base_url)),
        REDIS: lambda: Enrichment(HttpxHandler(base_url)).with_redis_cache("127.0.0.1", redis, 3600),
        HANDLER: lambda: Enrichment(ProfileHandler(config, key="user_id", fields=["tier", "score", "city"])),
        TRANSFORM: lambda: EnrichProfiles(config, key="user_id"),
        UNKEYED: lambda: EnrichProfiles(config, key="user_id", keyed=False),
    }


# --- all of them --------------------------------------------------------------------------------------------------


def run(quick: bool = False) -> list[Table]:
    """Beam's own Enrichment beside the transform and the handler."""
    records, keys, sample = (2_000, 200, 200) if quick else (RECORDS, KEYS, SAMPLE)
    plan = [(ALONE, "", records), (BEAMS, "httpx", sample), (THREADED, "httpx", sample)]
    plan += [(REDIS, "httpx", records)] if _redis_is_there() else []
    ours = [(name, transport) for name in (HANDLER, TRANSFORM, UNKEYED) for transport in ("httpx", "aiohttp")]
    plan += [(name, transport, records) for name, transport in ours]
    table = Table(
        f"Beam: {records:,} rows, {keys:,} keys (Zipf, s = 1), 5 ms upstream",
        ("contender", "HTTP client", "rows", "rows/s", "ratio", "upstream calls", "of keys", "in flight", "peak MB"),
    )
    rates: dict[tuple[str, str], float] = {}
    for name, transport, count in plan:
        with Child("engines._upstream") as upstream, _redis(name == REDIS) as redis:
            port = upstream.ready()["port"]
            one = _one(name, transport or "auto", count, keys, port, redis)
            seen = upstream.ask(do="count")
        rate = rates[name, transport] = count / one["seconds"]
        distinct = "" if name == ALONE else f"{len(set(zipf(count, keys))):,}"
        ratio = "" if name == ALONE else f"{rate / rates[BEAMS, 'httpx']:.1f}" if (BEAMS, "httpx") in rates else ""
        table.add(
            name, transport, f"{count:,}", f"{rate:,.0f}", ratio, f"{seen['calls']:,}", distinct, seen["most"],
            f"{one['peak']:.0f}",
        )  # fmt: skip
    best = rates[TRANSFORM, "httpx"] / rates[BEAMS, "httpx"]
    table.verdicts.append(Verdict("EnrichProfiles ≥ 10 × Enrichment, both with httpx", f"{best:.1f} ×", best >= 10))
    table.notes.append(
        "Enrichment without a cache makes one call for each row, so its rows/s do not depend on the number of rows: it "
        f"had {sample:,}. All others had all rows."
    )
    if not _redis_is_there():
        table.notes.append(
            "redis-server, or its Python client, is not on this machine: Enrichment with its Redis cache was left out."
        )
    return [table]


def _one(name: str, transport: str, records: int, keys: int, upstream: int, redis: int) -> dict[str, float]:
    arguments = {
        "name": name, "transport": transport, "records": records, "keys": keys, "upstream": upstream, "redis": redis,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.engines.beam", "--one", json.dumps(arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "BENCH_OUT": f"{directory}/count"},
        )
    if ran.returncode:
        raise RuntimeError(f"{name} ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
    result: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return result


def _redis_is_there() -> bool:
    return shutil.which("redis-server") is not None and importlib.util.find_spec("redis") is not None


@contextmanager
def _redis(wanted: bool) -> Iterator[int]:
    """A Redis of its own, empty, without files; its port, or 0."""
    if not wanted:
        yield 0
        return
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
            stdout=subprocess.DEVNULL,
        )
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, not what it costs")
    parser.add_argument("--json", action="store_true", help="for the program that joins the engines' tables")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(contend(**json.loads(given.one))))
    else:
        show(run(given.quick), given.json)
