"""`profile-enrich entities` and `profile-enrich indexes`: lists of collections."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from ...errors import ConfigurationError
from ...sources.amperity import AmperitySource
from ...sources.census import CensusSource
from ..exit_codes import guarded, run
from ..open_source import open_source, open_store
from ..output import note, print_json, print_table, shows_table
from ..source_options import Settings, source_options

__all__ = ["entities", "indexes"]


def _show(rows: list[dict[str, Any]], columns: list[str], *, as_json: bool, what: str) -> None:
    if not shows_table(as_json):
        print_json(rows)
    elif rows:
        print_table(columns, [[row.get(name) for name in columns] for row in rows])
    if not rows:
        note(f"The key sees no {what}.")


@click.command()
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
@guarded
def entities(settings: Settings, as_json: bool) -> None:
    """List the entities of a Census workspace, or the collections of a local store.

    On a terminal as a table, otherwise (or with --json) as JSON.
    """
    kind = settings.kind("census", "store")
    if kind == "store":
        with open_store(settings) as store:
            rows = [
                {"id": each.id, "name": each.name, "key": each.key, "rows": each.rows} for each in store.collections()
            ]
        _show(rows, ["id", "name", "key", "rows"], as_json=as_json, what="entities")
        return
    if kind != "census":
        raise ConfigurationError("Amperity has indexes, not entities: use `profile-enrich indexes`")
    listed = run(_entities(settings))
    _show(listed, ["id", "name", "library_id"], as_json=as_json, what="entities")


async def _entities(settings: Settings) -> list[dict[str, Any]]:
    async with open_source(settings, "census", need_collection=False) as source:
        assert isinstance(source, CensusSource)  # noqa: S101  # by the kind that was asked for
        return [dataclasses.asdict(entity) for entity in await source.entities(timeout=settings.timeout)]


@click.command()
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
@guarded
def indexes(settings: Settings, as_json: bool) -> None:
    """List the indexes of an Amperity tenant, or the collections of a local store as indexes.

    On a terminal as a table, otherwise (or with --json) as JSON.
    """
    kind = settings.kind("amperity", "store")
    if kind == "store":
        with open_store(settings) as store:
            rows: list[dict[str, Any]] = [
                {
                    "id": each.index_id,
                    "name": each.name,
                    "description": each.description,
                    "filterable": list(each.filterable),
                    "rows": each.rows,
                    "updated_at": each.updated_at.isoformat(),
                }
                for each in store.collections()
                if each.index_fields is not None
            ]
        _show(rows, ["id", "name", "filterable", "rows", "updated_at"], as_json=as_json, what="indexes")
        return
    if kind != "amperity":
        raise ConfigurationError("Census has entities, not indexes: use `profile-enrich entities`")
    listed = run(_indexes(settings))
    _show(listed, ["id", "name", "description", "updated_at"], as_json=as_json, what="indexes")


async def _indexes(settings: Settings) -> list[dict[str, Any]]:
    async with open_source(settings, "amperity", need_collection=False) as source:
        assert isinstance(source, AmperitySource)  # noqa: S101  # by the kind that was asked for
        return [dataclasses.asdict(index) async for index in source.indexes(limit=100, timeout=settings.timeout)]
