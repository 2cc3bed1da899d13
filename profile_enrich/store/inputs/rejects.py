"""Rows that were left out: counted by reason, and written to a file of the user's if they want it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ...errors import StoreError

__all__ = ["Rejects"]


class Rejects:
    """Counts what is left out, and why.

    The file holds one JSON object a line: `source`, `line` or `row` (where the row is; row 1 is the first data row),
    `reason`, and `data` (its columns) or `raw` (its text, where it could not be taken apart). It is the user's own
    data: only its owner can read it.

    Args:
        path: the file, made anew with the first row left out and removed if there is none; `None`: only count.
        source: what is read, for the file.

    Attributes:
        reasons: how many rows were left out, by reason.
        broken: how many of them could not even be taken apart.
        first_row: the number of the first one that could be.
        first_line: the line of the first one whose line is known.
    """

    def __init__(self, path: Path | str | None, source: str) -> None:
        self._path = None if path is None else Path(path)
        self._source = source
        self._file: IO[str] | None = None
        self.reasons: dict[str, int] = {}
        self.broken = 0
        self.first_row: int | None = None
        self.first_line: int | None = None
        if self._path is not None:
            self._open()  # before hours of work, not after: whether it can be written at all

    @property
    def kept(self) -> bool:
        """Whether there is a file: only then is a broken line left out; otherwise it ends the build."""
        return self._path is not None

    def add(
        self,
        reason: str,
        *,
        row: int | None = None,
        line: int | None = None,
        data: Mapping[str, object] | None = None,
        raw: str | None = None,
    ) -> None:
        """One row that was left out. `reason` holds no value."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.broken += data is None
        if row is not None and self.first_row is None:
            self.first_row = row
        if line is not None and self.first_line is None:
            self.first_line = line
        if self._file is not None:
            entry: dict[str, Any] = {"source": self._source}
            entry |= {"line": line} if line is not None else {"row": row}
            entry["reason"] = reason
            entry |= {"raw": raw} if data is None else {"data": data}
            text = json.dumps(entry, ensure_ascii=False, default=str)
            self._file.write(text.encode("utf-8", "backslashreplace").decode() + "\n")

    def close(self) -> None:
        """Closes the file; an empty one is removed."""
        if self._file is not None and self._path is not None:
            self._file.close()
            self._file = None
            if not self.reasons:
                self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        assert self._path is not None  # noqa: S101  # by the only caller
        problem = ""
        try:
            self._file = open(self._path, "w", encoding="utf-8", opener=_private)  # noqa: SIM115  # closed in close(); `opener`
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise StoreError(f"the file for rows left out, {self._path}, cannot be written: {problem}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
