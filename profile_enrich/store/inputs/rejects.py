"""Rejected rows: counted by reason and optionally written to a file."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Generator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

from ..._utils.files import private_opener
from ..._utils.output_paths import OutputPath, check_output_paths
from ...errors import StoreError
from ..collection_specs import CollectionSpec, RefreshSpec

__all__ = ["Rejects", "check_paths"]


class Rejects:
    """Count rejected rows by reason, and write them to a file.

    The file has one JSON object per line with `source`, `line` or `row` (the position; row 1 is the first data row),
    `reason`, and `data` (its columns) or `raw` (the text of a malformed line). It holds personal data, so only its
    owner can read it.

    Args:
        path: the file; `None` to count only. The first rejected row replaces an older file, and `finish` removes it if
            there is none.
        source: the name of the input, for the file.

    Attributes:
        reasons: the number of rejected rows, by reason.
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
        self._removable = False
        if self._path is not None:
            self._removable = not self._path.exists()
            self._open("a").close()  # before hours of work, not after: whether it can be written at all

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
        """Add a rejected row. `reason` must not hold a value."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.broken += data is None
        if row is not None and self.first_row is None:
            self.first_row = row
        if line is not None and self.first_line is None:
            self.first_line = line
        if self._path is not None:
            self._file = self._file or self._open("w")
            entry: dict[str, Any] = {"source": self._source}
            entry |= {"line": line} if line is not None else {"row": row}
            entry["reason"] = reason
            entry |= {"raw": raw} if data is None else {"data": data}
            text = json.dumps(entry, ensure_ascii=False, default=_plain)
            with self._named():
                self._file.write(text.encode("utf-8", "backslashreplace").decode() + "\n")

    def finish(self) -> None:
        """All rows are taken: `close` removes the file of an earlier run if none was rejected."""
        self._removable = True

    def close(self) -> None:
        """Close the file. It is removed if no row was rejected, unless the run failed and it is of an earlier one."""
        if self._file is not None:
            file, self._file = self._file, None
            with self._named():
                file.close()
        if self._path is not None and self._removable and not self.reasons:
            self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named(self) -> Generator[None]:
        """Name the file in an error of the system, e.g. a full disk: several are written at once."""
        problem = ""
        try:
            yield
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise StoreError(f"the file for rows left out, {self._path}, cannot be written: {problem}")

    def _open(self, mode: str) -> IO[str]:
        assert self._path is not None  # noqa: S101  # by the callers
        with self._named():
            return open(self._path, mode, encoding="utf-8", opener=private_opener)  # closed in close(); `opener`


def _plain(value: object) -> object:
    """Return what JSON has for a value: numbers stay numbers where a float holds their digits."""
    if isinstance(value, Decimal) and Decimal(repr(float(value))) == value:
        return float(value)
    return str(value)


def check_paths(specs: Sequence[CollectionSpec | RefreshSpec], store: Path | None = None) -> None:
    """Check, before anything is read, that a store and files for rejected rows do not overwrite other data.

    Only files of rejected rows from an earlier run may be replaced.

    Args:
        specs: what is built or refreshed.
        store: the directory of the store, if it is one of files.

    Raises:
        ConfigurationError: the file is an input, or another output, or exists and does not hold rejected rows.
    """
    outputs = [] if store is None else [OutputPath(store, "the store", kind="directory")]
    outputs += [
        OutputPath(
            Path(spec.rejects),
            f"the file for rejected rows of {spec.name}",
            replace=_holds_rejects(Path(spec.rejects)),
            remedy="it does not hold rejected rows of an earlier run; choose another path, or move it away",
        )
        for spec in specs
        if spec.rejects is not None
    ]
    inputs: dict[str, Path] = {}
    for spec in specs:
        if isinstance(spec.source, str | Path):
            inputs[f"the source of {spec.name}"] = Path(spec.source)
        if isinstance(spec, RefreshSpec) and isinstance(spec.deleted, str | Path):
            inputs[f"the keys to delete of {spec.name}"] = Path(spec.deleted)
    check_output_paths(outputs, inputs)


def _holds_rejects(path: Path) -> bool:
    """Return whether a file is empty or was written by `Rejects`."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
        entry = json.loads(first) if first else {"source": "", "reason": ""}
        return isinstance(entry, dict) and {"source", "reason"} <= set(cast("dict[str, Any]", entry))
    except (OSError, ValueError):
        return False


_LONGEST_LINE = 1 << 25
"""The largest line of rejected rows, in bytes; a line of a CSV file has up to 4 MB."""
