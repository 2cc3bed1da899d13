"""`profile-enrich enrich`: enrichment of a file of records."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, cast

import click

from ..._utils.files import beside
from ..._utils.output_paths import OutputPath, check_output_paths
from ..._utils.units import parse_rate
from ...client.client import ProfileClient
from ...client.rate_limit import RateLimit
from ...client.source_policy import SourcePolicy
from ...errors import ConfigurationError
from ...pipeline.files.dry_run import survey_file
from ...pipeline.files.file_enrichment import enrich_file
from ...pipeline.files.file_report import FileReport
from ...pipeline.files.formats import FileFormat, FileSpec
from ...pipeline.options import EnrichOptions, OnMissing
from ...sources.base import BatchSource
from ..enrich_progress import Meter, metered, report_outages
from ..exit_codes import guarded, run
from ..open_source import open_source
from ..output import note
from ..source_options import Settings, source_options

__all__ = ["enrich"]

P = ParamSpec("P")

FAILED = 1
ATTENTION = 2
"""Finished with dead letters, or with a suspicious result."""


class _Wrong(click.UsageError):
    exit_code = FAILED


class _Command(click.Command):
    """A command that exits with 1 for a wrong command line, since 2 means dead letters."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Make the context as click does, with another exit code."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise _Wrong(error.format_message(), error.ctx) from None


def _coded(command: Callable[P, int]) -> Callable[P, None]:
    """Map the exit codes of `guarded` to those of this command."""
    guarded_command = guarded(command)

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = guarded_command(*args, **kwargs)
        except click.exceptions.Exit as ended:
            code = ended.exit_code if ended.exit_code > 128 else FAILED
        raise click.exceptions.Exit(code)

    return wrapper


def _rate(context: click.Context, parameter: click.Parameter, given: str | None) -> float | None:
    """Read calls per second."""
    if given is None:
        return None
    try:
        return parse_rate(given)
    except ConfigurationError as error:
        problem = error.message
    raise click.BadParameter(problem)


def _most(context: click.Context, parameter: click.Parameter, given: str) -> float:
    """Parse a number of records, or a share such as `1%`."""
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)\s*%", given.strip())
    if found is None or (found[2] is not None and float(found[2]) > 100):
        raise click.BadParameter("write a number of records, e.g. 100, or a share of them, e.g. 1%")
    return int(found[1]) if found[1] is not None else float(found[2]) / 100


def _fields(context: click.Context, parameter: click.Parameter, given: str | None) -> dict[str, str | None] | None:
    """Parse attributes, with or without types."""
    if given is None:
        return None
    named: dict[str, str | None] = {}
    for each in given.split(","):
        name, _, kind = each.strip().partition(":")
        if not name or name in named:
            raise click.BadParameter(
                "write different attributes, separated by commas: tier,ltv or tier:string,ltv:double"
            )
        named[name] = kind or None
    return named


