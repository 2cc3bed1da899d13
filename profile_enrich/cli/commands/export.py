"""`profile-enrich export`: export of an index to CSV, JSONL or Parquet."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
from ...pipeline.files.formats import arrow
from ...pipeline.files.resumable_output import ResumableOutput
from ...pipeline.files.stream_output import RecordOutput, SpooledOutput, StreamOutput
from ...sources.amperity import AmperitySource, Page, ProfileRow
from ..build_progress import RowsPerSecond
from ..exit_codes import guarded, run
from ..open_source import open_source
from ..output import fitting, note, stderr_console
from ..profile_rows import Format, ProfileRowEncoder
from ..source_options import Settings, source_options

__all__ = ["export"]

_PASSING = (SourceTimeout, SourceConnectionError, SourceUnavailable, SourceRateLimited)
_LONGEST_WAIT = 60.0

_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}

_CHECKPOINT_EVERY = 1.0
"""Seconds between checkpoints."""

ATTENTION = 2
"""The file was written without some attributes, or with columns that no profile has."""


@click.command()
@click.option("-o", "--output", default="-", metavar="FILE", help="The file. Default: -, standard output.")
@click.option(
    "--format", "format", type=click.Choice(["csv", "jsonl", "parquet"]), help="Default: by the suffix, else csv."
)
@click.option(
    "--columns", metavar="A,B,C", help="Of CSV and Parquet. Default: id, and all attributes (CSV: of the first page)."
)
@click.option("--strict-columns", is_flag=True, help="Stop at an attribute that the first page did not have.")
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only profiles whose attribute is exactly this."
)
@click.option("--allow-empty", is_flag=True, help="An export of no profiles is no mistake: exit code 0.")
@click.option("--resume", is_flag=True, help="Resume the interrupted export to this file, or start one.")
@click.option("--force", is_flag=True, help="Replace an existing file, and an interrupted export of another kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=1000, show_default=True, help="Profiles per page.")
@click.option("--with-total", is_flag=True, help="Request the number of profiles, for the progress bar.")
@click.option(
    "--retries", type=click.IntRange(0, 100), default=5, show_default=True, help="Per page, while the API fails."
)
@source_options
@guarded
def export(
    settings: Settings,
    output: str,
    format: Format | None,
    filters: tuple[str, ...],
    limit: int,
    with_total: bool,
    columns: str | None,
    strict_columns: bool,
    retries: int,
    resume: bool,
    allow_empty: bool,
    force: bool,
) -> None:
    """Export an index's profiles to CSV, JSONL or Parquet: an Amperity index, or one served by `profile-enrich serve`.

    \b
    profile-enrich export --index loyalty_members --filter loyalty_tier=gold \\
        -o profiles.csv

    The file appears when it is complete. After an interruption, the command prints its position, and --resume
    continues.

    CSV: a column `id`, then the attributes of the first page. Attributes that appear later are left out and reported
    at the end, and the exit code is 2; name all columns with --columns, or stop at the first such attribute with
    --strict-columns. The exit code is also 2 if no profile has an attribute of --columns, or there is no profile
    (--allow-empty). JSONL has every profile unchanged. Parquet (extra arrow) has a column for each attribute, with the
    narrowest type for all its values.
    """
    kind = settings.kind("amperity")
    if kind != "amperity":
        raise ConfigurationError(
            f"only an index can be exported, page by page, and {kind} has none: use --source amperity; to export a"
            " store, serve it with `profile-enrich serve --store DIRECTORY`, and name the server with --base-url"
        )
    path = None if output == "-" else Path(output)
    if resume and path is None:
        raise ConfigurationError("--resume needs the file to continue: -o FILE")
    chosen = None if columns is None else [name for name in columns.split(",") if name]
    if chosen is not None and (not chosen or len(set(chosen)) != len(chosen)):
        raise ConfigurationError("--columns needs distinct names, separated by commas")
    form: Format = format or ("csv" if path is None else _FORMATS.get(path.suffix, "csv"))
    if form == "parquet":
        arrow()  # report a missing extra before the work
    encoder = ProfileRowEncoder(form, chosen, strict=strict_columns)
    job = _Job(settings, _parse(filters), encoder, limit=limit, with_total=with_total, retries=retries)
    target: RecordOutput
    if path is None:
        made = SpooledOutput if form == "parquet" else StreamOutput
        target = made(more={}, force=force, inputs={})
    else:
        target = ResumableOutput(path, job=job.fingerprint(chosen), resume=resume, force=force)
    with contextlib.closing(target):
        job.restore(target)
        try:
            run(job.export(target))
            if isinstance(target, ResumableOutput) and form == "parquet":
                target.make(encoder.write_parquet, packed=False)
            target.finish()
        except BaseException as error:
            job.say_where(path, whole=False, expected=isinstance(error, Exception))
            if job.state.token is None and isinstance(target, ResumableOutput) and not job.state.rows:
                target.discard()
            raise
    job.say_where(path, whole=True, expected=True)
    if not job.state.rows and not allow_empty:
        what = "no profile matches --filter" if filters else "the index has no profiles"
        note(f"Problem: {what}; if that can be, pass --allow-empty.")
    unseen = sorted(encoder.unseen) if job.state.rows and form != "jsonl" else []
    for name in unseen:
        note(f"Problem: no profile has the attribute {name!r} of --columns.")
    if encoder.left_out:
        _report_left_out(encoder)
    if encoder.left_out or unseen or not (job.state.rows or allow_empty):
        raise click.exceptions.Exit(ATTENTION)


def _parse(filters: tuple[str, ...]) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for given in filters:
        name, equals, value = given.partition("=")
        if not equals or not name:
            raise ConfigurationError(
                "--filter wants NAME=VALUE"
            )  # without the value, which may be a person's e-mail address
        if name in parsed:
            raise ConfigurationError(
                f"--filter {name} is given twice; filters are ANDed, so one would exclude the other"
            )
        parsed[name] = value
    return parsed


@dataclass(slots=True)
class _State:
    """The state of an export.

    Args:
        rows: the rows written so far.
        token: the token of the next page; `None` before the first and after the last.
        columns: the columns of the CSV.
        kinds: the kinds of the values, by column of a Parquet file.
        left_out: columns that appeared later, with their number of rows.
        total: the number of all rows, if the API sent it.
        unseen: the chosen columns that no profile has had; `None` before the first page.
    """

    rows: int = 0
    token: str | None = field(default=None, repr=False)
    columns: list[str] | None = None
    kinds: dict[str, str] = field(default_factory=dict[str, str])
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    total: int | None = None
    unseen: list[str] | None = None


class _Job:
    """One export: its settings and state."""

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
        self.state = _State()

    def fingerprint(self, columns: list[str] | None) -> dict[str, str]:
        """Return the settings that must match to resume. Filters are hashed: they may name a person."""
        filters = json.dumps(sorted(self._filters.items()))
        return {
            "base URL": self._settings.base_url or self._settings.region or "",
            "tenant": self._settings.tenant or "",
            "index": self._settings.index or "",
            "filters": hashlib.sha256(filters.encode()).hexdigest(),
            "format": self._encoder.format,
            "columns": ",".join(columns or ()),
        }

    def restore(self, target: RecordOutput) -> None:
        """Restore the state of an interrupted export."""
        self.state = _State(**(target.state or {}))
        if self.state.columns is not None:
            self._encoder.columns = list(self.state.columns)
        self._encoder.kinds.update(self.state.kinds)
        self._encoder.left_out.update(self.state.left_out)
        if self.state.unseen is not None:
            self._encoder.unseen = set(self.state.unseen)

    async def export(self, target: RecordOutput) -> None:
        """Write all pages. The next page is fetched while one is encoded and written."""
        state, saved = self.state, time.monotonic()
        if state.rows and state.token is None:
            return  # every page was written before the run was killed
        with _bar(stdout=isinstance(target, StreamOutput)) as bar:
            task = bar.add_task("Exporting", total=state.total, completed=state.rows)
            async with open_source(self._settings, "amperity") as source:
                assert isinstance(source, AmperitySource)  # noqa: S101  # by the kind that was asked for
                coming = asyncio.create_task(self._page(source, state.token, first=state.rows == 0))
                try:
                    while True:
                        page = await coming
                        if page.next_token is not None and page.next_token == state.token:
                            raise SourceResponseError("the API gave the same page token twice, which would never end")
                        if page.next_token is not None:
                            coming = asyncio.create_task(self._page(source, page.next_token, first=False))
                            await asyncio.sleep(0)  # its request is sent before this page is written
                        data = self._encoder.page(page.data, header=state.token is None, texts=page.texts)
                        target.write(data)
                        state.rows += len(page.data)
                        state.token = page.next_token
                        state.columns = self._encoder.columns
                        state.kinds = dict(self._encoder.kinds)
                        state.left_out = dict(self._encoder.left_out)
                        state.unseen = sorted(self._encoder.unseen)
                        state.total = state.total if page.total is None else page.total
                        bar.update(task, completed=state.rows, total=state.total)
                        if state.token is None or time.monotonic() - saved >= _CHECKPOINT_EVERY:
                            target.save(asdict(state), done=state.token is None)
                            saved = time.monotonic()
                        if state.token is None:
                            return
                except BaseException:
                    if state.token is not None:
                        target.save(asdict(state))
                    raise
                finally:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)

    def say_where(self, output: Path | None, *, whole: bool, expected: bool) -> None:
        """Print the progress of the export and how to continue."""
        state = self.state
        of = f" of {state.total:,}" if state.total is not None else ""
        if whole:
            note(f"Exported {state.rows:,}{of} profiles{'' if output is None else f' to {output}'}.")
        elif not expected:
            return
        elif output is None:
            note(f"Stopped after {state.rows:,}{of} profiles. With -o FILE, --resume could continue from here.")
        elif state.token is None:
            note("Stopped before the first page was written.")
        else:
            note(
                f"Stopped after {state.rows:,}{of} profiles, which are in {output}.part. "
                "To continue, repeat the command with --resume."
            )

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
                    keep_text=self._encoder.format != "csv",
                )
            except _PASSING as error:
                failure: SourceError = error
            attempt += 1
            if attempt > self._retries:
                raise failure
            # Exponential backoff with full jitter, but at least the vendor's Retry-After.
            backoff = random.uniform(0, min(_LONGEST_WAIT, 0.5 * 2**attempt))  # noqa: S311  # not a secret
            await asyncio.sleep(max(backoff, min(_LONGEST_WAIT, failure.retry_after or 0.0)))


def _bar(*, stdout: bool) -> Progress:
    console = stderr_console()
    # Data and a progress bar on one terminal would overwrite each other.
    mixed = stdout and sys.stdout.isatty()
    columns = fitting(
        console.width,
        (TextColumn("{task.description}"), 9, 4),
        (BarColumn(bar_width=16), 16, 5),
        (MofNCompleteColumn(), 19, 1),
        (RowsPerSecond(), 14, 3),
        (TimeElapsedColumn(), 7, 6),
        (TimeRemainingColumn(), 7, 2),
    )
    return Progress(
        *columns,
        console=console,
        disable=mixed or not console.is_terminal,
        transient=True,
    )


def _report_left_out(encoder: ProfileRowEncoder) -> None:
    listed = ", ".join(f"{name} ({count:,} rows)" for name, count in sorted(encoder.left_out.items()))
    note(f"Left out, because the first page did not have them: {listed}. Name all columns with --columns.")
