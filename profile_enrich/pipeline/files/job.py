"""What is to be done with a file: its arguments, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..._utils.validation import check_number
from ...client.client import ProfileClient
from ...errors import ConfigurationError
from ..records.merge import RecordMerger
from ..tables.columns import Columns
from .formats import FileSpec, identity

__all__ = ["FileJob", "OnMissing", "fields_of"]

OnMissing = Literal["null", "drop", "dead_letter", "raise"]


def fields_of(given: Mapping[str, str | None] | Iterable[str] | None) -> dict[str, str | None] | None:
    """The attributes to add, each with the type that was said for it, if any; `None` for all."""
    if given is None:
        return None
    if isinstance(given, str):
        raise ConfigurationError("fields must be a list of attributes, or a mapping of them to types, not text")
    named: dict[str, str | None] = {}
    for name in given:
        named[name] = given[name] if isinstance(given, Mapping) else None
    if not named or not all(isinstance(name, str) and name for name in named):
        raise ConfigurationError("fields must name at least one attribute, each as text that is not empty")
    return named


@dataclass(frozen=True, slots=True)
class FileJob:
    """What is to be done."""

    source: FileSpec
    target: FileSpec
    key: str
    fields: dict[str, str | None] | None
    prefix: str
    into: str | None
    on_missing: OnMissing
    dead: Path | None
    encoding: str | None
    max_errors: float

    @property
    def two_passes(self) -> bool:
        """Whether the output's columns are known only when all records are done."""
        if self.target.format == "jsonl":
            return False
        if self.target.format == "parquet":
            return True
        return self.source.format == "jsonl" or (self.fields is None and self.into is None)

    @property
    def declared(self) -> dict[str, str]:
        """The types that were said, by column."""
        return {self.prefix + name: kind for name, kind in (self.fields or {}).items() if kind is not None}

    def check(self, resume: bool) -> None:
        """Refuses what makes no sense, before a file is touched."""
        if not self.key or not isinstance(self.key, str):
            raise ConfigurationError("key must name the column to look up by")
        if self.into is not None and not self.into:
            raise ConfigurationError("into must be the name of a column")
        if self.on_missing not in ("null", "drop", "dead_letter", "raise"):
            raise ConfigurationError("on_missing must be 'null', 'drop', 'dead_letter' or 'raise'")
        most = self.max_errors
        check_number("max_errors", most, unit="records, or a fraction of them")
        if isinstance(most, float) and most > 1:
            raise ConfigurationError("max_errors as a fraction must be at most 1.0; give a whole number of records")
        if self.on_missing == "dead_letter" and self.dead is None:
            raise ConfigurationError("on_missing='dead_letter' needs a dead_letter file")
        if self.declared and (self.target.format != "parquet" or self.into is not None):
            raise ConfigurationError("types of fields are for the columns of a Parquet file; name the fields alone")
        if self.declared:
            Columns(self.declared, "")
        if self.two_passes and self.source.path is None:
            raise ConfigurationError(
                "the columns of this output are known only when all records were read, so the input is read twice: "
                "give a file instead of standard input, or write JSONL, or CSV with fields"
            )
        if resume and (self.source.path is None or self.target.path is None):
            raise ConfigurationError("only a run from a file to a file can be resumed")
        paths = [path.resolve() for path in (self.source.path, self.target.path, self.dead) if path is not None]
        if len(set(paths)) < len(paths):
            raise ConfigurationError("the input, the output and the dead letters must be different files")

    def shape(self) -> RecordMerger:
        """Makes the columns of a profile, as `enrich` does."""
        if self.into is not None:
            return RecordMerger(self.fields, self.into, None)
        return RecordMerger(self.fields, "profile", self.prefix)

    def columns(self) -> list[str]:
        """The columns that a CSV gets."""
        return [self.into] if self.into is not None else [self.prefix + name for name in self.fields or ()]

    def job(self, client: ProfileClient) -> dict[str, str]:
        """What an interrupted run must agree in to be gone on with."""
        facts = {f"the input's {name}": value for name, value in identity(self.source).items()}
        return facts | {
            "source": hashlib.sha256(client.source.namespace.encode()).hexdigest()[:16],
            "key": self.key,
            "fields": json.dumps(self.fields),
            "columns": f"prefix {self.prefix}" if self.into is None else f"into {self.into}",
            "what becomes of missing profiles": self.on_missing,
            "format": f"{self.source.format} to {self.target.format}, {self.source.delimiter}{self.target.delimiter}",
            "encoding": self.encoding or "",
            "dead letters": "" if self.dead is None else str(self.dead.absolute()),
        }
