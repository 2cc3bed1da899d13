"""Progress and report of a run over a file."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["FileProgress", "FileReport"]


@dataclass(frozen=True, slots=True)
class FileProgress:
    """The progress of a run. Counts continue those of a resumed run.

    Args:
        rows: finished records.
        written: records in the output.
        missing: records whose profile is missing or excluded.
        failed: records that could not be enriched.
        calls: calls to the source by this process.
        fraction: the part of the input read so far, from 0 to 1; `None` if unknown.
        seconds: the duration of this process.
        resumed: records finished by earlier processes.
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
    """The result of a run over a file. `rows` is the sum of `written`, `dropped` and `dead`.

    Args:
        rows: records of the input.
        written: records in the output.
        missing: records whose profile is missing or excluded.
        keyless: records without a key.
        dropped: records dropped by `on_missing="drop"`.
        dead: records in the dead letters.
        reasons: the dead letters by reason.
        clashes: existing columns that were kept, with their number of records.
        unseen: the names in `fields` that no profile has; empty for a resumed run.
        calls: calls to the source by this process.
        seconds: the duration of this process.
        resumed: records finished by earlier processes.
        problems: sentences about suspicious results: most records have no key, no record has a profile, or an attribute
            in `fields` is in no profile. Check them before you use the output.
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
