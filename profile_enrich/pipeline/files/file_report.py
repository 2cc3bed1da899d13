"""How far a run over a file is, and what became of the records."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["FileProgress", "FileReport"]


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far a run is. Counts continue those of the run that is resumed.

    Args:
        rows: records done.
        written: records in the output.
        missing: records whose profile the source does not have, or excludes.
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
    """What became of the records of a file. `rows` is the sum of `written`, `dropped` and `dead`.

    Args:
        rows: records of the input.
        written: records in the output.
        missing: records whose profile the source does not have, or excludes.
        keyless: records without a key.
        dropped: records left out because of `on_missing="drop"`.
        dead: records in the dead letters.
        reasons: of those, how many for which reason.
        clashes: columns that the records had already and kept, and in how many records.
        unseen: of the fields, those that no profile has; empty for a run that was resumed.
        calls: of the source, by this process.
        seconds: that this process took.
        resumed: records that were done by an earlier process.
        problems: what makes a finished run look like a mistake, in sentences: most records have no key, no record has a
            profile, or an attribute in `fields` is in no profile. Look at them before you use the output.
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
    problems: list[str] = field(default_factory=list[str])
