"""Ways to enrich or export a file, each in a process of its own: says what it took as one line of JSON.

`python -m benchmarks._file_ways WAY ARGUMENT...`
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from profile_enrich import ProfileClient
from profile_enrich.pipeline.files import enrich_file
from profile_enrich.sources.store import StoreSource

from ._pipe import report

FIELDS = ("tier", "city", "ltv")


def command(*arguments: str) -> int:
    """`profile-enrich` as a user types it, without the start of Python."""
    from profile_enrich.cli.app import cli

    gc.freeze()  # as the command does
    code = cli.main(list(arguments), standalone_mode=False)
    if code:
        raise SystemExit(code)
    return 0


def singly(store: str, source: str, target: str) -> int:
    """`enrich_file` with a hook, which wants to be told of every record: a look-up for each."""

    async def run() -> None:
        async with ProfileClient(StoreSource(store, collection="People"), hooks=[lambda _: None]) as client:
            await enrich_file(source, target, client=client, key="user_id", fields=FIELDS)

    asyncio.run(run())
    return 0


def duckdb(people: str, source: str, target: str) -> int:
    """A join of the two raw files, in the order of the events."""
    import duckdb

    how = "FORMAT csv, HEADER" if Path(target).suffix == ".csv" else "FORMAT json"
    added = ", ".join(f"p.{name} AS profile_{name}" for name in FIELDS)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT e.*, {added} FROM read_csv('{source}', all_varchar=true) e LEFT JOIN"
            f" read_csv('{people}', all_varchar=true) p ON e.user_id = p.id) TO '{target}' ({how})"
        )
    return 0


WAYS: dict[str, Callable[..., int]] = {"command": command, "singly": singly, "duckdb": duckdb}


if __name__ == "__main__":
    way, *arguments = sys.argv[1:]
    importlib.import_module("profile_enrich.cli.app" if way == "command" else "duckdb")  # not what is measured
    report(lambda: WAYS[way](*arguments))
