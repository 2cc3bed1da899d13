"""`enrich_file`: CSV, JSONL and Parquet files in and out, with checkpoints that a later run can resume."""

from __future__ import annotations

import contextlib
import itertools
import operator
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..._utils.file_identity import FileIdentity
from ..._utils.validation import check_int, check_number
from ...client.client import ProfileClient
from ...errors import ConfigurationError, InputError
from ..options import EnrichOptions, options_of
from ..outcome_stream import run
from ..records.block_lookup import block_lookup
from ..records.outcome_policy import OutcomePolicy, RunStats
from ..records.queue import LookupQueue
from ..records.thread_reader import iterate_in_thread
from .encoded_fields import ReadyFields, prepared
from .file_job import FileJob, fields_of
from .file_report import FileProgress, FileReport
from .formats import FileFormat, FileSpec
from .outcome_writer import ColumnState, OutcomeWriter
from .resumable_output import ResumableOutput
from .select_reader import Item, RecordReader, open_reader
from .stream_output import RecordOutput, SpooledOutput, StreamOutput
from .two_pass_writer import assemble

__all__ = ["enrich_file"]

_KEY = operator.attrgetter("key")

_REPORT_EVERY = 0.1
"""The shortest time between two calls of `progress`, in seconds."""

_REMEMBERED = 1_000_000
"""The largest number of profiles kept until the end of the run: up to 1.5 GB if they are flat."""

_KEYLESS_SHARE = 0.5
"""The share of records without a key above which a problem is reported."""


async def enrich_file(
    source: str | Path,
    target: str | Path,
    *,
    client: ProfileClient,
    key: str,
    fields: Mapping[str, str | None] | Iterable[str] | None = None,
    prefix: str = "profile_",
    into: str | None = None,
    options: EnrichOptions | None = None,
    dead_letter: str | Path | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    source_format: FileFormat | None = None,
    target_format: FileFormat | None = None,
    resume: bool = False,
    force: bool = False,
    checkpoint_rows: int = 50_000,
    checkpoint_every: float = 5.0,
    progress: Callable[[FileProgress], None] | None = None,
) -> FileReport:
    """Enrich each record of a file with the profile of its key. Memory does not grow with the length of the file.

    Each key is looked up once: up to 1,000,000 profiles are kept until the end of the run, independent of the client's
    cache. A source with batches, or on this machine, is called for the keys of many records at a time.

    Records keep their order. Their own columns come first and are not changed; an existing column is not replaced. The
    output appears when it is complete. A killed run continues with `resume=True` from its last checkpoint, and the
    result is the same, byte for byte. An input that changes while it is read ends the run.

    Args:
        source: a `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet` file, text also as `.gz`; `-` is standard input.
        target: likewise; `-` is standard output. It can have another format than the source.
        client: the client.
        key: the column with the keys. Integers are looked up as text.
        fields: the attributes to add; as a mapping, with the Arrow types of a Parquet file's columns (`None`: inferred
            from the values). Default: all.
        prefix: the prefix of the new columns' names. Default `"profile_"`.
        into: the name of a single column for all attributes as an object (in CSV and Parquet: as JSON), instead of one
            column each.
        options: the handling of records without a profile, and the limits of the run. Default `EnrichOptions()`.
        dead_letter: a JSONL file for the records that cannot be enriched, each with the reason. Without it, the first
            one ends the run.
        encoding: the encoding of the text input and output, e.g. `"latin-1"`. Default: the one of the byte order mark,
            else UTF-8.
        delimiter: the delimiter of a CSV input, and of a CSV output. Default: a tab for `.tsv`, else a comma.
        source_format: `"csv"`, `"jsonl"` or `"parquet"`. Default: by the suffix.
        target_format: likewise.
        resume: whether to resume an interrupted run of the same job; without one, a new run starts.
        force: whether to replace existing output files, and an interrupted run of another job.
        checkpoint_rows: the largest number of records between checkpoints. Default 50,000.
        checkpoint_every: the longest time between checkpoints, in seconds. Default 5.
        progress: a fast function that is called with a `FileProgress`, up to ten times a second.

    Returns:
        The numbers of records by outcome, and `problems`, which a caller should check.

    Raises:
        ConfigurationError: an argument is not usable, an output exists or cannot be written, or the input or the
            arguments changed since the run that is to be resumed.
        InputError: the input cannot be read or changed while it was read; or one of its records cannot be used, and
            there is no dead-letter file.
        TooManyErrors: more records failed than `max_errors` allows.
        ProfileMissing: a record has no profile, with `on_missing="raise"`.
        ProfileEnrichError: a lookup failed, and there is no dead-letter file; the source refuses the credentials.
        OSError: an output cannot be written, e.g. because the disk is full. It names the file.
    """
    job = FileJob(
        source=FileSpec.of(source, source_format, delimiter=delimiter, what="the input"),
        target=FileSpec.of(target, target_format, delimiter=delimiter, what="the output"),
        key=key,
        fields=fields_of(fields),
        prefix=prefix,
        into=into,
        dead=None if dead_letter is None else Path(dead_letter),
        encoding=encoding,
        options=options_of(options),
    )
    job.check(resume)
    check_int("checkpoint_rows", checkpoint_rows)
    check_number("checkpoint_every", checkpoint_every)
    with contextlib.closing(_Run(job, client, resume=resume, force=force)) as process:
        await process.execute(checkpoint_rows=checkpoint_rows, checkpoint_every=checkpoint_every, progress=progress)
        return process.report()


