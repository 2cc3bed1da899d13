"""`profile-enrich index refresh`: refresh of a store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import click

from ..._utils.signals import on_signal, run_in_thread
from ...errors import ConfigurationError
from ...store import CollectionSpec, ProfileStore, Stream
from ...store.build_reports import RefreshReport
from ...store.collection_specs import MAX_SHRINK, RefreshSpec
from ...store.input_types import FORMATS
from ...store.inputs.source_config import read_recipe, write_recipe
from ...store.mirror_store import MirrorStore
from ...store.writes.refresh_from_sources import changes_of, refresh_from_sources
from ...store.writes.refresh_status import note_refresh
from ..build_progress import end_if_most_were_left_out, line, rows, showing_progress, tell
from ..collection_options import Given, collection_options, shrink_option
from ..database_options import Refresh, either, open_place, place_options, refreshing
from ..exit_codes import USAGE, guarded
from ..output import note, stderr_console
from ..relay_options import mirror_option

__all__ = ["refresh_command"]

Vanished = Literal["keep", "delete"]
NewColumns = Literal["fail", "ignore"]


@click.command("refresh")
@place_options
@collection_options
@click.option(
    "--changed-only", is_flag=True, help="Compare all rows with the stored records, and write the differences."
)
@click.option(
    "--changes",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Apply only these changed rows; - is standard input.",
)
@click.option(
    "--deleted-column", metavar="COLUMN", help="A column of --changes: true, 1, t, y or yes deletes the row's record."
)
@click.option(
    "--tombstones",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Delete the records with these ids, one per line.",
)
@click.option(
    "--vanished",
    type=click.Choice(["keep", "delete"]),
    default="keep",
    show_default=True,
    help="With --changed-only: the handling of records that the source no longer has.",
)
@click.option(
    "--new-columns",
    type=click.Choice(["fail", "ignore"]),
    default="fail",
    show_default=True,
    help="With --changed-only and --changes: the handling of columns that the collection lacks.",
)
@click.option(
    "--on-duplicate",
    type=click.Choice(["last", "fail"]),
    default="last",
    show_default=True,
    help="The handling of duplicate keys: keep the last record, or fail.",
)
@shrink_option
@mirror_option
@guarded
def refresh_command(
    given: Given,
    store: Path | None,
    mirror: Path | None,
    database: str | None,
    schema: str,
    changed_only: bool,
    changes: Path | None,
    deleted_column: str | None,
    tombstones: Path | None,
    vanished: Vanished,
    new_columns: NewColumns,
    on_duplicate: Literal["last", "fail"],
    allow_shrink: bool,
) -> None:
    """Refresh a store while it is being served.

    \b
    # everything, from the saved sources
    profile-enrich index refresh --store profiles.store
    profile-enrich index refresh --store profiles.store --changed-only \\
        --vanished delete
    profile-enrich index refresh --store profiles.store --entity Users \\
        --changes today.csv --deleted-column gone
    profile-enrich index refresh --store profiles.store --entity Users \\
        --tombstones erased.txt
    profile-enrich index refresh --mirror users.mirror --data users.csv \\
        --entity Users --id user_id

    The new data are written next to the old and swapped in atomically; if the refresh fails, the old data stay.

    Exit codes: 0 done; 2 failed, or an id of --tombstones matches no record, or more than half of the rows were
    rejected; 3 a source is unavailable.
    """
    if mirror is not None:
        if store is not None or database is not None:
            raise ConfigurationError("--mirror contradicts --store and --database; leave one out")
        if changed_only or changes is not None or tombstones is not None or vanished != "keep" or not given.sources:
            raise ConfigurationError(
                "with --mirror, name the source with --data, --sql or --config; its rows replace what is mirrored"
            )
        _load_mirror(mirror, given.specs())
        return
    if store is None or database is not None:
        either(store, database)
    share = 1.0 if allow_shrink else MAX_SHRINK
    if changes is not None or tombstones is not None:
        if changed_only or given.sources or vanished != "keep":
            raise ConfigurationError(
                "--changes and --tombstones say all that changes; leave out --changed-only, --vanished and sources"
            )
        with open_place(store, database, schema) as opened:
            spec = replace(_spec(opened, given, changes, deleted_column, tombstones), new_columns=new_columns)
        _take_in(refreshing(store, database, schema, on_duplicate, share), spec)
        return
    if deleted_column is not None:
        raise ConfigurationError("--deleted-column is a column of --changes FILE")
    if store is None or database is not None:
        if not given.sources:
            raise ConfigurationError(
                "with --database, name the source with --data, --sql or --config; it is compared with what is stored"
            )
        changed = [changes_of(spec, vanished, new_columns) for spec in given.specs()]
        _compare_database(refreshing(store, database, schema, on_duplicate, share), changed)
        return
    if new_columns != "fail" and not changed_only:
        raise ConfigurationError("--new-columns needs --changed-only or --changes: a refresh of all takes new columns")
    specs = given.specs() if given.sources else given.only(read_recipe(store))
    if not given.sources:
        _refuse_more(given)
    began = datetime.now(UTC)
    with (
        on_signal(lambda name: _note_signal(store, began, name)),
        showing_progress("Comparing" if changed_only else "Building", lines=True) as show,
    ):
        report = run_in_thread(
            lambda: refresh_from_sources(
                store,
                specs,
                changed_only=changed_only,
                vanished=vanished,
                new_columns=new_columns,
                on_duplicate=on_duplicate,
                max_shrink=1.0 if allow_shrink else MAX_SHRINK,
                progress=show,
            )
        )
    if isinstance(report, RefreshReport):
        _tell_changes(report, specs)
    elif report is not None:
        tell(report, specs, lines=True)
        if given.sources:
            write_recipe(store, specs)
    if report is not None:
        end_if_most_were_left_out(report)


def _note_signal(store: Path, began: datetime, name: str) -> None:
    note_refresh(store, began, f"it was ended by the signal {name}")


def _load_mirror(mirror: Path, specs: Sequence[CollectionSpec]) -> None:
    if not mirror.is_file():
        raise ConfigurationError(f"there is no mirror {mirror}; `profile-enrich index mirror` makes it")
    with MirrorStore(mirror) as store:
        for spec in specs:
            store.collection(spec.name)
        for spec in specs:
            count = run_in_thread(partial(store.load, spec))
            note(f"{spec.name}: {rows(count)} written over what is mirrored.")


def _compare_database(refresh: Refresh, changes: Sequence[RefreshSpec]) -> None:
    with showing_progress("Comparing", lines=True) as show:
        report = run_in_thread(partial(refresh, changes, progress=show))
    _tell_changes(report, changes)
    end_if_most_were_left_out(report)


def _refuse_more(given: Given) -> None:
    """Reject options that describe a source if there is none."""
    for option in ("ids", "filters", "types", "format", "encoding", "delimiter", "rejects"):
        if getattr(given, option):
            raise ConfigurationError(
                "the sources are those that the store was built from; to describe them differently, name them again"
                " with --data, --sql or --config"
            )


def _spec(
    store: ProfileStore, given: Given, changes: Path | None, deleted_column: str | None, tombstones: Path | None
) -> RefreshSpec:
    if deleted_column is not None and changes is None:
        raise ConfigurationError("--deleted-column is a column of --changes FILE")
    if given.ids or given.filters or given.types:
        raise ConfigurationError("--id, --filter and --type are as the collection was built; leave them out")
    if tombstones is not None and not tombstones.is_file():
        raise ConfigurationError(f"{tombstones} is not there, or is not a file")
    names = [each.name for each in store.collections()]
    if given.entities:
        names = [store.collection(name).name for name in given.entities]
    if len(names) != 1:
        raise ConfigurationError("name the collection that changes with one --entity NAME")
    source: Path | Stream | None = changes
    if changes is not None and str(changes) == "-":
        if given.format not in FORMATS:
            raise ConfigurationError(f"standard input (-) needs --format: {', '.join(FORMATS)}")
        source = Stream(sys.stdin.buffer, given.format)
    said: dict[str, Any] = {name: getattr(given, name) for name in ("encoding", "delimiter") if getattr(given, name)}
    return RefreshSpec(
        names[0],
        source,
        tombstone=deleted_column,
        deleted=() if tombstones is None else tombstones,
        format=cast("Any", given.format) if isinstance(source, Path) else None,
        rejects=Path(given.rejects[-1]) if given.rejects else None,
        **said,
    )


def _take_in(refresh: Refresh, spec: RefreshSpec) -> None:
    with showing_progress("Refreshing", lines=True) as show:
        report = run_in_thread(partial(refresh, [spec], progress=show))
    _tell_changes(report, [spec])
    end_if_most_were_left_out(report)
    found = report.collections[0]
    if found.unmatched_deletes:
        note(
            f"{found.unmatched_deletes:,} of the {found.asked_deletes:,} ids to delete match no record. Ids are"
            " compared exactly: look for quotes, spaces and lost zeros."
        )
        # Ids to erase must match; a feed of changes may delete records that were never stored.
        if spec.deleted or found.unmatched_deletes == found.asked_deletes:
            raise click.exceptions.Exit(USAGE)


def _tell_changes(report: RefreshReport, specs: Sequence[CollectionSpec | RefreshSpec]) -> None:
    rejects = {spec.name: spec.rejects for spec in specs}
    as_lines = not stderr_console().is_terminal
    for each in report.collections:
        name = each.collection.name
        kept = rejects.get(name) if each.rejected else None
        if as_lines:
            line(
                "refreshed",
                collection=name,
                generation=report.generation,
                read=each.read,
                inserted=each.inserted,
                updated=each.updated,
                unchanged=each.unchanged,
                deleted=each.deleted,
                unmatched_deletes=each.unmatched_deletes,
                duplicates=each.duplicates,
                rejected=dict(each.rejected),
                first_rejected_row=each.first_rejected,
                rejects=None if kept is None else str(kept),
            )
            continue
        note(
            f"{name}: {rows(each.read)} read; {each.inserted:,} new, {each.updated:,} changed,"
            f" {each.unchanged:,} as before, {each.deleted:,} deleted."
        )
        if each.duplicates:
            note(f"  {rows(each.duplicates)} had the id of an earlier row and replaced it.")
        for reason, count in each.rejected.items():
            note(f"  {rows(count)} left out: {reason}.")
        if kept is not None:
            note(f"  They are in {kept}, with their reasons.")
    if as_lines:
        line("done", generation=report.generation, seconds=round(report.seconds, 3))
    else:
        note(f"Refreshed in {report.seconds:.1f} s; generation {report.generation}.")
