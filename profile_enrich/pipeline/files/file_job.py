"""`FileJob`: the arguments of a run, validated before a file is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..._utils.file_identity import FileIdentity
from ...client.client import ProfileClient
from ...errors import ConfigurationError
from ..options import EnrichOptions
from ..records.merge import RecordMerger
from ..tables.columns import Columns
from .formats import FileSpec, arrow

__all__ = ["FileJob", "fields_of"]


def fields_of(given: Mapping[str, str | None] | Iterable[str] | None) -> dict[str, str | None] | None:
    """Return the attributes to add, each with its declared type, if any; `None` for all."""
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
    """The arguments of a run over a file."""

    source: FileSpec
    target: FileSpec
    key: str
    fields: dict[str, str | None] | None
    prefix: str
    into: str | None
    dead: Path | None
    encoding: str | None
    options: EnrichOptions

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
        """The declared types, by column."""
        return {self.prefix + name: kind for name, kind in (self.fields or {}).items() if kind is not None}

    @property
    def inputs(self) -> dict[str, Path]:
        """The input files, by role."""
        return {} if self.source.path is None else {"the input": self.source.path}

    @property
    def more_outputs(self) -> dict[str, Path]:
        """The further output files, by role."""
        return {} if self.dead is None else {"the dead letters": self.dead}

    def check(self, resume: bool) -> None:
        """Validate the arguments.

        Raises:
            ConfigurationError: the message names the argument.
            MissingExtraError: a Parquet file is read or written, and pyarrow is not installed.
        """
        if not self.key or not isinstance(self.key, str):
            raise ConfigurationError("key must name the column to look up by")
        if self.into is not None and not self.into:
            raise ConfigurationError("into must be the name of a column")
        if self.options.on_error == "null":
            raise ConfigurationError(
                "on_error='null' is not for files: pass dead_letter= with a file, or on_error='raise'"
            )
        for name in ("on_missing", "on_error"):
            if getattr(self.options, name) == "dead_letter" and self.dead is None:
                raise ConfigurationError(f"{name}='dead_letter' needs a file for them: pass dead_letter=")
        if self.declared and (self.target.format != "parquet" or self.into is not None):
            raise ConfigurationError("types of fields are for the columns of a Parquet file; name the fields alone")
        if self.declared:
            Columns(self.declared, "")
        if "parquet" in (self.source.format, self.target.format):
            arrow("pyarrow.parquet")
        if self.two_passes and self.source.is_stream:
            raise ConfigurationError(
                "the columns of this output are known only when all records were read, so the input is read twice: "
                "give a regular file as the input, or pass fields=, or write JSONL"
            )
        if resume and (self.source.is_stream or self.target.path is None):
            raise ConfigurationError("resume=True: only a run from a regular file to a file can be resumed")

    def merger(self) -> RecordMerger:
        """Return the merger that makes the columns of a profile."""
        if self.into is not None:
            return RecordMerger(self.fields, self.into, None)
        return RecordMerger(self.fields, "profile", self.prefix)

    def columns(self) -> list[str]:
        """Return the columns added to a CSV."""
        return [self.into] if self.into is not None else [self.prefix + name for name in self.fields or ()]

    def fingerprint(self, client: ProfileClient, identity: FileIdentity | None) -> dict[str, str]:
        """Return the settings that must match to resume a run."""
        facts: dict[str, str] = {}
        if identity is not None:
            facts = {
                "the input's size": str(identity.size),
                "the input's modification time": str(identity.mtime_ns),
                "the input's content": identity.digest,
            }
        return facts | {
            "source": hashlib.sha256(client.source.namespace.encode()).hexdigest()[:16],
            "key": self.key,
            "fields": json.dumps(self.fields),
            "columns": f"prefix {self.prefix}" if self.into is None else f"into {self.into}",
            "on_missing": self.options.on_missing,
            "format": f"{self.source.format} to {self.target.format}, {self.source.delimiter}{self.target.delimiter}",
            "encoding": self.encoding or "",
            **{role: str(path.absolute()) for role, path in self.more_outputs.items()},
        }
