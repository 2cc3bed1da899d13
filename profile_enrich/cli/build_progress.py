"""Build of a store with progress output: a bar on a terminal, JSON lines otherwise."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from ..errors import ConfigurationError
from ..store import (
    BuildProgress,
    BuildReport,
    CollectionReport,
    CollectionSpec,
    RefreshReport,
    SqlQuery,
    Stream,
    build_store,
)
from .exit_codes import USAGE
from .output import note, stderr_console

__all__ = [
    "Remaining",
    "RowsPerSecond",
    "build",
    "by_entity",
    "end_if_most_were_left_out",
    "rows",
    "showing_progress",
    "specifications",
    "tell",
]

_LINE_EVERY = 1.0
"""Seconds between lines of progress without a terminal."""


class RowsPerSecond(ProgressColumn):
    """The column for the speed."""

    def render(self, task: Task) -> Text:
        """Render the speed, if known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "", style="progress.data.speed")


class Remaining(TimeRemainingColumn):
    """The column for the remaining time, if the number of rows is known in advance."""

    def render(self, task: Task) -> Text:
        """Render the remaining time, if known."""
        if task.total is None:
            return Text("")
        return Text("ETA ").append_text(super().render(task))


def specifications(
    data: Sequence[Path | SqlQuery | Stream], entities: Sequence[str], ids: Sequence[str], filters: Sequence[str]
) -> list[CollectionSpec]:
    """Make one specification per source.

    Args:
        data: the files, queries and streams.
        entities: their names, in the same order; by default the files' stems.
        ids: their key columns, in the same order; one for all of them, or none: `id`.
        filters: `COLUMN` when there is one source, else `ENTITY:COLUMN`.

    Raises:
        ConfigurationError: the numbers do not match, a name occurs twice, or a filter names an unknown entity.
    """
    if not entities and not all(isinstance(source, Path) for source in data):
        raise ConfigurationError("a query or standard input has no name: pass --entity NAME, e.g. --entity Users")
    names = list(entities) or [source.name.partition(".")[0] for source in data if isinstance(source, Path)]
    if len(names) != len(data):
        raise ConfigurationError(
            f"{len(data)} --data but {len(names)} --entity: give one --entity for each --data, in order"
        )
    if len(set(names)) != len(names):
        raise ConfigurationError("two --data have the same entity name; give each its own --entity")
    keys = list(ids) or ["id"]
    if len(keys) == 1:
        keys *= len(data)
    if len(keys) != len(data):
        raise ConfigurationError(
            f"{len(data)} --data but {len(keys)} --id: give one --id for each --data, or one for all"
        )
    chosen = by_entity(names, filters, "--filter")
    return [
        CollectionSpec(name, source, key=key, filterable=chosen[name])
        for name, source, key in zip(names, data, keys, strict=True)
    ]


def by_entity(names: Sequence[str], given: Sequence[str], option: str) -> dict[str, list[str]]:
    """Return the values by entity: `VALUE` for a single entity, otherwise `ENTITY:VALUE`.

    Raises:
        ConfigurationError: the entity is missing.
    """
    chosen: dict[str, list[str]] = {name: [] for name in names}
    for text in given:
        owner = next((name for name in names if text.startswith(f"{name}:")), None)
        if owner is not None:
            chosen[owner].append(text[len(owner) + 1 :])
        elif len(names) == 1:
            chosen[names[0]].append(text)
        else:
            what = {"--filter": "COLUMN", "--rejects": "FILE"}.get(option, "COLUMN=TYPE")
            raise ConfigurationError(
                f"{option} {text}: with several --data, write ENTITY:{what}, e.g. {names[0]}:{text}"
            )
    return chosen


@contextmanager
def showing_progress(verb: str, *, lines: bool = False) -> Generator[Callable[[BuildProgress], None]]:
    """Show the progress: on a terminal a bar with rows, rows/s and ETA; otherwise nothing, or JSON lines.

    Args:
        verb: the activity, e.g. `Building`.
        lines: print a JSON line a second to stderr where it is no terminal.
    """
    console = stderr_console()
    if not console.is_terminal and lines:
        yield _progress_lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f} rows"),
        RowsPerSecond(),
        TimeElapsedColumn(),
        Remaining(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: BuildProgress) -> None:
            if progress.collection not in tasks:
                tasks[progress.collection] = bar.add_task(f"{verb} {progress.collection}", total=progress.total)
            bar.update(tasks[progress.collection], completed=progress.rows, total=progress.total)

        yield show


