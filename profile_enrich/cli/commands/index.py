"""`profile-enrich index`: commands for stores."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ...errors import ConfigurationError
from ...store import drop_collections
from ...store.inputs.source_config import forget
from ...store.writes.refresh_status import is_refreshing, read_last_refresh
from ..database_options import either, open_place, place_options
from ..exit_codes import guarded
from ..output import note, print_json, print_table, shows_table
from .index_build import build_command
from .index_mirror import mirror_command
from .index_publish import publish_command
from .index_refresh import refresh_command

__all__ = ["index"]


@click.group()
def index() -> None:
    """Fill and refresh a store, for `serve` and StoreSource.

    \b
    profile-enrich index build --store profiles.store --data users.csv \\
        --id user_id --filter email
    profile-enrich index refresh --store profiles.store
    profile-enrich index status --store profiles.store
    """


@index.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
@guarded
def status(store: Path | None, database: str | None, schema: str, as_json: bool) -> None:
    """Show the age and size of a store, and the outcome of its last refresh.

    Exits with 1 if the last refresh failed. For a store in a database, the last refresh and the size are unknown.
    """
    with open_place(store, database, schema) as opened:
        collections = opened.collections()
        generation = opened.generation
        where = opened.namespace
    last = None if store is None else read_last_refresh(store)
    times = [each.updated_at for each in collections]
    if last is not None and last.succeeded_at is not None:
        times.append(last.succeeded_at)
    fresh = max(times, default=None)
    facts: dict[str, Any] = {
        "store": where if store is None else str(store),
        "generation": generation,
        "collections": len(collections),
        "rows": sum(each.rows for each in collections),
        "bytes": None if store is None else sum(file.stat().st_size for file in store.iterdir() if file.is_file()),
        "updated_at": None if fresh is None else fresh.isoformat(timespec="seconds"),
        "age_seconds": None if fresh is None else round((datetime.now(UTC) - fresh).total_seconds(), 1),
        "last_refresh_at": None if last is None else last.finished_at.isoformat(timespec="seconds"),
        "last_refresh_seconds": None
        if last is None
        else round((last.finished_at - last.started_at).total_seconds(), 3),
        "last_error": None if last is None else last.error,
        "failures": 0 if last is None else last.failures,
        "refreshing": store is not None and is_refreshing(store),
    }
    if shows_table(as_json):
        shown = {
            **facts,
            "rows": f"{facts['rows']:,}",
            "size": None if store is None else _size(facts["bytes"]),
            "age": _age(facts["age_seconds"]),
        }
        names = ["store", "generation", "collections", "rows", "size", "updated_at", "age", "last_refresh_at"]
        names += ["last_error", "failures"] if facts["failures"] else []
        names += ["refreshing"] if facts["refreshing"] else []
        print_table(("", ""), [(name.replace("_", " "), shown[name]) for name in names])
    else:
        print_json(facts)
    if facts["failures"]:
        note("The last refresh failed; the old data are still served.")
        raise click.exceptions.Exit(1)


@index.command("list")
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
@guarded
def list_command(store: Path | None, database: str | None, schema: str, as_json: bool) -> None:
    """List the collections of a store: entities for Census, indexes for Amperity."""
    with open_place(store, database, schema) as opened:
        rows: list[dict[str, Any]] = [
            {
                "name": each.name,
                "entity_id": each.id,
                "index_id": each.index_id if each.index_fields is not None else None,
                "key": each.key,
                "rows": each.rows,
                "columns": {column.name: column.type for column in each.columns},
                "filterable": list(each.filterable),
                "generation": each.generation,
                "updated_at": each.updated_at.isoformat(timespec="seconds"),
            }
            for each in opened.collections()
        ]
    if shows_table(as_json):
        titles = ["name", "entity_id", "index_id", "key", "rows", "columns", "filterable", "updated_at"]
        print_table(
            titles,
            [
                [
                    {**row, "columns": len(row["columns"]), "filterable": ", ".join(row["filterable"])}[name]
                    for name in titles
                ]
                for row in rows
            ],
        )
    else:
        print_json(rows)


@index.command()
@place_options
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@guarded
def drop(store: Path | None, database: str | None, schema: str, names: tuple[str, ...], yes: bool) -> None:
    """Remove collections from a store, with their data.

    Running servers stop serving them within a second.
    """
    with open_place(store, database, schema) as opened:
        found = [opened.collection(name) for name in dict.fromkeys(names)]
        where = opened.namespace if store is None else str(store)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("there is no terminal to ask for confirmation; pass --yes to confirm")
        said = ", ".join(f"{each.name} ({each.rows:,} records)" for each in found)
        if not click.confirm(f"Drop {said} from {where}?", err=True):
            note("Nothing was dropped.")
            raise click.exceptions.Exit(1)
    chosen = [each.name for each in found]
    if store is not None:
        drop_collections(store, chosen)
        forget(store, chosen)
    else:
        from ...store.postgres import drop_database_collections

        drop_database_collections(either(store, database), chosen, schema=schema)
    note(f"Dropped {', '.join(chosen)}.")


def _size(count: int) -> str:
    size, unit = float(count), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def _age(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} s"


index.add_command(build_command)
index.add_command(refresh_command)
index.add_command(mirror_command)
index.add_command(publish_command)
