"""Where an export goes: a file that appears when it is whole and can be gone on with, or standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..errors import ConfigurationError

__all__ = ["ExportState", "FileTarget", "StdoutTarget", "Target"]

_VERSION = 1


@dataclass(slots=True)
class ExportState:
    """How far an export is.

    Args:
        rows: written so far.
        size: bytes written so far.
        token: where the next page begins; `None` before the first.
        columns: of the CSV.
        left_out: columns that came later, and in how many rows.
        total: rows in all, where the API said it.
    """

    rows: int = 0
    size: int = 0
    token: str | None = field(default=None, repr=False)
    columns: list[str] | None = None
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    total: int | None = None


class Target(Protocol):
    """Takes pages."""

    state: ExportState

    def write(self, data: bytes, state: ExportState) -> None:
        """Takes one page, and how far the export is after it."""
        ...

    def finish(self) -> None:
        """All pages were written."""
        ...

    def close(self) -> None:
        """Ends it, whole or not."""
        ...


class StdoutTarget:
    """Standard output: nothing to go on from."""

    def __init__(self) -> None:
        self.state = ExportState()
        self._stream = sys.stdout.buffer

    def write(self, data: bytes, state: ExportState) -> None:
        """Takes one page."""
        self._stream.write(data)
        self._stream.flush()
        self.state = state

    def finish(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class FileTarget:
    """A file that is written beside its place, and moved there when it is whole.

    `NAME.part` holds the pages so far, `NAME.resume` how far that is, renewed after each page. Both, and the file, can
    be read by their owner only.

    Args:
        path: the file.
        fingerprint: of what is exported; only the same export can be gone on with.
        resume: go on with the one that was interrupted.
        force: replace the file, and an interrupted export of it.

    Raises:
        ConfigurationError: the file is there already, or there is nothing to resume, or something else was exported.
    """

    def __init__(self, path: Path, *, fingerprint: Mapping[str, str], resume: bool, force: bool) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.notes = path.with_name(f"{path.name}.resume")
        self._fingerprint = dict(fingerprint)
        self.state = self._resumed() if resume else ExportState()
        if not resume:
            self._refuse_to_destroy(force)
        elif path.exists() and not force:
            raise ConfigurationError(f"{path} is there already; say --force to replace it when the export is whole")
        flags = os.O_WRONLY | os.O_CREAT | (0 if resume else os.O_TRUNC)
        self._file: BinaryIO = os.fdopen(os.open(self.part, flags, 0o600), "wb", buffering=0)
        self._file.truncate(self.state.size)  # a page that was cut off by a crash
        self._file.seek(self.state.size)
        if not resume:
            self.notes.unlink(missing_ok=True)

    def _refuse_to_destroy(self, force: bool) -> None:
        if force:
            return
        if self.path.exists():
            raise ConfigurationError(f"{self.path} is there already; say --force to replace it")
        if self.notes.exists() and self.part.exists():
            raise ConfigurationError(
                f"an export to {self.path} was interrupted; --resume goes on with it, --force begins anew"
            )

    def _resumed(self) -> ExportState:
        try:
            raw: Any = json.loads(self.notes.read_bytes())
            written = self.part.stat().st_size
        except FileNotFoundError:
            raw, written = None, 0
        except ValueError:
            raw, written = {}, 0
        if raw is None:
            raise ConfigurationError(f"there is no interrupted export to {self.path}; leave --resume out")
        try:
            found = ExportState(**raw["state"])
            whole = raw["version"] == _VERSION and isinstance(found.token, str) and 0 <= found.size <= written
        except (KeyError, TypeError):
            whole = False
            found = ExportState()
        if not whole:
            raise ConfigurationError(f"{self.notes} cannot be used; begin anew with --force")
        asked = raw.get("export")
        if asked != self._fingerprint:
            changed = [name for name in self._fingerprint if (asked or {}).get(name) != self._fingerprint[name]]
            raise ConfigurationError(
                f"the interrupted export was of something else ({', '.join(changed)} differ); begin anew with --force"
            )
        return found

    def write(self, data: bytes, state: ExportState) -> None:
        """Appends one page, then notes how far it is: killed in between, the page is written again."""
        self._file.write(data)
        if state.token is not None:
            content = {"version": _VERSION, "export": self._fingerprint, "state": asdict(state)}
            fresh = self.notes.with_name(f"{self.notes.name}.new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(content, file)
            fresh.replace(self.notes)
        self.state = state

    def finish(self) -> None:
        """Moves the whole file to its place."""
        os.fsync(self._file.fileno())
        self._file.close()
        self.part.replace(self.path)
        self.notes.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file; without `finish()` before it, what is needed to go on stays."""
        self._file.close()
        if self.state.token is None:  # not one page: nothing to go on from
            self.part.unlink(missing_ok=True)
