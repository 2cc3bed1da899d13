"""Files enriched as a whole: CSV, JSONL and Parquet, in and out, with checkpoints to go on from after a crash."""

from __future__ import annotations

import contextlib
import itertools
import operator
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._utils.validation import check_int, check_number
from ...client.client import ProfileClient
from ...errors import InputError, MissingKeyError, ProfileEnrichError, ProfileMissing, TooManyErrors
from ...profile import Reason
from ..outcome_stream import Outcome, outcomes
from ..records.thread_reader import aside
from ..tables.columns import Columns
from .checkpoint import CheckpointState, Output, PartStream, Sink
from .column_types import json_text, notice, plain
from .formats import FileFormat, FileSpec
from .job import FileJob, OnMissing, fields_of
from .line_writer import AddedFields, Attributes, Lines
from .readers import Item, RecordReader, open_reader
from .second_pass import assemble, entry

__all__ = ["FileProgress", "FileReport", "OnMissing", "enrich_file"]

_KEY = operator.attrgetter("key")

_ENOUGH = 1000
"""A fraction that may fail is one of so many records at least: the first failure must not end a run."""

_TELL = 0.1
"""Seconds between two calls of `progress`, at least."""


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far a run is. Counts go on from those of the run that is resumed.

    Args:
        rows: records done.
        written: records in the output.
        missing: records whose key the source does not know, or withholds.
        failed: records that could not be enriched.
        calls: of the source, by this process.
        fraction: of the input that was read, from 0 to 1; `None` when that cannot be known.
        seconds: since this process began.
        resumed: records that were done before.
    """

    rows: int
    written: int
    missing: int
    failed: int
    calls: int
    fraction: float | None
    seconds: float
    resumed: int


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of a file. `rows` is the sum of `written`, `dropped` and `dead`.

    Args:
        rows: records of the input.
        written: records in the output.
        missing: records whose profile the source does not have, or withholds.
        keyless: records without a key.
        dropped: records left out because of `on_missing="drop"`.
        dead: records in the dead letters.
        reasons: of those, how many for which reason.
        clashes: columns that the records had already and kept, and in how many records.
        unseen: of the fields, those that no profile has; empty for a run that was resumed.
        calls: of the source, by this process.
        seconds: that this process took.
        resumed: records that were done by an earlier process.
    """

    rows: int
    written: int
    missing: int
    keyless: int
    dropped: int
    dead: int
    calls: int
    seconds: float
    resumed: int
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    clashes: dict[str, int] = field(default_factory=dict[str, int])
    unseen: list[str] = field(default_factory=list[str])


async def enrich_file(
    source: str | Path,
    target: str | Path,
    *,
    client: ProfileClient,
    key: str,
    fields: Mapping[str, str | None] | Iterable[str] | None = None,
    prefix: str = "profile_",
    into: str | None = None,
    on_missing: OnMissing = "null",
    dead_letter: str | Path | None = None,
    max_errors: float = 0.01,
    encoding: str | None = None,
    source_format: FileFormat | None = None,
    target_format: FileFormat | None = None,
    resume: bool = False,
    force: bool = False,
    window: int = 4096,
    concurrency: int = 64,
    checkpoint_rows: int = 50_000,
    checkpoint_every: float = 5.0,
    progress: Callable[[FileProgress], None] | None = None,
) -> FileReport:
    """Enriches each record of a file with the profile of its key. Memory stays flat whatever the length of the file.

    Records stay in order. Their own columns stay as they are, and come first; a column that a record has already is not
    replaced. The output appears when it is whole. Killed, the run goes on with `resume=True` from its last checkpoint,
    and the result is the same, byte for byte.

    Args:
        source: a `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet` file, text also as `.gz`; `-` is standard input.
        target: likewise; `-` is standard output. It can have another format than the source.
        client: looks the profiles up.
        key: the column to look up by. Whole numbers are looked up as their text.
        fields: the attributes to add; as a mapping, with the Arrow types of a Parquet file's columns (`None`: told by
            the values). Default: all.
        prefix: put before each attribute's name to name its column. Default `"profile_"`.
        into: instead, one column of this name that holds the attributes as an object (in CSV and Parquet: as JSON).
        on_missing: what becomes of records without a profile or without a key: nothing is added (`"null"`), they are
            left out (`"drop"`), go to the dead letters, or end the run (`"raise"`).
        dead_letter: a JSONL file for the records that cannot be enriched, each with the reason. Without it the first
            one ends the run.
        max_errors: records that may fail before the run ends: a fraction (a `float`) of the records so far, of 1,000 at
            least; or a number (an `int`). Default 0.01.
        encoding: of the text, e.g. `"latin-1"`; the output has it too. Default: by the byte order mark, else UTF-8.
        source_format: where its name does not say it.
        target_format: where its name does not say it.
        resume: go on with the run that was interrupted.
        force: replace files that are there, and an interrupted run.
        window: records under way at most.
        concurrency: calls of the source at the same time, at most.
        checkpoint_rows: a checkpoint is written after so many records at the latest.
        checkpoint_every: … and after so many seconds.
        progress: called with a `FileProgress`, up to ten times a second; keep it short.

    Returns:
        What became of the records.

    Raises:
        ConfigurationError: an argument makes no sense, a file is there already, there is nothing to resume, or the
            input or the arguments changed since.
        InputError: the input cannot be read, or one of its records, and there is no dead letter file.
        TooManyErrors: more records failed than `max_errors` allows.
        ProfileMissing: as `on_missing="raise"` asks for.
        ProfileEnrichError: a lookup failed, and there is no dead letter file; the source refuses the credentials.
    """
    plan = FileJob(
        source=FileSpec.of(source, source_format, what="the input"),
        target=FileSpec.of(target, target_format, what="the output"),
        key=key,
        fields=fields_of(fields),
        prefix=prefix,
        into=into,
        on_missing=on_missing,
        dead=None if dead_letter is None else Path(dead_letter),
        encoding=encoding,
        max_errors=max_errors,
    )
    plan.check(resume)
    check_int("window", window)
    check_int("concurrency", concurrency)
    check_int("checkpoint_rows", checkpoint_rows)
    check_number("checkpoint_every", checkpoint_every)
    with contextlib.closing(_Run(plan, client, resume=resume, force=force)) as run:
        run.saves(checkpoint_rows, checkpoint_every)
        run.progress = progress
        await run.go(window=window, concurrency=concurrency)
        return run.report()