@click.command(cls=_Command)
@click.argument("input", metavar="INPUT")
@click.option("-o", "--output", default="-", metavar="FILE", help="CSV, JSONL or Parquet. Default: -, standard output.")
@click.option("--key", required=True, metavar="COLUMN", help="The column with the key.")
@click.option(
    "--fields",
    callback=_fields,
    metavar="A,B,…",
    help="The attributes to add; for Parquet also with types: tier:string,ltv:double. Default: all.",
)
@click.option("--prefix", default="profile_", show_default=True, help="The prefix of the new columns.")
@click.option(
    "--into", metavar="COLUMN", help="Write all attributes to this column instead: an object; in CSV as JSON."
)
@click.option("--resume", is_flag=True, help="Resume the interrupted run to this output, or start one.")
@click.option("--force", is_flag=True, help="Replace existing output files, and an interrupted run of another job.")
@click.option(
    "--dead-letter",
    type=click.Path(path_type=Path),
    help="A JSONL file for failed records, with reasons. Without it, the first one ends the run.",
)
@click.option(
    "--max-errors",
    callback=_most,
    default="1%",
    show_default=True,
    metavar="N|N%",
    help="End the run if more records fail: a number, or a share of the records so far, of at least 1,000.",
)
@click.option(
    "--on-missing",
    type=click.Choice(["null", "drop", "dead-letter", "raise"]),
    default="null",
    show_default=True,
    help="The handling of records without a profile or key.",
)
@click.option(
    "--rate", callback=_rate, metavar="N/s", help="Calls per second at most: 500/s, 30000/m. Default: no limit."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="The largest number of concurrent calls.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 1_000_000),
    default=4096,
    show_default=True,
    help="The largest number of records in progress.",
)
@click.option("--encoding", metavar="NAME", help="Of CSV and JSONL: utf-8, cp1252, latin-1, utf-16 … Default: utf-8.")
@click.option("--delimiter", metavar="CHAR", help="Of CSV: e.g. ';'. Default: a comma; a tab for .tsv.")
@click.option("--input-format", type=click.Choice(["csv", "jsonl", "parquet"]), help="Default: by the suffix.")
@click.option("--output-format", type=click.Choice(["csv", "jsonl", "parquet"]), help="Default: by the suffix.")
@click.option(
    "--checkpoint-rows",
    type=click.IntRange(1),
    default=50_000,
    show_default=True,
    help="The number of records between checkpoints, which are also written every 5 seconds.",
)
@click.option("--batch", is_flag=True, help="Look up 100 keys per call. Only the embedded server supports this.")
@click.option("--dry-run", is_flag=True, help="Read and count only: records, keys, calls, time. No lookup is made.")
@source_options
@_coded
def enrich(
    settings: Settings,
    input: str,
    output: str,
    key: str,
    fields: dict[str, str | None] | None,
    prefix: str,
    into: str | None,
    rate: float | None,
    concurrency: int,
    window: int,
    dead_letter: Path | None,
    max_errors: float,
    on_missing: str,
    encoding: str | None,
    delimiter: str | None,
    input_format: FileFormat | None,
    output_format: FileFormat | None,
    resume: bool,
    force: bool,
    checkpoint_rows: int,
    dry_run: bool,
) -> int:
    """Enrich a file: add to each record of INPUT the profile of its key. `-` is standard input or output.

    \b
    profile-enrich enrich orders.csv -o enriched.csv --key user_id \\
        --fields tier,ltv --rate 500/s
    profile-enrich enrich events.parquet -o events2.parquet --key user_id \\
        --dead-letter bad.jsonl --max-errors 1%
    zcat log.jsonl.gz | profile-enrich enrich - --input-format jsonl \\
        --key user_id > enriched.jsonl

    Records keep their order and columns; each key is looked up once. The output appears when it is complete. After an
    interruption or kill, repeat the command with --resume; the result is byte for byte the same. A scheduled job can
    always pass --resume: without a checkpoint, it starts a new run; with --force, it also replaces the previous output.

    Exit codes: 0 done; 2 finished with problems: there are dead letters, most records have no key, no record has a
    profile, an attribute of --fields is in no profile, or all new columns were there already; 1 failed, including a
    wrong command line; 130 (Ctrl-C) or 143 (SIGTERM) interrupted, and --resume continues.
    """
    if dry_run:
        return _dry_run(settings, input, key, encoding, delimiter, input_format, rate)
    form = output_format or (input_format if output == "-" else None)
    if output == "-" and form is None:
        form = _like(input)
    if settings.store is not None:  # the library checks all other paths
        written = {"the output": None if output == "-" else Path(output), "the dead letters": dead_letter}
        outputs = [
            OutputPath(path, role, replace=True, stdout=role == "the output")
            for role, path in written.items()
            if path is not None
        ]
        check_output_paths(outputs, {"the store": settings.store})
    options: dict[str, Any] = {
        "key": key,
        "fields": fields,
        "prefix": prefix,
        "into": into,
        "options": EnrichOptions(
            on_missing=cast("OnMissing", on_missing.replace("-", "_")),
            max_errors=max_errors,
            window=window,
            concurrency=concurrency,
        ),
        "dead_letter": dead_letter,
        "encoding": encoding,
        "delimiter": delimiter,
        "source_format": input_format,
        "target_format": form,
        "resume": resume,
        "force": force,
        "checkpoint_rows": checkpoint_rows,
    }
    meter: Meter | None = None
    try:
        with metered(to_stdout=output == "-") as meter:
            report = run(_enrich(settings, input, output, rate, concurrency, meter, options))
    except Exception:
        _say_where(meter, output)
        raise
    meter.summary(report, "" if output == "-" else f" to {output}")
    return ATTENTION if report.dead or report.problems else 0


async def _enrich(
    settings: Settings,
    input: str,
    output: str,
    rate: float | None,
    concurrency: int,
    meter: Meter,
    options: dict[str, Any],
) -> FileReport:
    async with open_source(settings) as source:
        limit = None if rate is None else RateLimit(rate, burst=max(1.0, rate / 10))
        client = ProfileClient(
            source, deadline=settings.timeout, source_policy=SourcePolicy(rate_limit=limit, max_in_flight=concurrency)
        )
        async with client:
            outages = asyncio.create_task(report_outages(client, meter))
            try:
                return await enrich_file(input, output, client=client, progress=meter, **options)
            finally:
                outages.cancel()


def _like(input: str) -> FileFormat:
    """Return the format for standard output: the input's, or JSONL for Parquet."""
    found = FileSpec.of(input).format
    return "jsonl" if found == "parquet" else found


def _say_where(meter: Meter | None, output: str) -> None:
    """Print the progress and how to continue, for a run that has started."""
    if meter is None or meter.last is None:
        return
    if output == "-":
        note(f"Stopped after {meter.last.rows:,} records. With -o FILE, --resume could continue from here.")
    elif beside(Path(output), "resume").exists():
        note(f"Stopped after about {meter.last.rows:,} records. To continue, repeat the command with --resume.")


def _dry_run(
    settings: Settings,
    input: str,
    key: str,
    encoding: str | None,
    delimiter: str | None,
    form: FileFormat | None,
    rate: float | None,
) -> int:
    """Print the survey of the input."""
    found = survey_file(input, key=key, encoding=encoding, delimiter=delimiter, source_format=form)
    size = run(_batch_size(settings))
    calls = -(-found.distinct // size)
    about = "" if found.exact else "about "
    note(f"{found.rows:,} records, {about}{found.distinct:,} different keys.")
    for count, what in (
        (found.unreadable, "cannot be read"),
        (found.unusable, "have a key that cannot be looked up"),
    ):
        if count:
            note(f"{count:,} {what}: these would be dead letters.")
    if found.without_key:
        note(f"{found.without_key:,} have no key.")
    batches = f" of up to {size:,} keys each" if size > 1 else ""
    note(f"{about.capitalize()}{calls:,} calls{batches}.")
    if rate is not None:
        note(f"At {rate:g} calls a second: {_span(calls / rate)} at least.")
    note("No lookup was made, and nothing was written.")
    return 0


async def _batch_size(settings: Settings) -> int:
    """Return the number of keys per call to the source."""
    async with open_source(settings) as source:
        return source.batch_size if isinstance(source, BatchSource) else 1


def _span(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{seconds:.1f} s"
