"""`profile-enrich index build`: build of a store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from ..._utils.signals import run_in_thread
from ...store import BuildReport, CollectionSpec
from ...store.collection_specs import MAX_SHRINK
from ...store.inputs.source_config import write_recipe
from ...store.writes.refresh_status import note_refresh
from ..build_progress import build, end_if_most_were_left_out, showing_progress, tell
from ..collection_options import Given, collection_options, shrink_option
from ..database_options import either, place_options
from ..exit_codes import USAGE, guarded
from ..output import note

__all__ = ["build_command"]


@click.command("build")
@place_options
@collection_options
@click.option(
    "--on-duplicate",
    type=click.Choice(["last", "fail"]),
    default="last",
    show_default=True,
    help="If two rows have the same id: the last one wins, or the build fails.",
)
@shrink_option
@guarded
def build_command(
    given: Given,
    store: Path | None,
    database: str | None,
    schema: str,
    on_duplicate: Literal["last", "fail"],
    allow_shrink: bool,
) -> None:
    """Build collections from files, queries or standard input, and swap them in at once.

    \b
    profile-enrich index build --store profiles.store --data users.csv \\
        --id user_id --filter email
    profile-enrich index build --store profiles.store \\
        --sql "SELECT * FROM users" --entity Users --id user_id
    zcat users.jsonl.gz | profile-enrich index build --store profiles.store \\
        --data - --format jsonl --entity Users
    profile-enrich index build --store profiles.store --config profiles.toml
    profile-enrich index build --database postgresql://user@host/name \\
        --data users.csv --id user_id

    Other collections of the store do not change. The old data are served until the build is complete, and stay if it
    fails. Progress goes to stderr: a bar on a terminal, JSON lines otherwise.

    Exit codes: 0 done; 2 failed, or finished with a problem: a source has no rows, or more than half of its rows
    were left out; 3 a source is unavailable.
    """
    specs = given.specs()
    share = 1.0 if allow_shrink else MAX_SHRINK
    if store is None or database is not None:
        _build_database(either(store, database), specs, schema=schema, max_shrink=share, on_duplicate=on_duplicate)
        return
    began = datetime.now(UTC)
    report = run_in_thread(lambda: build(store, specs, on_duplicate=on_duplicate, max_shrink=share, lines=True))
    note_refresh(store, began, None)
    for name in write_recipe(store, specs):
        note(f"{name} came from standard input, so name its source when you run `index refresh`.")
    _end_if_little_was_stored(report, allow_empty=allow_shrink)


def _build_database(
    database: str,
    specs: Sequence[CollectionSpec],
    *,
    schema: str,
    max_shrink: float,
    on_duplicate: Literal["last", "fail"],
) -> None:
    from ...store.postgres import build_database

    with showing_progress("Building", lines=True) as show:
        report = run_in_thread(
            lambda: build_database(
                database, specs, schema=schema, on_duplicate=on_duplicate, max_shrink=max_shrink, progress=show
            )
        )
    tell(report, specs, lines=True)
    _end_if_little_was_stored(report, allow_empty=max_shrink == 1.0)


def _end_if_little_was_stored(report: BuildReport, *, allow_empty: bool) -> None:
    """End with exit code 2 if a collection has no record, unless that is allowed, or if most rows were left out."""
    empty = [each.collection.name for each in report.collections if not each.stored]
    if empty and not allow_empty:
        note(f"{', '.join(empty)}: the source has no rows. If that is intended, pass --allow-shrink.")
        raise click.exceptions.Exit(USAGE)
    end_if_most_were_left_out(report)
