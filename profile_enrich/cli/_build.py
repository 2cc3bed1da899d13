"""Building the store that `serve` serves, with progress for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..errors import ConfigurationError
from ..store import BuildReport, CollectionReport, CollectionSpec, build_store
from ..store import Progress as BuildProgress
from ._output import note, stderr_console

__all__ = ["RowsPerSecond", "build", "specifications"]


class RowsPerSecond(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """The speed, or nothing before there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "", style="progress.data.speed")


def specifications(
    data: Sequence[Path], entities: Sequence[str], ids: Sequence[str], filters: Sequence[str]
) -> list[CollectionSpec]:
    """One specification a file.

    Args:
        data: the files.
        entities: their names, in the same order; the files' stems when there are none.
        ids: their key columns, in the same order; one for all of them, or none: `id`.
        filters: `COLUMN` when there is one file, else `ENTITY:COLUMN`.

    Raises:
        ConfigurationError: the numbers do not fit, a name occurs twice, a filter names no entity.
    """
    names = list(entities) or [path.name.partition(".")[0] for path in data]
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
    chosen: dict[str, list[str]] = {name: [] for name in names}
    for given in filters:
        owner = next((name for name in names if given.startswith(f"{name}:")), None)
        if owner is not None:
            chosen[owner].append(given[len(owner) + 1 :])
        elif len(names) == 1:
            chosen[names[0]].append(given)
        else:
            raise ConfigurationError(
                f"--filter {given}: with several --data, write ENTITY:COLUMN, e.g. {names[0]}:{given}"
            )
    return [
        CollectionSpec(name, path, key=key, filterable=chosen[name])
        for name, path, key in zip(names, data, keys, strict=True)
    ]


def build(path: Path, specs: Sequence[CollectionSpec]) -> BuildReport:
    """Builds the store, shows how far it is, and tells what became of the rows."""
    console = stderr_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f} rows"),
        RowsPerSecond(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: BuildProgress) -> None:
            if progress.collection not in tasks:
                tasks[progress.collection] = bar.add_task(f"Building {progress.collection}", total=progress.total)
            bar.update(tasks[progress.collection], completed=progress.rows, total=progress.total)

        report = build_store(path, specs, progress=show)
    read = sum(each.read for each in report.collections)
    for each in report.collections:
        _tell(each)
    note(f"Built in {report.seconds:.1f} s ({read / max(report.seconds, 1e-9):,.0f} rows/s).")
    return report


def _tell(report: CollectionReport) -> None:
    note(f"{report.collection.name}: {report.stored:,} records of {_rows(report.read)}.")
    if report.duplicates:
        note(
            f"  {_rows(report.duplicates)} had the id of an earlier row and replaced it (the first: "
            f"row {report.first_duplicate or 0:,}). Is {report.collection.key!r} the right --id column?"
        )
    for reason, count in report.rejected.items():
        where = f" (the first: row {report.first_rejected:,})" if report.first_rejected is not None else ""
        note(f"  {_rows(count)} left out: {reason}{where}.")
    for warning in report.warnings:
        note(f"  {warning}")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
