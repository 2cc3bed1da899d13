"""`profile-enrich export`: an index, page after page, as CSV or JSONL."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ...errors import (
    ConfigurationError,
    SourceConnectionError,
    SourceError,
    SourceRateLimited,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
)
from ...sources.amperity import AmperitySource, Page, ProfileRow
from ..build_progress import RowsPerSecond
from ..exit_codes import guarded, run
from ..export_target import ExportState, FileTarget, StdoutTarget, Target
from ..open_source import open_source
from ..output import note, stderr_console
from ..profile_rows import Format, ProfileRowEncoder
from ..source_options import Settings, source_options

__all__ = ["export"]

_PASSING = (SourceTimeout, SourceConnectionError, SourceUnavailable, SourceRateLimited)
_LONGEST_WAIT = 60.0


@click.command()
@source_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file. Default: standard output."
)
@click.option(
    "--format", "format", type=click.Choice(["csv", "jsonl"]), help="Default: told by the file's suffix, else csv."
)
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only profiles whose attribute is exactly this."
)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Profiles a page.")
@click.option("--with-total", is_flag=True, help="Ask how many there are, for a progress bar that knows its end.")
@click.option("--columns", metavar="A,B,C", help="Of the CSV. Default: id, and all attributes of the first page.")
@click.option("--strict-columns", is_flag=True, help="Stop at an attribute that the first page did not have.")
@click.option(
    "--retries", type=click.IntRange(0, 100), default=5, show_default=True, help="For a page, when the API has trouble."
)
@click.option("--resume", is_flag=True, help="Go on with the export to this file that was interrupted.")
@click.option("--force", is_flag=True, help="Replace the file when it is there already.")
@guarded
def export(
    settings: Settings,
    output: Path | None,
    format: Format | None,
    filters: tuple[str, ...],
    limit: int,
    with_total: bool,
    columns: str | None,
    strict_columns: bool,
    retries: int,
    resume: bool,
    force: bool,
) -> None:
    """Export an index's profiles to CSV or JSONL: an Amperity index, or one of your own `serve`.

    \b
    profile-enrich export --index loyalty_members --filter loyalty_tier=gold -o profiles.csv

    The file appears when it is whole. Interrupted, the command says where it stopped, and --resume goes on from there.

    CSV: a column `id`, then the attributes of the first page. Attributes that show up later are left out and reported
    at the end; name all columns with --columns, or stop at the first such attribute with --strict-columns. JSONL holds
    every profile as it came.
    """
    kind = settings.kind("amperity")
    if kind != "amperity":
        raise ConfigurationError(f"only an index can be exported, page by page; {kind} has none: use --source amperity")
    if resume and output is None:
        raise ConfigurationError("--resume needs the file to go on with: -o FILE")
    chosen = None if columns is None else [name for name in columns.split(",") if name]
    if chosen is not None and (not chosen or len(set(chosen)) != len(chosen)):
        raise ConfigurationError("--columns wants different names, separated by commas")
    form: Format = format or ("jsonl" if output is not None and output.suffix in (".jsonl", ".ndjson") else "csv")
    encoder = ProfileRowEncoder(form, chosen, strict=strict_columns)
    job = _Job(settings, _parse(filters), encoder, limit=limit, with_total=with_total, retries=retries)
    target = _open(output, job.fingerprint(chosen), resume=resume, force=force)
    try:
        job.go_on_from(target.state)
        run(job.export(target))
        target.finish()
    except BaseException as error:
        _say_where(target, output, whole=False, expected=isinstance(error, Exception | KeyboardInterrupt))
        raise
    finally:
        target.close()
    _say_where(target, output, whole=True, expected=True)
    _report_left_out(encoder)


def _parse(filters: tuple[str, ...]) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for given in filters:
        name, equals, value = given.partition("=")
        if not equals or not name:
            raise ConfigurationError("--filter wants NAME=VALUE")  # without what was given: it may be a person's e-mail
        if name in parsed:
            raise ConfigurationError(
                f"--filter {name} is given twice; filters are ANDed, so one would exclude the other"
            )
        parsed[name] = value
    return parsed


def _open(output: Path | None, fingerprint: Mapping[str, str], *, resume: bool, force: bool) -> Target:
    if output is None:
        return StdoutTarget()
    return FileTarget(output, fingerprint=fingerprint, resume=resume, force=force)


class _Job:
    """One export: what, and how far."""

    def __init__(
        self,
        settings: Settings,
        filters: Mapping[str, str],
        encoder: ProfileRowEncoder,
        *,
        limit: int,
        with_total: bool,
        retries: int,
    ) -> None:
        self._settings = settings
        self._filters = filters
        self._encoder = encoder
        self._limit = limit
        self._with_total = with_total
        self._retries = retries

    def fingerprint(self, columns: list[str] | None) -> dict[str, str]:
        """What an interrupted export must agree in to be gone on with. Filters are hashed: they may name a person."""
        filters = json.dumps(sorted(self._filters.items()))
        return {
            "base URL": self._settings.base_url or self._settings.region or "",
            "tenant": self._settings.tenant or "",
            "index": self._settings.index or "",
            "filters": hashlib.sha256(filters.encode()).hexdigest(),
            "format": self._encoder.format,
            "columns": ",".join(columns or ()),
        }

    def go_on_from(self, state: ExportState) -> None:
        """Takes over what an interrupted export knew."""
        if state.columns is not None:
            self._encoder.columns = list(state.columns)
        self._encoder.left_out.update(state.left_out)

    async def export(self, target: Target) -> None:
        """Pages until the last; each is written before the next is asked for."""
        state = target.state
        with _bar(target) as bar:
            task = bar.add_task("Exporting", total=state.total, completed=state.rows)
            async with open_source(self._settings, "amperity") as source:
                assert isinstance(source, AmperitySource)  # noqa: S101  # by the kind that was asked for
                while True:
                    page = await self._page(source, state.token, first=state.rows == 0)
                    if page.next_token is not None and page.next_token == state.token:
                        raise SourceResponseError("the API gave the same page token twice; going on would never end")
                    data = self._encoder.page(page.data, header=state.token is None)
                    state = ExportState(
                        rows=state.rows + len(page.data),
                        size=state.size + len(data),
                        token=page.next_token,
                        columns=self._encoder.columns,
                        left_out=dict(self._encoder.left_out),
                        total=state.total if page.total is None else page.total,
                    )
                    target.write(data, state)
                    bar.update(task, completed=state.rows, total=state.total)
                    if state.token is None:
                        return

    async def _page(self, source: AmperitySource, token: str | None, *, first: bool) -> Page[ProfileRow]:
        attempt = 0
        while True:
            try:
                return await source.list_profiles(
                    self._filters,
                    limit=self._limit,
                    next_token=token,
                    with_total=self._with_total and first,
                    timeout=self._settings.timeout,
                )
            except _PASSING as error:
                failure: SourceError = error
            attempt += 1
            if attempt > self._retries:
                raise failure
            # Exponential with full jitter, as the vendor asks for; never before the time that it named.
            backoff = random.uniform(0, min(_LONGEST_WAIT, 0.5 * 2**attempt))  # noqa: S311  # not a secret
            await asyncio.sleep(max(backoff, min(_LONGEST_WAIT, failure.retry_after or 0.0)))


def _bar(target: Target) -> Progress:
    console = stderr_console()
    # Data and a moving bar on one terminal would draw over each other.
    mixed = isinstance(target, StdoutTarget) and sys.stdout.isatty()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("profiles"),
        RowsPerSecond(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=mixed or not console.is_terminal,
        transient=True,
    )


def _say_where(target: Target, output: Path | None, *, whole: bool, expected: bool) -> None:
    state = target.state
    of = f" of {state.total:,}" if state.total is not None else ""
    if whole:
        note(f"Exported {state.rows:,}{of} profiles{'' if output is None else f' to {output}'}.")
        return
    if not expected:
        return
    if output is None:
        note(f"Stopped after {state.rows:,}{of} profiles. With -o FILE, --resume could go on from here.")
    elif state.token is None:
        note("Stopped before the first page was written.")
    else:
        note(
            f"Stopped after {state.rows:,}{of} profiles, which are in {output}.part. "
            "To go on from there, repeat the command with --resume."
        )


def _report_left_out(encoder: ProfileRowEncoder) -> None:
    if encoder.left_out:
        listed = ", ".join(f"{name} ({count:,} rows)" for name, count in sorted(encoder.left_out.items()))
        note(f"Left out, because the first page did not have them: {listed}. Name all columns with --columns.")
