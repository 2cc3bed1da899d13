"""The embedded Profile API over HTTP beside what a user would write instead: same machine, same data, same run.

FastAPI with asyncpg over PostgreSQL (an index for each filter), FastAPI with a key-value server for point look-ups,
FastAPI with DuckDB, Datasette, and a bare ASGI application as the limit of the HTTP server. All on uvicorn, one worker.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from profile_enrich.store import CollectionSpec, LocalStore, build_store

from ._alternatives import LIMIT
from ._child import Child
from ._people import FILTERABLE, write_csv
from ._rivals import free_port, load_postgres, load_sqlite, postgres_is_there, postgres_server
from ._table import Table, Verdict, main
from .server import HEADERS, SHAPES, people_of, targets_of, text_of

OURS, BARE, DATASETTE = "ours", "bare ASGI app", "Datasette"
POSTGRES, VALKEY, DUCKDB = "FastAPI + PostgreSQL", "FastAPI + Valkey", "FastAPI + DuckDB"
RECORD, TOTAL = "record", "total"
COLUMNS = 12


def run(quick: bool) -> list[Table]:
    """All of them at a million profiles of 12 columns."""
    size = 2_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="profile-enrich-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        csv, path = folder / "people.csv", folder / "profiles.store"
        write_csv(csv, size, COLUMNS)
        with csv.open(encoding="utf-8") as file:
            names = file.readline().strip().split(",")
        filtered = [name for name in FILTERABLE if name in names]
        build_store(path, [CollectionSpec("People", csv, filterable=filtered, key="id")])
        asked = _asked(path, size, 100 if quick else 2_000)
        contenders = {OURS: stack.enter_context(Child("_profile_api", str(path), "1"))}
        contenders |= _alternatives(stack, csv, folder, names, filtered)
        ports = {name: int(child.ready()["port"]) for name, child in contenders.items()}
        _same_answers(ports, asked)
        client = stack.enter_context(Child("_open_loop"))
        return _compare(client, ports, asked, seconds=0.2 if quick else 2.0)


def _alternatives(
    stack: contextlib.ExitStack, csv: Path, folder: Path, names: list[str], filtered: list[str]
) -> dict[str, Child]:
    """Those that can run here, with their data loaded."""

    def start(kind: str, place: object) -> Child:
        return stack.enter_context(Child("_alternatives", kind, str(place)))

    found = {BARE: start("bare", "-")}
    if postgres_is_there() and _installed("fastapi", "asyncpg"):
        url = stack.enter_context(postgres_server())
        load_postgres(url, csv, names, filtered)
        found[POSTGRES] = start("postgresql", url)
    if _key_value_server() and _installed("fastapi", "redis"):
        found[VALKEY] = start("valkey", stack.enter_context(_key_values(csv, names)))
    if _installed("fastapi", "duckdb"):
        found[DUCKDB] = start("duckdb", csv)
    if _installed("datasette"):
        load_sqlite(csv, folder / "plain.db", names, filtered)
        found[DATASETTE] = start("datasette", folder / "plain.db")
    return found


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _key_value_server() -> str | None:
    return shutil.which("valkey-server") or shutil.which("redis-server")


@contextlib.contextmanager
def _key_values(csv: Path, names: list[str]) -> Generator[str]:
    """A server of its own with each profile as JSON under its key; its URL."""
    import duckdb
    import redis

    port = free_port()
    command = [str(_key_value_server()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        with duckdb.connect() as source:
            rows = source.execute(f"SELECT id, to_json(p)::VARCHAR FROM read_csv('{csv}', all_varchar=true) p")
            while batch := rows.fetchmany(2_000):
                client.mset(dict(batch))
        client.close()
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


# --- what is asked --------------------------------------------------------------------------------------------------

Asked = dict[str, dict[str, list[str]]]
"""By request and contender: the targets; the same people in the same order."""


def _asked(path: Path, size: int, count: int) -> Asked:
    with LocalStore(path) as store:
        ids, people = people_of(store, size, count)
        ours = targets_of(store, ids, people)
    asked: Asked = {
        RECORD: {
            OURS: ours["record (Census)"],
            BARE: ["/"],
            **{name: [f"/record/{id}" for id in ids] for name in (POSTGRES, VALKEY, DUCKDB)},
            DATASETTE: [f"/plain/p.json?_size=1&_nocount=1&_nofacet=1&id__exact={id}&_shape=objects" for id in ids],
        }
    }
    for shape, names in SHAPES.items():
        filters = [{name: text_of(row[name]) for name in names if row.get(name) is not None} for row in people]
        asked[shape] = {OURS: ours[shape], **filters_by_hand(filters, total=False)}
    shape = "3 filters, unselective (country, tier, opted_in)"
    filters = [{name: text_of(row[name]) for name in SHAPES[shape]} for row in people]
    asked[TOTAL] = {OURS: ours["total of 3 unselective filters"], **filters_by_hand(filters, total=True)}
    return asked


def filters_by_hand(filters: list[dict[str, str]], *, total: bool) -> dict[str, list[str]]:
    kind = "total" if total else "page"
    sql = [f"/{kind}?{urlencode(each)}" for each in filters]
    plain = [f"/plain/p.json?_size={1 if total else LIMIT}{'' if total else '&_nocount=1'}&_nofacet=1" for _ in filters]
    exact = ["".join(f"&{name}__exact={quote(value, safe='')}" for name, value in each.items()) for each in filters]
    return {
        POSTGRES: sql,
        DUCKDB: sql,
        DATASETTE: [f"{one}{two}&_shape=objects" for one, two in zip(plain, exact, strict=True)],
    }


def _same_answers(ports: Mapping[str, int], asked: Asked) -> None:
    """Compares the answers to the first request of each kind: the same ids, or the same number.

    Raises:
        RuntimeError: they differ, so that their rates could not be compared.
    """
    for request, targets in asked.items():
        answers = {
            name: list(_essence(_get(ports[name], some[0]), request))
            for name, some in targets.items()
            if name in ports and name != BARE
        }
        if any(answer != answers[OURS] for answer in answers.values()):
            raise RuntimeError(f"{request}: the answers differ: {answers}")


def _get(port: int, target: str) -> Any:
    headers = dict(line.split(": ", 1) for line in HEADERS.splitlines())
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{target}", headers=headers)) as answer:
        return json.load(answer)


def _essence(answer: Any, request: str) -> Iterator[Any]:
    if request == TOTAL:
        yield answer.get("total", answer.get("filtered_table_rows_count"))
        return
    rows = answer.get("data", answer.get("rows", answer))
    yield from (row["id"] for row in (rows if isinstance(rows, list) else [rows]))


# --- the comparison -------------------------------------------------------------------------------------------------


def _compare(client: Child, ports: Mapping[str, int], asked: Asked, *, seconds: float) -> list[Table]:
    rates = Table("HTTP beside the alternatives: requests a second", ("Request", *ports, "ours ÷ best other"))
    alone = Table("HTTP beside the alternatives: milliseconds of one request", ("Request", *ports, "best other ÷ ours"))
    client.ready()
    behind: list[str] = []
    for request, targets in asked.items():
        busy: dict[str, float] = {}
        single: dict[str, float] = {}
        for name, port in ports.items():
            if name not in targets:
                continue
            order = {"do": "closed", "port": port, "headers": HEADERS, "targets": targets[name]}
            client.ask(seconds=seconds / 4, connections=8, **order)  # warm
            for into, connections in ((busy, 64), (single, 1)):
                answered = client.ask(seconds=seconds, connections=connections, **order)
                if answered["failed"]:
                    raise RuntimeError(f"{request}, {name}: {answered['failed']} requests failed")
                into[name] = answered["per_second"]
        others = [name for name in busy if name not in (OURS, BARE)]
        ratios = [figures[OURS] / max(figures[name] for name in others) for figures in (busy, single)]
        rates.add(request, *(f"{busy[name]:,.0f}" if name in busy else "-" for name in ports), f"{ratios[0]:.2f}")
        alone.add(
            request, *(f"{1e3 / single[name]:.3f}" if name in single else "-" for name in ports), f"{ratios[1]:.2f}"
        )
        behind += [request] if ratios[0] < 1 else []
        if request == RECORD:
            share = busy[OURS] / busy[BARE]
            limit = Verdict("point look-ups ≥ 0.5 × a bare ASGI app on the same server", f"{share:.2f} ×", share >= 0.5)
            rates.verdicts.append(limit)
    ahead = f"behind in {', '.join(behind)}" if behind else "ahead in every row"
    rates.verdicts.append(Verdict("ahead of every alternative in every row", ahead, not behind))
    rates.notes.append(
        "64 busy connections; all servers on uvicorn with one worker, the client on the other core, where PostgreSQL"
        f" and Valkey run, too. Pages have {LIMIT} profiles. Ours and FastAPI check a bearer key; Datasette and the"
        " bare application do not. PostgreSQL has an index for each filtered column, 16 connections, prepared"
        " statements and 2 GB of shared buffers, and sends its payload as stored; so does DuckDB, from memory."
        " Before, the answers to one request of each kind are compared: the same people, the same total."
    )
    missing = {POSTGRES, VALKEY, DUCKDB, DATASETTE}.difference(ports)
    if missing:
        rates.notes.append(f"Not measured, as they are not installed here: {', '.join(sorted(missing))}.")
    alone.notes.append("One connection, one request after the other: the mean.")
    return [rates, alone]


if __name__ == "__main__":
    main(run)
