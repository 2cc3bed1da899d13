"""`profile-enrich index build`: fills a store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from ..._utils.signals import run_in_thread
from ...store.inputs.source_config import write_recipe
from ...store.model import MAX_SHRINK
from ...store.writes.refresh_status import note_refresh
from ..build_progress import build
from ..collection_options import Given, collection_options, shrink_option, store_option
from ..exit_codes import guarded
from ..output import note

__all__ = ["build_command"]


@click.command("build")
@store_option
@collection_options
@click.option(
    "--on-duplicate",
    type=click.Choice(["last", "fail"]),
    default="last",
    show_default=True,
    help="When two rows have the same id: the last one wins, or nothing is built.",
)
@shrink_option
@guarded
def build_command(given: Given, store: Path, on_duplicate: Literal["last", "fail"], allow_shrink: bool) -> None:
    """Build collections from files, queries or standard input, and swap them in at once.

    \b
    profile-enrich index build --store profiles.store --data users.csv --id user_id --filter email
    profile-enrich index build --store profiles.store --sql "SELECT * FROM users" --entity Users --id user_id
    zcat users.jsonl.gz | profile-enrich index build --store profiles.store --data - --format jsonl --entity Users
    profile-enrich index build --store profiles.store --config profiles.toml

    Collections of the store that are not named stay as they are. What is served is the old data until all is built;
    when something goes wrong, they stay. Progress goes to stderr: a bar on a terminal, JSON lines otherwise.
    """
    specs = given.specs()
    share = 1.0 if allow_shrink else MAX_SHRINK
    began = datetime.now(UTC)
    run_in_thread(lambda: build(store, specs, on_duplicate=on_duplicate, max_shrink=share, lines=True))
    note_refresh(store, began, None)
    for name in write_recipe(store, specs):
        note(f"{name} came from standard input, so `index refresh` will need its source said again.")