class _Run:
    """One process's part in enriching a file."""

    progress: Callable[[FileProgress], None] | None = None

    def __init__(self, plan: FileJob, client: ProfileClient, *, resume: bool, force: bool) -> None:
        self._plan = plan
        self._client = client
        self._calls = client.stats().source_calls
        self._began = time.monotonic()
        self._rows_between, self._seconds_between = 0, 0.0
        self.reader: RecordReader = open_reader(
            plan.source, plan.key, encoding=plan.encoding, whole=not plan.two_passes or plan.dead is not None
        )
        try:
            self._out: Sink
            if plan.target.path is None:
                self._out = PartStream(plan.dead, force=force)
            else:
                self._out = Output(plan.target.path, plan.dead, job=plan.job(client), resume=resume, force=force)
        except BaseException:
            self.reader.close()
            raise
        self._state: CheckpointState = self._out.state
        self._resumed = self._state.rows
        for name in plan.columns():
            self._state.kinds.setdefault(name, "null")
        declared = Columns(plan.declared, "") if plan.declared else None
        self._shape = plan.shape()
        self._attributes = Attributes(lambda profile: self._shape.of({}, profile), declared)
        self._lines = Lines(self.reader, plan.target, plan.columns(), self._state.clashes)

    def saves(self, rows: int, seconds: float) -> None:
        """When to write checkpoints."""
        self._rows_between, self._seconds_between = rows, seconds

    # --- the first pass ---------------------------------------------------------------------------------------------

    async def go(self, *, window: int, concurrency: int) -> None:
        """All records, then the whole files."""
        if not self._state.done:
            try:
                await self._records(window, concurrency)
            except BaseException:
                self._out.save()
                raise
            self._state.done = True
            self._out.save()
        if self._plan.two_passes:
            self._assemble()
        self._out.finish(packed=self._plan.target.gzip)

    async def _records(self, window: int, concurrency: int) -> None:
        if not self._state.rows and not self._plan.two_passes and not self._out.size:
            self._out.write(self._lines.header())
        items = itertools.islice(iter(self.reader), self._state.rows, None)
        results: AsyncGenerator[Outcome[Item]] = outcomes(
            aside(items) if self._plan.source.path is None else items,
            client=self._client,
            key=_KEY,
            ordered=True,
            window=window,
            concurrency=concurrency,
        )
        saved, saved_at, told = self._state.rows, time.monotonic(), 0.0
        async with contextlib.aclosing(results):
            async for outcome in results:
                self._one(outcome)
                self._state.rows += 1
                now = time.monotonic()
                if self.progress is not None and now - told >= _TELL:
                    told = now
                    self.progress(self.now())
                if self._state.rows - saved >= self._rows_between or now - saved_at >= self._seconds_between:
                    self._out.save()
                    saved, saved_at = self._state.rows, time.monotonic()

    def _one(self, outcome: Outcome[Item]) -> None:
        """What becomes of one record."""
        item, plan = outcome.row, self._plan
        if item.fault is not None:
            self._fail(item, "bad_input", item.fault, None)
            return
        profile, problem = outcome.profile, outcome.problem
        if isinstance(problem, MissingKeyError):
            self._count("keyless")
            if not self._passes(item, problem.code, problem.message):
                return
        elif problem is not None:
            self._fail(item, problem.code, problem.message, problem)
            return
        elif profile is not None and not profile.found:
            self._count("missing")
            excluded = profile.reason is Reason.EXCLUDED
            code = (Reason.EXCLUDED if excluded else Reason.NOT_FOUND).value
            if not self._passes(item, code, f"the source {'excludes the' if excluded else 'has no'} profile"):
                return
        added = self._attributes.missing if profile is None else self._attributes.of(profile)
        if added.fault is not None:
            self._fail(item, "bad_attribute", added.fault, None)
            return
        if plan.two_passes:
            self._note(item, added)
        else:
            line = self._lines.line(item, added)
            if line is None:
                self._fail(item, "bad_encoding", f"a character that {self._lines.text.codec} has not", None)
                return
            self._out.write(line)
        self._count("written")

    def _note(self, item: Item, added: AddedFields) -> None:
        """Into the journal, which the second pass makes the output of."""
        if added.tail is None:
            notice(self._state.kinds, added.values)
            added.tail = json_text(added.values).encode()
        if self._plan.source.format == "jsonl":
            notice(self._state.read_kinds, item.record)
        self._out.write(entry(item.number, added.tail))

    def _count(self, what: str) -> None:
        counts = self._state.counts
        counts[what] = counts.get(what, 0) + 1

    def _passes(self, item: Item, code: str, why: str) -> bool:
        """Whether a record without a profile stays in the output."""
        how = self._plan.on_missing
        if how == "null":
            return True
        if how == "raise":
            raise ProfileMissing(f"{self._plan.source.name}, {item.place}: {why}")
        if how == "drop":
            self._count("dropped")
        else:
            self._letter(item, code, why)
        return False

    def _fail(self, item: Item, code: str, why: str, error: ProfileEnrichError | None) -> None:
        """To the dead letters, or the end of the run."""
        if self._plan.dead is None:
            if error is not None:
                raise error
            raise InputError(
                f"{self._plan.source.name}, {item.place}: {why}. Mend it, or keep such records in a dead letter file"
            )
        self._count("failed")
        self._letter(item, code, why)
        most, failed, rows = self._plan.max_errors, self._state.counts["failed"], self._state.rows + 1
        if failed > (most * max(rows, _ENOUGH) if isinstance(most, float) else most):
            allowed = f"{most:.2%} of at least {_ENOUGH:,}" if isinstance(most, float) else f"{most:,}"
            raise TooManyErrors(f"{failed:,} of {rows:,} records failed, and max_errors allows {allowed}")

    def _letter(self, item: Item, code: str, why: str) -> None:
        record: Any = item.raw
        if item.record is not None:
            whole_row = item.fault is None
            record = {n: plain(v) for n, v in self.reader.values(item).items()} if whole_row else item.record
        content = {
            "row": item.number,
            **({"line": item.line} if item.line else {}),
            "reason": code,
            "detail": why,
        }
        self._out.write_dead(json_text({**content, "record": record}).encode() + b"\n")
        self._count("dead")
        self._count(f"reason {code}")

    # --- the second pass --------------------------------------------------------------------------------------------

    def _assemble(self) -> None:
        out = self._out
        assert isinstance(out, Output)  # noqa: S101  # two passes are only made to a file
        if out.fresh.exists() or not out.part.exists():
            return  # it was made before the run was killed
        out.close()
        self.reader.close()
        reader = open_reader(self._plan.source, self._plan.key, encoding=self._plan.encoding)
        try:
            clashes = assemble(
                reader,
                out.part,
                out.fresh,
                self._plan.target,
                kinds=self._state.kinds,
                read_kinds=self._state.read_kinds,
                declared=self._plan.declared,
            )
        finally:
            reader.close()
        for name in clashes:
            self._state.clashes[name] = self._state.counts.get("written", 0)

    # --- what can be seen -------------------------------------------------------------------------------------------

    def now(self) -> FileProgress:
        counts = self._state.counts
        return FileProgress(
            rows=self._state.rows,
            written=counts.get("written", 0),
            missing=counts.get("missing", 0),
            failed=counts.get("failed", 0),
            calls=self._client.stats().source_calls - self._calls,
            fraction=self.reader.fraction,
            seconds=time.monotonic() - self._began,
            resumed=self._resumed,
        )

    def report(self) -> FileReport:
        counts = self._state.counts
        return FileReport(
            rows=self._state.rows,
            written=counts.get("written", 0),
            missing=counts.get("missing", 0),
            keyless=counts.get("keyless", 0),
            dropped=counts.get("dropped", 0),
            dead=counts.get("dead", 0),
            calls=self._client.stats().source_calls - self._calls,
            seconds=time.monotonic() - self._began,
            resumed=self._resumed,
            reasons={name.removeprefix("reason "): n for name, n in counts.items() if name.startswith("reason ")},
            clashes=dict(self._state.clashes),
            unseen=[] if self._resumed else sorted(self._shape.unseen),
        )

    def close(self) -> None:
        self.reader.close()
        self._out.close()