def _progress_lines() -> Callable[[BuildProgress], None]:
    began: dict[str, float] = {}
    last = 0.0

    def show(progress: BuildProgress) -> None:
        nonlocal last
        now = time.monotonic()
        seconds = now - began.setdefault(progress.collection, now)
        if now - last < _LINE_EVERY and progress.rows != progress.total:
            return
        last = now
        speed = progress.rows / seconds if seconds else None
        left = None if progress.total is None or not speed else (progress.total - progress.rows) / speed
        line(
            "progress",
            collection=progress.collection,
            rows=progress.rows,
            total=progress.total,
            rows_per_second=None if speed is None else round(speed),
            eta_seconds=None if left is None else round(left, 1),
        )

    return show


def line(event: str, **facts: object) -> None:
    """Print one JSON line to stderr."""
    click.echo(json.dumps({"event": event, **facts}, ensure_ascii=False), err=True)


def build(
    path: Path,
    specs: Sequence[CollectionSpec],
    *,
    on_duplicate: Literal["last", "fail"] = "last",
    max_shrink: float = 1.0,
    lines: bool = False,
) -> BuildReport:
    """Build the store, show its progress, and report how many rows were accepted and rejected.

    Args:
        path: the store.
        specs: the specifications.
        on_duplicate: as in `build_store`.
        max_shrink: as in `build_store`.
        lines: where stderr is no terminal, show progress and the result as JSON lines.
    """
    with showing_progress("Building", lines=lines) as show:
        report = build_store(path, specs, on_duplicate=on_duplicate, max_shrink=max_shrink, progress=show)
    tell(report, specs, lines=lines)
    return report


def tell(report: BuildReport, specs: Sequence[CollectionSpec], *, lines: bool = False) -> None:
    """Report how many rows were accepted and rejected; as JSON lines with `lines`, unless stderr is a terminal."""
    rejects = {spec.name: spec.rejects for spec in specs}
    as_lines = lines and not stderr_console().is_terminal
    for each in report.collections:
        kept = rejects.get(each.collection.name) if each.rejected else None
        if as_lines:
            line(
                "built",
                collection=each.collection.name,
                generation=report.generation,
                read=each.read,
                stored=each.stored,
                duplicates=each.duplicates,
                first_duplicate_row=each.first_duplicate,
                rejected=dict(each.rejected),
                first_rejected_row=each.first_rejected,
                first_rejected_line=each.first_rejected_line,
                rejects=None if kept is None else str(kept),
                warnings=list(each.warnings),
            )
        else:
            _tell(each, kept)
    read = sum(each.read for each in report.collections)
    if as_lines:
        line("done", generation=report.generation, seconds=round(report.seconds, 3))
    else:
        note(f"Built in {report.seconds:.1f} s ({read / max(report.seconds, 1e-9):,.0f} rows/s).")


def end_if_most_were_left_out(report: BuildReport | RefreshReport) -> None:
    """Exit with 2 if more than half of a source's rows were rejected."""
    found = False
    for each in report.collections:
        if 2 * (count := sum(each.rejected.values())) > each.read:
            found = True
            note(f"More than half of the rows of {each.collection.name} were left out: {count:,} of {each.read:,}.")
    if found:
        raise click.exceptions.Exit(USAGE)


def _tell(report: CollectionReport, rejects: Path | str | None) -> None:
    note(f"{report.collection.name}: {report.stored:,} records of {rows(report.read)}.")
    if report.duplicates:
        note(
            f"  {rows(report.duplicates)} had the id of an earlier row and replaced it (the first: "
            f"row {report.first_duplicate or 0:,}). Is {report.collection.key!r} the right --id column?"
        )
    # With several reasons, the first one is unknown.
    first = report.first_rejected if len(report.rejected) == 1 else None
    for reason, count in report.rejected.items():
        where = f" (the first: row {first:,})" if first is not None else ""
        note(f"  {rows(count)} left out: {reason}{where}.")
    if rejects is not None:
        note(f"  They are in {rejects}, with their reasons.")
    for warning in report.warnings:
        note(f"  {warning}")


def rows(count: int) -> str:
    """Return a number of rows in words."""
    return "1 row" if count == 1 else f"{count:,} rows"
