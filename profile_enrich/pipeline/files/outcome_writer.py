"""Writing of outcomes: to the output, to the journal of the first pass, or to the dead letters."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError
from ...profile import Profile
from ..outcome_stream import Outcome
from ..records.outcome_policy import OutcomePolicy, Rejection
from ..tables.columns import Columns
from .column_types import json_text, notice, plain
from .encoded_fields import ReadyBlock
from .file_job import FileJob
from .line_writer import AddedFields, Attributes, Lines, encoded
from .select_reader import Block, Item, RecordReader
from .stream_output import RecordOutput
from .two_pass_writer import entry

__all__ = ["ColumnState", "OutcomeWriter"]


@dataclass(slots=True)
class ColumnState:
    """What a checkpoint holds of the columns.

    Args:
        kinds: the kinds of the added values by column, from which the types of a Parquet file are inferred.
        read_kinds: the kinds of the input's values by column, if its format has no types.
        clashes: the number of records by the name of a column that they already had.
        digest: the digest of the input, after the first pass.
    """

    kinds: dict[str, str] = field(default_factory=dict[str, str])
    read_kinds: dict[str, str] = field(default_factory=dict[str, str])
    clashes: dict[str, int] = field(default_factory=dict[str, int])
    digest: str = ""


class OutcomeWriter:
    """Write records with their outcomes.

    Args:
        job: the arguments of the run.
        reader: the reader of the records.
        out: the files.
        policy: decides about records without a profile.
        state: the columns seen so far. Modified in place.
    """

    def __init__(
        self, job: FileJob, reader: RecordReader, out: RecordOutput, policy: OutcomePolicy, state: ColumnState
    ) -> None:
        self._reader = reader
        self._out = out
        self._policy = policy
        self._state = state
        self._two_passes = job.two_passes
        for name in job.columns():
            state.kinds.setdefault(name, "null")
        declared = Columns(job.declared, "") if job.declared else None
        self.merger = job.merger()
        self._attributes = Attributes(self.merger.added, declared)
        self._lines = Lines(reader, job.target, job.columns(), state.clashes)
        self._emit: Callable[[bytes], object] = out.write

    def header(self) -> None:
        """Write what is before the first record."""
        if not self._two_passes and not self._out.size:
            self._out.write(self._lines.header())

    def added(self, attributes: Any) -> AddedFields:
        """Return the fields that these attributes add, encoded as far as they do not depend on the record."""
        added = self._attributes.of_attributes(attributes)
        if not self._two_passes and added.fault is None:
            self._lines.tail(added)
        return added

    async def block(self, block: Block, ready: ReadyBlock) -> None:
        """Write a block of records. Those that have a profile are joined by column where possible."""
        self._emit = (written := list[bytes]()).append
        try:
            fields = ready.fields(block)
            starts = None if self._two_passes else self._lines.starts(block)
            tails = [None if starts is None or added is None else added.tail for added in fields]
            first, size = 0, len(tails)
            for at in [at for at, tail in enumerate(tails) if tail is None] + [size]:
                joined = first < at and self._join((starts or [])[first:at], tails[first:at])
                for each in range(at if joined else first, min(at + 1, size)):
                    item = block.item(each)
                    if not self._found(item, fields[each]):
                        self.outcome(*await ready.outcome(item))
                first = at + 1
        finally:  # including the records before one that ends the run, which are counted
            self._out.write(b"".join(written))
            self._emit = self._out.write

    def _join(self, starts: list[str], tails: list[Any]) -> bool:
        """Write lines; return false, having written nothing, if a character cannot be encoded."""
        lines = encoded("".join(map(operator.add, starts, tails)), self._lines.text)
        if lines is None:
            return False
        self._emit(lines)
        self._lines.clash(len(starts))
        self._count(len(starts))
        return True

    def _found(self, item: Item, added: AddedFields | None) -> bool:
        """Write a record that has a profile; return false, having written nothing, if that is not possible."""
        if added is None:
            return False
        if self._two_passes:
            self._note(item, added)
        else:
            line = self._lines.line(item, added)
            if line is None:
                return False
            self._emit(line)
        self._count(1)
        return True

    def _count(self, found: int) -> None:
        self._policy.stats.rows += found
        self._policy.stats.enriched += found

    def outcome(self, outcome: Outcome[Item], added: AddedFields | None = None) -> None:
        """Write one record, with these added fields or those of its profile, to the output or to the dead letters."""
        item, profile, policy = outcome.row, outcome.profile, self._policy
        place = f"{self._reader.spec.name}, {item.place}"
        if item.fault is not None:
            self._reject(item, policy.fail("bad_input", item.fault, place, self._unusable(place, item.fault)))
        else:
            rejection = policy.apply(profile, outcome.problem, place)
            if rejection is not None:
                self._reject(item, rejection)
            else:
                self._write(item, profile, place, added)
        if self._policy.stats.failed:
            policy.check()

    def _write(self, item: Item, profile: Profile | None, place: str, added: AddedFields | None) -> None:
        """Write one record to the output."""
        if added is None:
            added = self._attributes.missing if profile is None else self._attributes.of(profile)
        fault, code = added.fault, "bad_attribute"
        line: bytes | None = None
        if fault is None and not self._two_passes:
            line = self._lines.line(item, added)
            if line is None:
                fault, code = f"a character that {self._lines.text.codec} does not have", "bad_encoding"
        if fault is not None:
            self._reject(item, self._policy.demote(profile, code, fault, place, self._unusable(place, fault)))
        elif line is None:
            self._note(item, added)
        else:
            self._emit(line)

    def _note(self, item: Item, added: AddedFields) -> None:
        """Write a line of the journal, which the second pass reads."""
        if added.tail is None:
            notice(self._state.kinds, added.values)
            added.tail = json_text(added.values)
        if self._reader.spec.format == "jsonl":
            notice(self._state.read_kinds, item.record)
        self._emit(entry(item.number, added.tail))

    def _unusable(self, place: str, fault: str) -> InputError:
        return InputError(f"{place}: {fault}. Fix it and start over, or pass dead_letter= to keep such records")

    def _reject(self, item: Item, rejection: Rejection | None) -> None:
        """Write a dead letter, unless the record is dropped."""
        if rejection is None or rejection.dropped:
            return
        record: Any = item.record
        if record is None:
            record = item.raw
        elif item.fault is None or isinstance(record, tuple):
            record = {name: plain(value) for name, value in self._reader.values(item).items()}
        content = {
            "row": item.number,
            **({"line": item.line} if item.line else {}),
            "reason": rejection.code,
            "detail": rejection.message,
            "record": record,
        }
        self._out.write(json_text(content).encode() + b"\n", "the dead letters")
