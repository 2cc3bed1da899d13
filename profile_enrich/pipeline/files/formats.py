"""Detection of a file's format by its name."""

from __future__ import annotations

import gzip
import io
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from ..._utils.optional_import import import_extra
from ...errors import ConfigurationError, InputError

__all__ = ["FileFormat", "FileSpec", "arrow", "open_binary"]

FileFormat = Literal["csv", "jsonl", "parquet"]

_SUFFIXES: dict[str, tuple[FileFormat, str]] = {
    ".csv": ("csv", ","),
    ".tsv": ("csv", "\t"),
    ".jsonl": ("jsonl", ","),
    ".ndjson": ("jsonl", ","),
    ".parquet": ("parquet", ","),
    ".pq": ("parquet", ","),
}


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One file, or standard input or output.

    Args:
        path: the path; `None` for standard input or output.
        format: the format of the records.
        delimiter: the delimiter of a CSV.
        gzip: whether it is compressed.
    """

    path: Path | None
    format: FileFormat
    delimiter: str = ","
    gzip: bool = False

    @classmethod
    def of(
        cls,
        given: str | Path,
        format: FileFormat | None = None,
        *,
        delimiter: str | None = None,
        what: str = "the input",
    ) -> FileSpec:
        """Parse a path by its suffix: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.parquet`, `.pq`, with `.gz` or not.

        Args:
            given: the path; `-` for standard input or output.
            format: the format, overriding the suffix.
            delimiter: the delimiter of a CSV, one character. Default: a tab for `.tsv`, else a comma.
            what: its name in messages.

        Raises:
            ConfigurationError: the suffix is unknown, or the format is not available there.
        """
        path = None if str(given) == "-" else Path(given)
        suffixes = [] if path is None else [suffix.lower() for suffix in path.suffixes]
        packed = bool(suffixes) and suffixes[-1] == ".gz"
        if packed:
            suffixes.pop()
        told = _SUFFIXES.get(suffixes[-1]) if suffixes else None
        form = format or (told[0] if told else None)
        if form is None:
            argument = "source_format" if what == "the input" else "target_format"
            raise ConfigurationError(
                f"{what}: its suffix is not that of CSV, JSONL or Parquet; pass {argument}='csv' (or jsonl, parquet)"
            )
        if form == "parquet" and (path is None or packed):
            where = "standard input or output" if path is None else "a .gz file"
            raise ConfigurationError(f"{what}: Parquet cannot be in {where}; it needs a file of its own")
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
            raise ConfigurationError(f"{what}: a delimiter is one character, and no quote or line end")
        if form == "parquet" and _is_stream(path):
            raise ConfigurationError(f"{what}: Parquet needs a regular file, not a pipe or a device")
        return cls(path, form, delimiter or (told[1] if told else ","), packed)

    @property
    def is_stream(self) -> bool:
        """Whether it is a pipe or device, which can be read only once."""
        return _is_stream(self.path)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return "standard input" if self.path is None else self.path.name


def _is_stream(path: Path | None) -> bool:
    try:
        return path is None or not (stat.S_ISREG(path.stat().st_mode) or path.is_dir())
    except OSError:
        return False


def open_binary(spec: FileSpec) -> BinaryIO:
    """Open a text file for reading, decompressed.

    Raises:
        InputError: the file cannot be opened.
    """
    failed = ""
    try:
        if spec.path is None:
            return _standard_input()
        if spec.gzip:
            return cast(BinaryIO, io.BufferedReader(cast(Any, gzip.open(spec.path, "rb")), 2**17))
        # Unbuffered for a pipe, since a buffer would wait until it is full.
        return spec.path.open("rb", buffering=0 if spec.is_stream else 2**17)
    except OSError as error:
        failed = error.strerror or "it cannot be opened"
    raise InputError(f"{spec.path}: {failed}")


def _standard_input() -> BinaryIO:
    """Return standard input, unbuffered and without a lock at the end of the process."""
    try:
        return cast(BinaryIO, open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    except (OSError, ValueError):  # it was replaced by an object without a file
        return cast(BinaryIO, sys.stdin.buffer)


def arrow(name: str = "pyarrow") -> Any:
    """Return a module of pyarrow, which has no type hints.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra(name, "a Parquet file", "arrow")