class _Run:
    """One process's part in enriching a file."""

    def __init__(self, job: FileJob, client: ProfileClient, *, resume: bool, force: bool) -> None:
        self._job = job
        self._client = client
        self._calls = client.stats().source_calls
        self._began = time.monotonic()
        self._identity = None if job.source.path is None else FileIdentity.of(job.source.path)
        whole = not job.two_passes or job.dead is not None
        self.reader: RecordReader = self._open(whole=whole)
        try:
            self._check_columns()
            self._out = self._output(resume=resume, force=force)
        except BaseException:
            self.reader.close()
            raise
        saved: dict[str, Any] = self._out.state or {}
        self._state = ColumnState(**saved.get("columns", {}))
        self._policy = OutcomePolicy(
            job.options,
            on_error="raise" if job.dead is None else "dead_letter",
            stats=RunStats(**saved.get("stats", {})),
        )
        self.stats = self._policy.stats
        self._first_pass_done = bool(self._state.digest)
        self._resumed = self.stats.rows
        self._writer = OutcomeWriter(job, self.reader, self._out, self._policy, self._state)

    def _open(self, *, whole: bool) -> RecordReader:
        job = self._job
        as_text = job.target.format != "parquet"
        return open_reader(job.source, job.key, encoding=job.encoding, whole=whole, as_text=as_text)

    def _check_columns(self) -> None:
        """Reject a run that could add nothing, if the input's columns are known before its records."""
        added = self._job.columns()
        if added and set(added).issubset(self.reader.columns or ()):
            raise ConfigurationError(
                f"{_listed(added)} in every record of {self._job.source.name} already, so nothing would be added: "
                f"choose another {'into=' if self._job.into is not None else 'prefix='}"
            )

    def _output(self, *, resume: bool, force: bool) -> RecordOutput:
        job = self._job
        if job.target.path is None:
            made = SpooledOutput if job.two_passes else StreamOutput
            return made(more=job.more_outputs, force=force, inputs=job.inputs)
        return ResumableOutput(
            job.target.path,
            job=job.fingerprint(self._client, self._identity),
            resume=resume,
            force=force,
            more=job.more_outputs,
            inputs=job.inputs,
        )

    def _save(self) -> None:
        state = {"columns": asdict(self._state), "stats": asdict(self.stats)}
        self._out.save(state, done=bool(self._state.digest))

    # --- the first pass ---------------------------------------------------------------------------------------------

    async def execute(
        self, *, checkpoint_rows: int, checkpoint_every: float, progress: Callable[[FileProgress], None] | None
    ) -> None:
        """Process all records, then rename the complete files."""
        if not self._first_pass_done:
            try:
                await self._records(checkpoint_rows, checkpoint_every, progress)
                self._check_input()
            except BaseException:
                if not self._discard_useless():
                    self._save()
                raise
            self._state.digest = self.reader.digest
            self._save()
        if self._job.two_passes:
            try:
                self._assemble()
            except InputError:  # the input changed after the first pass
                self._out.discard()
                raise
        elif self._job.target.gzip and isinstance(self._out, ResumableOutput):
            self._out.make(shutil.copyfileobj, packed=True)
        self._out.finish()

    def _discard_useless(self) -> bool:
        """Remove the files if no run can resume them: nothing is done, or the input changed. Return whether so."""
        if self.stats.rows:
            with contextlib.suppress(InputError):
                self._check_input()
                return False
        self._out.discard()
        return True

    def _check_input(self) -> None:
        """Raise an error if the input is no longer the file that was opened."""
        if self._identity is not None and self._job.source.path is not None:
            self._identity.check(self._job.source.path)

    async def _records(
        self, checkpoint_rows: int, checkpoint_every: float, progress: Callable[[FileProgress], None] | None
    ) -> None:
        job, stats = self._job, self.stats
        if not stats.rows:
            self._writer.header()
        tick = self._ticker(checkpoint_rows, checkpoint_every, progress)
        lookup = None if job.source.is_stream else block_lookup(self._client, job.options)
        if lookup is not None:
            blocks = self.reader.blocks(lookup.block, stats.rows)
            async with contextlib.aclosing(prepared(blocks, ReadyFields(lookup, self._writer.added))) as coming:
                async for block, ready in coming:
                    await self._writer.block(block, ready)
                    tick()
            return
        items = itertools.islice(iter(self.reader), stats.rows, None)
        options = replace(job.options, ordered=True)
        queue: LookupQueue[Item] = LookupQueue(self._client, _KEY, options, remember=_REMEMBERED)
        results = run(queue, iterate_in_thread(items) if job.source.is_stream else items)
        async with contextlib.aclosing(results):
            async for outcome in results:
                self._writer.outcome(outcome)
                tick()

    def _ticker(
        self, checkpoint_rows: int, checkpoint_every: float, progress: Callable[[FileProgress], None] | None
    ) -> Callable[[], None]:
        """Return a function that reports the progress and writes a checkpoint when it is time."""
        saved, saved_at, reported = self.stats.rows, time.monotonic(), 0.0

        def tick() -> None:
            nonlocal saved, saved_at, reported
            now = time.monotonic()
            if progress is not None and now - reported >= _REPORT_EVERY:
                reported = now
                progress(self.now())
            if self.stats.rows - saved >= checkpoint_rows or now - saved_at >= checkpoint_every:
                self._save()
                saved, saved_at = self.stats.rows, time.monotonic()

        return tick

    # --- the second pass --------------------------------------------------------------------------------------------

    def _assemble(self) -> None:
        out = self._out
        assert isinstance(out, ResumableOutput)  # noqa: S101  # the only kind that two passes are made to
        self.reader.close()

        def write(journal: BinaryIO, file: BinaryIO) -> None:
            with contextlib.closing(self._open(whole=True)) as reader:
                if self._job.target.format == "parquet" and not (reader.columns or self._state.read_kinds):
                    what = "columns" if self.stats.rows else "records"
                    raise InputError(f"{self._job.source.name} has no {what}, and a Parquet file needs columns")
                clashes = assemble(
                    reader,
                    journal,
                    file,
                    self._job.target,
                    kinds=self._state.kinds,
                    read_kinds=self._state.read_kinds,
                    declared=self._job.declared,
                )
                if reader.digest != self._state.digest:
                    raise InputError(
                        f"{self._job.source.path}: the file changed while it was read; run again when nothing writes "
                        "to it"
                    )
            self._check_input()
            for name in clashes:
                self._state.clashes[name] = self.stats.passed

        out.make(write, packed=self._job.target.gzip)

    # --- the counts -------------------------------------------------------------------------------------------------

    def now(self) -> FileProgress:
        stats = self.stats
        return FileProgress(
            rows=stats.rows,
            written=stats.passed,
            missing=stats.missing,
            failed=stats.failed,
            calls=self._client.stats().source_calls - self._calls,
            fraction=self.reader.fraction,
            seconds=time.monotonic() - self._began,
            resumed=self._resumed,
        )

    def report(self) -> FileReport:
        stats = self.stats
        unseen = [] if self._resumed else sorted(self._writer.merger.unseen)
        return FileReport(
            rows=stats.rows,
            written=stats.passed,
            missing=stats.missing,
            keyless=stats.keyless,
            dropped=stats.dropped,
            dead=stats.dead,
            calls=self._client.stats().source_calls - self._calls,
            seconds=time.monotonic() - self._began,
            resumed=self._resumed,
            reasons=dict(stats.dead_letters),
            clashes=dict(self._state.clashes),
            unseen=unseen,
            problems=self._problems(unseen),
        )

    def _problems(self, unseen: list[str]) -> list[str]:
        """Return the problems that suggest a mistake in the arguments."""
        stats, key = self.stats, self._job.key
        if stats.keyless > _KEYLESS_SHARE * stats.rows:
            return [f"{stats.keyless:,} of {stats.rows:,} records have no key: is {key!r} the right column?"]
        looked_up = stats.enriched + stats.missing
        if looked_up and not stats.enriched:
            return [f"no record has a profile: does {key!r} hold the ids of this source, and is it the right source?"]
        added, clashes = self._job.columns(), self._state.clashes
        if stats.enriched and added and all(clashes.get(name) == stats.passed for name in added):
            return [f"{_listed(added)} there already, so nothing was added to any record"]
        return [f"no profile has the attribute {name!r}" for name in unseen] if stats.enriched else []

    def close(self) -> None:
        self.reader.close()
        self._out.close()


def _listed(columns: list[str]) -> str:
    """Return the subject of a message about existing columns, e.g. `column 'tier' was`."""
    named = ", ".join(map(repr, columns))
    return f"columns {named} were" if len(columns) > 1 else f"column {named} was"
